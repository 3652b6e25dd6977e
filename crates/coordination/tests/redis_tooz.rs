//! The locks in Redis beside real tooz processes.

mod common {
    pub(crate) mod act;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::act::{act, count};
use common::locks::{busy, coordinator, once, soon};
use common::peer::{Peer, python_tries};
use scoria_runtime::Tasks;
use scoria_testkit::Redis;

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn server() -> (Redis, String) {
    let server = Redis::start().await.unwrap();
    let url = format!("{}?lock_timeout=4", server.url());
    (server, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_holds_and_we_stay_out_until_it_lets_go() {
    let (server, url) = server().await;
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    busy(&ours, "a").await;
    let holders = ours.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:#?}");
    assert_eq!((holders[0].name.as_str(), holders[0].instance.as_str()), ("a", "a Python peer"));
    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    // Longer than the record lives unless Python extends it: what we do must not end it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished(), "two holders");
    python.let_go();
    let held = waiting.await.unwrap();
    assert_eq!(python_tries(&url, "a"), "busy");
    let token = server.execute(&["GET", "_tooz_cinder-a_lock"]).unwrap();
    assert!(token.trim().len() == 32 && token.trim().chars().all(|c| c.is_ascii_hexdigit()), "{token}");
    held.release().await.unwrap();
    assert_eq!(python_tries(&url, "a"), "got");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_hold_and_python_stays_out_until_we_let_go() {
    let (_server, url) = server().await;
    let ours = coordinator(&url).await;
    let held = soon(&ours, "a").await;
    assert_eq!(python_tries(&url, "a"), "busy");
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["waiting"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    held.verify().await.unwrap();
    held.release().await.unwrap();
    python.says(&["held"]);
    busy(&ours, "a").await;
    python.let_go();
    once(&ours, "a").await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_count_together_and_never_are_two_inside() {
    let (server, url) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let path = file.to_str().unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::python(&url, &["count", "a", path, "30"]));
        peers.push(Peer::ours(&url, &["count", "a", path, "20"]));
    }
    count(coordinator(&url).await, "a".to_owned(), file.clone(), 40).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (3 * 30 + 3 * 4 * 20 + 40).to_string());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = server.keys().unwrap();
    assert!(left.iter().all(|key| key == "_tooz_scoria_token" || key.starts_with("_tooz_beats")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_of_either_kind_is_followed_after_its_time() {
    let (_server, url) = server().await;
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    let mut other = Peer::ours(&url, &["hold", "b"]);
    other.says(&["held"]);
    python.kill();
    busy(&ours, "a").await;
    other.kill();
    assert_eq!(python_tries(&url, "b"), "busy");
    soon(&ours, "a").await.release().await.unwrap();
    let mut python = Peer::python(&url, &["hold", "b"]);
    python.says(&["held"]);
    python.let_go();
}

/// tooz looks ten times a second. Our own waiters take the lock over in a fraction of a millisecond, and have to leave it alone
/// now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_waiter_is_not_starved_and_no_instance_gets_less_than_half_of_another() {
    let (_server, url) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let tasks = Tasks::new();
    let stop = tasks.stop_token();
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let ours = coordinator(&url).await;
        let turns = Arc::new(AtomicU64::new(0));
        crowd.push(turns.clone());
        for _ in 0..2 {
            let (ours, turns, stop) = (ours.clone(), turns.clone(), stop.clone());
            drop(tasks.spawn("crowd", async move {
                while !stop.is_cancelled() {
                    let held = soon(&ours, "a").await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    held.release().await.unwrap();
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
    }
    let python = std::thread::spawn({
        let path = file.to_str().unwrap().to_owned();
        move || Peer::python(&url, &["count", "a", &path, "5"]).succeeds()
    });
    let finished = async {
        while !python.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), finished).await.expect("Python starves");
    python.join().unwrap();
    tasks.shutdown().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "5");
    let turns: Vec<_> = crowd.iter().map(|turns| turns.load(Ordering::SeqCst)).collect();
    println!("turns of our instances: {turns:?}");
    assert!(turns.iter().min().unwrap() * 2 >= *turns.iter().max().unwrap(), "{turns:?}");
}
