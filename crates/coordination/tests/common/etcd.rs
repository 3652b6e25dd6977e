//! What is left at an etcd server.

use std::time::{Duration, Instant};

use scoria_testkit::Etcd;

use super::locks::SOON;

/// The keys at etcd, without those of sessions.
pub(crate) async fn keys(etcd: &Etcd) -> Vec<String> {
    let mut keys = etcd.keys().await.unwrap();
    keys.retain(|key| !key.contains("/sessions/"));
    keys
}

/// Waits until nothing is left at etcd but so many sessions, each a lease and a key.
pub(crate) async fn only_sessions_are_left(etcd: &Etcd, sessions: usize) {
    let end = Instant::now() + SOON;
    loop {
        let (locks, all, leases) = (keys(etcd).await, etcd.keys().await.unwrap(), etcd.leases().await.unwrap());
        if (locks.len(), all.len(), leases.len()) == (0, sessions, sessions) {
            return;
        }
        assert!(Instant::now() < end, "left at etcd beside {sessions} sessions: {all:?}, {leases:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
