//! Locks in Redis whose master changes: what three sentinels say is followed, and what was held is told lost or still there.

mod common {
    pub(crate) mod act;
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::sync::Arc;
use std::time::Duration;

use common::act::act;
use common::history::History;
use common::locks::{busy, coordinator, is, lost, once, request, soon, until, within};
use common::peer::{Peer, python_tries};
use scoria_coordination::{Coordinator, Error, Health, LockSet, Options, providers};
use scoria_runtime::Tasks;
use scoria_testkit::{Redis, RedisSentinels, wait_until};

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

/// Whether it was told lost because the server does not know it, and not because time ran out.
async fn not_known(held: &LockSet) -> bool {
    lost(held).await;
    matches!(held.verify().await, Err(Error::Lost { reason, .. }) if reason == "its record is gone or somebody else's")
}

/// The old master goes on living as a replica, and its clients have to notice. One lock has not come as far as to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_left_and_waiters_go_along() {
    let (servers, url) = start(None).await;
    let url = url.replace("lock_timeout=20", "lock_timeout=60");
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let (held, forgotten) = (soon(&one, "a").await, soon(&one, "forgotten").await);
    for replica in &servers.servers[1..] {
        let keys = ["_tooz_cinder-forgotten_lock", "_tooz_cinder-forgotten_holder", "_tooz_scoria_token"];
        until("it is replicated", || keys.iter().all(|key| replica.keys().unwrap().contains(&(*key).to_owned()))).await;
        replica.execute(&["CONFIG", "SET", "replica-read-only", "no"]).unwrap();
        replica.execute(&[&["DEL"], &keys[..]].concat()).unwrap();
    }
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    // What is written before a planned failover is replicated.
    servers.fail_over().unwrap();
    let master = another_master(&servers).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    held.verify().await.expect("it was replicated");
    assert!(!waiting.is_finished(), "two holders");
    assert!(not_known(&forgotten).await);
    let again = soon(&two, "forgotten").await;
    assert!(again.token() > forgotten.token(), "tokens rise although the counter is gone");
    assert!(matches!(forgotten.release().await, Err(Error::Lost { .. })));
    again.release().await.unwrap();
    held.release().await.unwrap();
    let next = waiting.await.unwrap();
    let keys = servers.servers[master].keys().unwrap();
    assert!(keys.contains(&"_tooz_cinder-a_lock".to_owned()), "{keys:?}");
    next.release().await.unwrap();
}

/// An administrator turns the server into a replica of one that knows nothing. Connections live on, and no beat or look of ours comes
/// in between: only that it refuses to write shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_a_replica_is_left_when_it_refuses_to_write() {
    let at_once = [("repl-diskless-sync-delay", "0")];
    let (server, master) = (Redis::start().await.unwrap(), Redis::start_with(&at_once).await.unwrap());
    let (heartbeat, max_reconnect_backoff) = (Duration::from_secs(600), Duration::from_millis(500));
    let options = Options { heartbeat, max_reconnect_backoff, ..Options::default() };
    let url = format!("{}?lock_timeout=1800", server.url());
    let ours = Coordinator::new(providers::open(&url, &options).await.unwrap());
    is(&ours, true).await;
    let held = soon(&ours, "a").await;
    server.execute(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    until("it has what the master has", || server.keys().unwrap().is_empty()).await;
    assert_eq!(ours.health(), Health::Up);
    match once(&ours, "b").await {
        Err(Error::Unavailable(why)) => assert!(why.to_lowercase().contains("read only"), "{why}"),
        other => panic!("{other:?}"),
    }
    let says = || matches!(ours.health(), Health::Down(why) if why.contains("is a replica, not the master"));
    until("it says why", says).await;
    server.execute(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert!(not_known(&held).await);
    let next = soon(&ours, "a").await;
    assert!(next.token() > held.token(), "tokens rise although the counter is gone");
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.unwrap();
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
