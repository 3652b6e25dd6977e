//! The locks in etcd beside real tooz processes.

mod common {
    pub(crate) mod act;
    pub(crate) mod etcd;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::time::Duration;

use common::act::{act, count};
use common::etcd::{keys, only_sessions_are_left};
use common::locks::{busy, coordinator, once, request, soon, within};
use common::peer::{Peer, python_tries};
use scoria_coordination::Error;
use scoria_runtime::Tasks;
use scoria_testkit::Etcd;

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn server() -> (Etcd, String) {
    let etcd = Etcd::start_unsynced().await.unwrap();
    let url = format!("{}?timeout=4", etcd.tooz_url());
    (etcd, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_holds_and_we_stay_out_until_it_lets_go() {
    let (_etcd, url) = server().await;
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    busy(&ours, "a").await;
    let error = ours.acquire(request("a").wait(within(Duration::from_millis(300)))).await.unwrap_err();
    assert!(matches!(&error, Error::Busy { by, .. } if by.contains("a Python peer")), "{error}");
    let holders = ours.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:#?}");
    assert!(holders[0].held && holders[0].name == "a" && holders[0].token.is_some());

    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    // Longer than its lease unless Python extends that: what we do must not end it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished(), "two holders");
    python.let_go();
    let held = waiting.await.unwrap();
    assert_eq!(python_tries(&url, "a"), "busy");
    held.release().await.unwrap();
    assert_eq!(python_tries(&url, "a"), "got");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_hold_and_python_stays_out_until_we_let_go() {
    let (etcd, url) = server().await;
    let ours = coordinator(&url).await;
    let held = soon(&ours, "a").await;
    let found = etcd.contents().await.unwrap();
    let value = found.iter().find(|(key, _)| key == "/tooz/lockscinder-a").map(|(_, value)| value.len());
    assert_eq!(value, Some(16), "the key has no separator, the value is 16 raw bytes");
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
    drop(python);
    assert_eq!(keys(&etcd).await, Vec::<String>::new());
    // Those that Python leaks go with their time.
    only_sessions_are_left(&etcd, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_count_together_and_never_are_two_inside() {
    let (etcd, url) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let path = file.to_str().unwrap();
    let mut peers = Vec::new();
    for _ in 0..2 {
        // Python has a turn in a second at best.
        peers.push(Peer::python(&url, &["count", "a", path, "5"]));
        peers.push(Peer::ours(&url, &["count", "a", path, "50"]));
    }
    count(coordinator(&url).await, "a".to_owned(), file.clone(), 100).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (2 * 5 + 2 * 4 * 50 + 100).to_string());
    assert_eq!(keys(&etcd).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_of_either_kind_is_followed_after_its_time() {
    let (_etcd, url) = server().await;
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    let mut other = Peer::ours(&url, &["hold", "b"]);
    other.says(&["held"]);
    python.kill();
    other.kill();
    busy(&ours, "a").await;
    busy(&ours, "b").await;
    soon(&ours, "a").await.release().await.unwrap();
    let mut python = Peer::python(&url, &["hold", "b"]);
    python.says(&["held"]);
    python.let_go();
}

/// tooz looks once a second. We hand a lock on in a hundredth of that, and have to leave it alone now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_waiter_comes_in_between_us() {
    let (_etcd, url) = server().await;
    let tasks = Tasks::new();
    let stop = tasks.stop_token();
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let (ours, stop) = (coordinator(&url).await, stop.clone());
        crowd.push(tasks.spawn("crowd", async move {
            while !stop.is_cancelled() {
                soon(&ours, "a").await.release().await.unwrap();
            }
        }));
    }
    let mut python = Peer::python(&url, &["hold", "a"]);
    let (says, said) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        python.says(&["held"]);
        let _ = says.send(());
        python.let_go();
    });
    tokio::time::timeout(Duration::from_secs(120), said).await.expect("Python starves").unwrap();
    thread.join().unwrap();
    stop.cancel();
    for task in crowd {
        task.await.unwrap();
    }
}
