//! Instances that take the same locks turn after turn, and write down what they did.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scoria_coordination::Coordinator;
use scoria_runtime::Tasks;

use super::history::{History, Summary};
use super::locks::{request, until, within};

/// How long a lock is held, and how often whoever keeps it looks whether it still may.
const TURN: Duration = Duration::from_millis(5);

/// They work until the end, whatever happens to the lock service.
pub(crate) struct Crowd {
    history: Arc<History>,
    tasks: Tasks,
    members: Vec<Arc<Member>>,
    _directory: tempfile::TempDir,
}

/// One instance.
struct Member {
    ours: Coordinator,
    /// What it gets it keeps, unless that is lost.
    keeps: AtomicBool,
    /// It has a lock that it keeps.
    kept: AtomicBool,
}

impl Crowd {
    /// All of them want all these locks.
    pub(crate) fn start(instances: impl IntoIterator<Item = Coordinator>, names: &[&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (history, tasks) = (Arc::new(History::new(directory.path())), Tasks::new());
        let mut members = Vec::new();
        for (number, ours) in instances.into_iter().enumerate() {
            let member = Arc::new(Member { ours, keeps: AtomicBool::new(false), kept: AtomicBool::new(false) });
            for name in names.iter().copied() {
                let (history, member, stop) = (history.clone(), member.clone(), tasks.stop_token());
                drop(tasks.spawn("crowd", async move {
                    while !stop.is_cancelled() {
                        // While the service fails it cannot be had.
                        let wanted = request(name).wait(within(Duration::from_secs(3)));
                        let Ok(held) = member.ours.acquire(wanted).await else { continue };
                        let instance = format!("i{number}");
                        history.acquired(&instance, name, &held);
                        tokio::time::sleep(TURN).await;
                        while member.keeps.load(Ordering::SeqCst) && !held.lost().is_cancelled() {
                            member.kept.store(true, Ordering::SeqCst);
                            tokio::time::sleep(TURN).await;
                        }
                        history.releasing(&instance, name);
                        // A lock that was lost meanwhile says so.
                        drop(held.release().await);
                    }
                }));
            }
            members.push(member);
        }
        Self { history, tasks, members, _directory: directory }
    }

    pub(crate) fn so_far(&self) -> Summary {
        self.history.check().unwrap()
    }

    /// Waits until this one has a lock that it keeps while something happens.
    pub(crate) async fn kept_by(&self, number: usize) {
        self.kept_by_one_of(&self.members[number..=number]).await;
    }

    /// Waits until one has a lock that it keeps while something happens.
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

    /// Nobody keeps anything any more; waits until there is progress.
    pub(crate) async fn goes_on(&self) {
        for member in &self.members {
            member.keeps.store(false, Ordering::SeqCst);
        }
        let before = self.so_far().acquired;
        until("work goes on", || self.so_far().acquired > before + 20).await;
    }

    pub(crate) async fn end(self) -> Summary {
        self.tasks.shutdown().await;
        for member in &self.members {
            member.ours.close().await;
        }
        self.so_far()
    }
}
