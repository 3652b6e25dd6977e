//! The locks in memcached beside real tooz processes.

mod common {
    pub(crate) mod act;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::time::Duration;

use common::act::{act, count};
use common::locks::{busy, coordinator, once, soon, until};
use common::peer::{Peer, python_tries};
use scoria_runtime::Tasks;
use scoria_testkit::Memcached;

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn server() -> (Memcached, String) {
    let server = Memcached::start().await.unwrap();
    let url = format!("{}?lock_timeout=5", server.url());
    (server, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_holds_and_we_stay_out_until_it_lets_go() {
    let (server, url) = server().await;
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    busy(&ours, "a").await;
    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    // Longer than the record lives unless Python extends it: what we do must not end it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!waiting.is_finished(), "two holders");
    python.let_go();
    let held = waiting.await.unwrap();
    assert_eq!(python_tries(&url, "a"), "busy");
    let record = server.execute("get __TOOZ_LOCK_cinder-a").unwrap();
    assert!(record[0].starts_with("VALUE __TOOZ_LOCK_cinder-a 1 "), "flag 1 is what tooz reads as bytes: {record:?}");
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
    tokio::time::sleep(Duration::from_secs(6)).await;
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
    for _ in 0..2 {
        peers.push(Peer::python(&url, &["count", "a", path, "30"]));
        peers.push(Peer::ours(&url, &["count", "a", path, "20"]));
    }
    count(coordinator(&url).await, "a".to_owned(), file.clone(), 40).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (2 * 30 + 2 * 4 * 20 + 40).to_string());
    let keys = server.keys().unwrap();
    assert!(keys.iter().all(|key| key.starts_with("__SCORIA_WT_")), "no lock is left: {keys:?}");
    until("the word of those who waited is gone", || server.keys().unwrap().is_empty()).await;
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

/// tooz looks once a second. We hand a lock on in a fraction of that, and have to leave it alone now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_waiter_comes_in_between_us() {
    let (_server, url) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let tasks = Tasks::new();
    let stop = tasks.stop_token();
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    let mut crowd = Vec::new();
    for _ in 0..2 {
        let (ours, stop) = (coordinator(&url).await, stop.clone());
        crowd.push(tasks.spawn("crowd", async move {
            while !stop.is_cancelled() {
                soon(&ours, "a").await.release().await.unwrap();
            }
        }));
    }
    python.let_go();
    let mut waiter = Peer::python(&url, &["hold", "a"]);
    let (says, said) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        waiter.says(&["held"]);
        let _ = says.send(());
        waiter.let_go();
    });
    tokio::time::timeout(Duration::from_secs(120), said).await.expect("Python starves").unwrap();
    thread.join().unwrap();
    stop.cancel();
    for task in crowd {
        task.await.unwrap();
    }
}
