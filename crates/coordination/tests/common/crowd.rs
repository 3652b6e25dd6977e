//! Instances that take the same locks turn after turn, and write down what they did.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use scoria_coordination::Coordinator;
use scoria_runtime::{CancellationToken, Tasks};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::history::{History, Summary};
use super::locks::{request, until, within};

/// How long a lock is held, how often whoever keeps it looks whether it still may, and how long whoever gave it back leaves it to the
/// others: not every service serves in order.
const TURN: Duration = Duration::from_millis(5);
/// How long a member waits for a lock. While something fails, or somebody keeps it, it gives up and begins anew.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many turns of each are progress.
const PROGRESS: usize = 7;

/// They work until the end, whatever happens to the lock service.
pub(crate) struct Crowd {
    history: Arc<History>,
    tasks: Tasks,
    running: Vec<JoinHandle<()>>,
    members: Vec<Arc<Member>>,
    _directory: TempDir,
}

/// One instance.
struct Member {
    name: String,
    ours: Coordinator,
    /// How often it has had a lock.
    turns: AtomicUsize,
    /// What it gets it keeps, unless that is lost.
    keeps: AtomicBool,
    /// It has a lock that it keeps.
    kept: AtomicBool,
}

impl Crowd {
    /// All of them want all these locks.
    pub(crate) async fn start<I>(instances: impl IntoIterator<Item = I>, names: &[&'static str]) -> Self
    where
        I: Future<Output = Coordinator>,
    {
        let directory = tempfile::tempdir().unwrap();
        let (history, tasks) = (Arc::new(History::new(directory.path())), Tasks::new());
        let (mut members, mut running) = (Vec::new(), Vec::new());
        for (number, instance) in instances.into_iter().enumerate() {
            let (name, ours) = (format!("i{number}"), instance.await);
            let (turns, keeps, kept) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
            let member = Arc::new(Member { name, ours, turns, keeps, kept });
            for name in names {
                running.push(tasks.spawn("member", member.clone().works(name, history.clone(), tasks.stop_token())));
            }
            members.push(member);
        }
        Self { history, tasks, running, members, _directory: directory }
    }

    pub(crate) fn so_far(&self) -> Summary {
        self.history.check().unwrap()
    }

    /// From now on this one keeps the locks that it gets, unless they are lost; waits until it has one.
    pub(crate) async fn kept_by(&self, number: usize) {
        self.kept_by_one_of(&self.members[number..=number]).await;
    }

    /// From now on whoever gets a lock keeps it, unless it is lost; waits until somebody has one.
    pub(crate) async fn kept(&self) {
        self.kept_by_one_of(&self.members).await;
    }

    async fn kept_by_one_of(&self, members: &[Arc<Member>]) {
        for member in members {
            member.kept.store(false, Ordering::SeqCst);
            member.keeps.store(true, Ordering::SeqCst);
        }
        until("somebody keeps it", || members.iter().any(|member| member.kept.load(Ordering::SeqCst))).await;
    }

    /// Nobody keeps anything any more; waits until there is progress for each of them.
    pub(crate) async fn goes_on(&self) {
        for member in &self.members {
            member.keeps.store(false, Ordering::SeqCst);
        }
        let turns = || self.members.iter().map(|member| member.turns.load(Ordering::SeqCst));
        let before: Vec<_> = turns().collect();
        until("each of them goes on", || turns().zip(&before).all(|(now, before)| now >= before + PROGRESS)).await;
    }

    /// None of them broke down, never two had a lock at once, and tokens rose.
    pub(crate) async fn end(self) -> Summary {
        self.tasks.shutdown().await;
        for member in self.running {
            member.await.unwrap();
        }
        for member in &self.members {
            member.ours.close().await;
        }
        self.history.check().unwrap()
    }
}

impl Member {
    /// Takes a lock again and again.
    async fn works(self: Arc<Self>, name: &'static str, history: Arc<History>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let Ok(held) = self.ours.acquire(request(name).wait(within(PATIENCE))).await else { continue };
            history.acquired(&self.name, name, &held);
            self.turns.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(TURN).await;
            while self.keeps.load(Ordering::SeqCst) && !held.lost().is_cancelled() {
                self.kept.store(true, Ordering::SeqCst);
                tokio::time::sleep(TURN).await;
            }
            history.releasing(&self.name, name);
            // A lock that was lost meanwhile says so.
            drop(held.release().await);
            tokio::time::sleep(TURN).await;
        }
    }
}
