//! What locks in etcd cost: requests, connections.

mod common {
    pub(crate) mod etcd;
    pub(crate) mod locks;
}

use std::collections::BTreeMap;
use std::time::Duration;

use common::etcd::only_sessions_are_left;
use common::locks::{coordinator, is, once, request, soon};
use scoria_coordination::{Coordinator, Options};
use scoria_runtime::Tasks;
use scoria_testkit::Etcd;
use scoria_testkit::faults::Proxy;

/// How many requests etcd has had, of those that locks could cost.
async fn requests(etcd: &Etcd) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for kind in ["Txn", "Range", "LeaseGrant", "Watch", "DeleteRange", "Put"] {
        counts.insert(kind, etcd.requests(kind).await.unwrap());
    }
    counts
}

/// What was sent between two counts.
fn between(before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let sent = after.iter().map(|(kind, count)| (*kind, count - before[kind]));
    sent.filter(|(_, count)| *count > 0).collect()
}

/// An instance that is connected and whose beats do not get in between.
async fn quiet(url: &str) -> Coordinator {
    let options = Options { heartbeat: Duration::from_secs(60), ..Options::default() };
    let coordinator = Coordinator::open(url, &options).await.unwrap();
    is(&coordinator, true).await;
    coordinator
}

fn urls(etcd: &Etcd) -> [String; 2] {
    [format!("{}?timeout=600", etcd.url()), format!("{}?timeout=600", etcd.tooz_url())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_lock_costs_one_request_and_its_release_another() {
    let etcd = Etcd::start_unsynced().await.unwrap();
    let of_both = [BTreeMap::from([("Txn", 50), ("DeleteRange", 50)]), BTreeMap::from([("Txn", 100)])];
    for (url, expected) in urls(&etcd).into_iter().zip(of_both) {
        let ours = quiet(&url).await;
        let before = requests(&etcd).await;
        for n in 0..50 {
            once(&ours, &format!("volume-{n}")).await.unwrap().release().await.unwrap();
        }
        // No lease, no watch, no further request per lock.
        assert_eq!(between(&before, &requests(&etcd).await), expected);
        ours.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_handed_over_by_the_release_and_in_tooz_format_by_one_more_request() {
    let etcd = Etcd::start_unsynced().await.unwrap();
    for (url, requests_sent) in urls(&etcd).into_iter().zip([1, 2]) {
        let (ours, other) = (quiet(&url).await, quiet(&url).await);
        let held = soon(&ours, "a").await;
        let waiter = other.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = requests(&etcd).await;
        held.release().await.unwrap();
        let next = waiting.await.unwrap();
        let sent = between(&before, &requests(&etcd).await);
        assert_eq!(sent.values().sum::<u64>(), requests_sent, "{sent:?}");
        next.release().await.unwrap();
        ours.close().await;
        other.close().await;
    }
    only_sessions_are_left(&etcd, 0).await;
}

/// Who waits for many locks has one stream for all of them; a process has one connection for its requests and one for its beats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_locks_take_two_connections() {
    let etcd = Etcd::start_unsynced().await.unwrap();
    let proxy = Proxy::start(etcd.port()).unwrap();
    let ours = coordinator(&format!("etcd://127.0.0.1:{}?timeout=60", proxy.port())).await;
    let other = coordinator(&format!("{}?timeout=60", etcd.url())).await;
    let tasks = Tasks::new();
    let all = |coordinator: Coordinator| {
        let take = move |n: u32| {
            let coordinator = coordinator.clone();
            async move { coordinator.acquire(request(&format!("volume-{n}"))).await.unwrap() }
        };
        (0..1000).map(|n| tasks.spawn("take", take(n))).collect::<Vec<_>>()
    };
    let mut held = Vec::new();
    for taking in all(other.clone()) {
        held.push(taking.await.unwrap());
    }
    let waiting = all(ours.clone());
    let listed = async {
        while ours.holders().await.unwrap().len() < 2000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), listed).await.expect("all wait");
    assert_eq!(proxy.connections(), 2);
    let releasing: Vec<_> = held.into_iter().map(|held| tasks.spawn("release", held.release())).collect();
    for released in releasing {
        released.await.unwrap().unwrap();
    }
    for taken in waiting {
        taken.await.unwrap().release().await.unwrap();
    }
    ours.close().await;
    other.close().await;
    only_sessions_are_left(&etcd, 0).await;
}
