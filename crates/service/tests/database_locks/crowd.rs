//! Instances that want one lock again and again, and write down what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use scoria_runtime::Tasks;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::history::{History, Summary};
use crate::{coordinator, until, within};

const NAME: &str = "crowded";
const TURN: Duration = Duration::from_millis(20);

/// Instances with a URL to the database each.
pub(crate) struct Crowd {
    history: Arc<History>,
    state: Arc<State>,
    tasks: Tasks,
    running: Vec<JoinHandle<()>>,
    _directory: TempDir,
}

struct State {
    turns: Vec<AtomicUsize>,
    /// Whoever has the lock keeps it until it is lost.
    keeps: AtomicBool,
    /// Somebody does.
    kept: AtomicBool,
}

impl Crowd {
    pub(crate) async fn start(urls: &[&str], backend_url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let turns = urls.iter().map(|_| AtomicUsize::new(0)).collect();
        let state = Arc::new(State { turns, keeps: AtomicBool::new(false), kept: AtomicBool::new(false) });
        let (history, tasks) = (Arc::new(History::new(directory.path())), Tasks::new());
        let mut running = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            let instance = format!("crowd-{number}");
            let ours = coordinator(url, &instance, backend_url).await;
            let (history, state, stop) = (history.clone(), state.clone(), tasks.stop_token());
            running.push(tasks.spawn("instance", async move {
                while !stop.is_cancelled() {
                    let Ok(held) = within(&ours, NAME, Duration::from_millis(500)).await else { continue };
                    history.acquired(&instance, NAME, &held);
                    state.turns[number].fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(TURN).await;
                    while state.keeps.load(Ordering::SeqCst) && !held.lost().is_cancelled() {
                        state.kept.store(true, Ordering::SeqCst);
                        tokio::time::sleep(TURN).await;
                    }
                    history.releasing(&instance, NAME);
                    let _ = held.release().await;
                    tokio::time::sleep(TURN).await;
                }
            }));
        }
        Self { history, state, tasks, running, _directory: directory }
    }

    /// From now on whoever has the lock keeps it, unless it is lost; waits until somebody has it.
    pub(crate) async fn keeps(&self) {
        self.state.kept.store(false, Ordering::SeqCst);
        self.state.keeps.store(true, Ordering::SeqCst);
        until("somebody has it", || self.state.kept.load(Ordering::SeqCst)).await;
    }

    /// Nobody keeps it any longer; waits until each of them has had it again, a few times.
    pub(crate) async fn goes_on(&self) {
        self.state.keeps.store(false, Ordering::SeqCst);
        let turns = || self.state.turns.iter().map(|turns| turns.load(Ordering::SeqCst));
        let before: Vec<_> = turns().collect();
        until("each of them goes on", || turns().zip(&before).all(|(now, before)| now >= before + 3)).await;
    }

    /// Never two had it at once, and tokens rose.
    pub(crate) async fn ends(self) -> Summary {
        self.tasks.shutdown().await;
        for instance in self.running {
            instance.await.unwrap();
        }
        self.history.check().unwrap()
    }
}
