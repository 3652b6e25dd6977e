//! Locks in Redis whose master changes: what three sentinels say is followed, and what was held is told lost or still there.

mod common {
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::sync::Arc;
use std::time::Duration;

use common::history::History;
use common::locks::{act, busy, coordinator, is, once, request, soon, within};
use common::peer::{Peer, python_tries};
use scoria_coordination::{Coordinator, LockSet};
use scoria_runtime::Tasks;
use scoria_testkit::{RedisSentinels, wait_until};

const DOWN_AFTER: Duration = Duration::from_millis(1500);
/// A failover takes a few seconds, on a busy machine many.
const FAILOVER: Duration = Duration::from_secs(90);

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn start(password: Option<&str>) -> (RedisSentinels, String) {
    let servers = RedisSentinels::start(2, DOWN_AFTER, password).await.unwrap();
    let url = format!("{}&lock_timeout=20", servers.url());
    (servers, url)
}

async fn another_master(servers: &RedisSentinels) -> usize {
    let another = async || servers.master().is_ok_and(|master| master != 0);
    wait_until("another master", FAILOVER, another).await.unwrap();
    servers.master().unwrap()
}

/// Whether it is still held, which nobody may doubt then.
async fn survived(held: &LockSet, other: &Coordinator, name: &str) -> bool {
    if held.verify().await.is_err() {
        assert!(held.is_lost(), "neither lost nor there");
        return false;
    }
    busy(other, name).await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_followed_by_another_one_for_us_and_for_python() {
    let (mut servers, url) = start(Some("sesame")).await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    assert_eq!(python_tries(&url, "a"), "busy");
    let mut python = Peer::python(&url, &["hold", "b"]);
    python.says(&["held"]);
    servers.servers[0].kill();
    let master = another_master(&servers).await;
    is(&one, true).await;
    is(&two, true).await;
    if survived(&held, &two, "a").await {
        assert_eq!(python_tries(&url, "a"), "busy");
        held.release().await.unwrap();
    }
    let next = soon(&two, "a").await;
    let keys = servers.servers[master].keys().unwrap();
    assert!(keys.contains(&"_tooz_cinder-a_lock".to_owned()), "{keys:?}");
    assert_eq!(python_tries(&url, "a"), "busy");
    next.release().await.unwrap();
    assert_eq!(python_tries(&url, "a"), "got");
    drop(python);
}

/// The old master goes on living as a replica, and its clients have to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_left_and_waiters_go_along() {
    let (servers, url) = start(None).await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    // What is written before a planned failover is replicated.
    servers.fail_over().unwrap();
    let master = another_master(&servers).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    held.verify().await.expect("it was replicated");
    assert!(!waiting.is_finished(), "two holders");
    held.release().await.unwrap();
    let next = waiting.await.unwrap();
    let keys = servers.servers[master].keys().unwrap();
    assert!(keys.contains(&"_tooz_cinder-a_lock".to_owned()), "{keys:?}");
    next.release().await.unwrap();
}

/// The master is stopped, replaced, and goes on when it is none any more. The first sentinel of the URL is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_and_a_dead_sentinel_make_no_two_holders() {
    let (mut servers, url) = start(None).await;
    let directory = tempfile::tempdir().unwrap();
    let history = Arc::new(History::new(directory.path()));
    let url = url.replace("lock_timeout=20", "lock_timeout=4");
    let tasks = Tasks::new();
    for instance in ["one", "two", "three"] {
        let (locks, history, stop) = (coordinator(&url).await, history.clone(), tasks.stop_token());
        drop(tasks.spawn("user", async move {
            while !stop.is_cancelled() {
                let wanted = request("a").wait(within(Duration::from_secs(5)));
                let Ok(held) = locks.acquire(wanted).await else { continue };
                history.acquired(instance, "a", &held);
                tokio::time::sleep(Duration::from_millis(30)).await;
                history.releasing(instance, "a");
                let _lost = held.release().await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.kill_sentinel(0);
    servers.servers[0].pause().unwrap();
    let master = another_master(&servers).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    servers.servers[0].resume().unwrap();
    let before = history.check().unwrap();
    let more = async || history.check().unwrap().acquired > before.acquired + 20;
    wait_until("locks on the new master", FAILOVER, more).await.unwrap();
    tasks.shutdown().await;
    let summary = history.check().unwrap();
    println!("on {} servers: {summary:?}", servers.servers.len());
    let left = servers.servers[master].keys().unwrap();
    assert!(!left.contains(&"_tooz_cinder-a_lock".to_owned()), "{left:?}");
    let newcomer = coordinator(&url).await;
    once(&newcomer, "a").await.unwrap().release().await.unwrap();
}
