//! The ZooKeeper locks on three servers that fail.

mod common {
    pub(crate) mod crowd;
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod zookeeper;
}

use std::time::{Duration, Instant};

use common::crowd::Crowd;
use common::locks::{soon, within};
use common::zookeeper::{LONG, coordinator, eventually, request};
use scoria_coordination::{Coordinator, Error, Health};
use scoria_runtime::Tasks;
use scoria_testkit::ZooKeeperEnsemble;
use scoria_testkit::faults::Link;

async fn start(timeout: u64) -> (ZooKeeperEnsemble, String) {
    let ensemble = ZooKeeperEnsemble::start().await.unwrap();
    ensemble.leader().await.unwrap();
    let url = format!("{}?timeout={timeout}", ensemble.url());
    (ensemble, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_no_lock_and_no_place_in_the_queue() {
    let (mut ensemble, url) = start(30).await;
    // Some of them are connected to the leader and have to move their session.
    let mut ours = Vec::new();
    for _ in 0..4 {
        ours.push(coordinator(&url).await);
    }
    let first = ours[0].clone();
    let held = soon(&first, "a").await;
    let mut waiting = Vec::new();
    for (place, ours) in ours.iter().cloned().enumerate().skip(1) {
        waiting.push(Tasks::new().spawn("waiter", async move { soon(&ours, "a").await }));
        eventually("in the queue", || async { held_or_wanted(&first).await == place + 1 }).await;
    }
    let leader = ensemble.leader().await.unwrap();
    ensemble.servers[leader].kill();
    ensemble.leader().await.unwrap();
    for ours in &ours {
        eventually("health", || async { ours.health() == Health::Up }).await;
    }
    held.verify().await.unwrap();
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    let mut token = held.token();
    held.release().await.unwrap();
    for waiter in waiting {
        let held = tokio::time::timeout(LONG, waiter).await.unwrap().unwrap();
        assert!(held.token() > token, "in the order of before");
        token = held.token();
        held.release().await.unwrap();
    }
}

async fn held_or_wanted(ours: &Coordinator) -> usize {
    ours.holders().await.map_or(0, |holders| holders.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_locks_are_told_lost_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(6);
    let (mut ensemble, url) = start(TIMEOUT.as_secs()).await;
    for pause in [true, false] {
        let ours = coordinator(&url).await;
        let held = soon(&ours, "a").await;
        let stopped = Instant::now();
        for server in &mut ensemble.servers[..2] {
            if pause { server.pause().unwrap() } else { server.kill() }
        }
        tokio::time::timeout(LONG, held.lost().cancelled()).await.unwrap();
        let told = stopped.elapsed();
        assert!(told < TIMEOUT * 9 / 10, "pause: {pause}: after another one could have got it: {told:?}");
        assert!(held.is_lost());
        let refused = ours.acquire(request().exclusive("b").wait(within(Duration::from_millis(100)))).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        for server in &mut ensemble.servers[..2] {
            if pause { server.resume().unwrap() } else { server.relaunch().unwrap() }
        }
        ensemble.leader().await.unwrap();
        soon(&ours, "a").await.release().await.unwrap();
        ours.close().await;
    }
}

/// A follower that is cut off goes on answering reads for three seconds, while the leader ends its sessions after two: whoever
/// took its reads for a sign of life would hold a lock that somebody else has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_at_a_follower_that_is_cut_off_is_told_lost_in_time() {
    let ensemble = ZooKeeperEnsemble::start_with_links().await.unwrap();
    assert_ne!(ensemble.leader().await.unwrap(), 0);
    let [first, other] = [0, 1].map(|server| format!("{}?timeout=2", ensemble.servers[server].url()));
    let (at_first, at_other) = (coordinator(&first).await, coordinator(&other).await);
    for link in [Link::Stalled, Link::Cut] {
        let held = soon(&at_first, "a").await;
        ensemble.first_to_others(link);
        let taken = soon(&at_other, "a").await;
        // Told, and not only to be found by whoever looks at the clock.
        assert!(held.lost().is_cancelled(), "{link:?}: two holders");
        taken.release().await.unwrap();
        ensemble.first_to_others(Link::Up);
        eventually("health", || async { at_first.health() == Health::Up }).await;
    }
}

/// The leader is paused and killed in turns while several instances take the same locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_two_holders_and_rising_tokens_whatever_the_leaders_do() {
    let (mut ensemble, url) = start(4).await;
    let crowd = Crowd::start([(); 3].map(|()| coordinator(&url)), &["a", "b"]).await;
    for pause in [true, false] {
        crowd.goes_on().await;
        let leader = ensemble.leader().await.unwrap();
        crowd.kept().await;
        if pause {
            ensemble.servers[leader].pause().unwrap();
            // The others leave it after three seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
            ensemble.servers[leader].resume().unwrap();
        } else {
            ensemble.servers[leader].kill();
            tokio::time::sleep(Duration::from_secs(2)).await;
            ensemble.servers[leader].restart().await.unwrap();
        }
    }
    crowd.goes_on().await;
    let summary = crowd.end().await;
    assert!(summary.lost > 0, "{summary:?}: nothing was tried");
}
