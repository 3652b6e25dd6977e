//! etcd of three members, of which some fail.

mod common {
    pub(crate) mod contended;
    pub(crate) mod crowd;
    pub(crate) mod etcd;
    pub(crate) mod history;
    pub(crate) mod locks;
}

use std::time::{Duration, Instant};

use common::contended::Contended;
use common::crowd::Crowd;
use common::etcd::{keys, only_sessions_are_left};
use common::locks::{coordinator, is, lost, once, request, soon, within};
use scoria_coordination::Error;
use scoria_runtime::Tasks;
use scoria_testkit::Etcd;
use scoria_testkit::faults::{Link, Proxy};
use serde_json::json;

/// The URL with a member first, for whose failure we are to be prepared.
fn url_from(etcd: &Etcd, first: usize, seconds: u32) -> String {
    let hosts: Vec<_> = (0..3).map(|n| format!("127.0.0.1:{}", etcd.port_of((first + n) % 3))).collect();
    format!("etcd://{}?timeout={seconds}", hosts.join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_costs_no_lock() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let leader = etcd.leader().await.unwrap();
    // One is connected to the leader, the other to a member that follows.
    let (ours, other) =
        (coordinator(&url_from(&etcd, leader, 20)).await, coordinator(&url_from(&etcd, leader + 1, 20)).await);
    let (held, kept) = (soon(&ours, "a").await, soon(&other, "b").await);
    let waiter = other.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.kill(leader);
    is(&other, true).await;
    // It takes a new leader to know anything.
    let verified = async {
        while held.verify().await.is_err() || kept.verify().await.is_err() {
            assert!(!held.is_lost() && !kept.is_lost(), "lost without need");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), verified).await.expect("two of three are enough");
    assert!(!waiting.is_finished(), "two holders");
    held.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    kept.release().await.unwrap();
    etcd.restart(leader).await.unwrap();
    only_sessions_are_left(&etcd, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left_for_the_next() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let leader = etcd.leader().await.unwrap();
    for first in [(leader + 1) % 3, leader] {
        let (ours, other) =
            (coordinator(&url_from(&etcd, first, 12)).await, coordinator(&url_from(&etcd, (first + 1) % 3, 12)).await);
        let held = soon(&other, "a").await;
        let waiter = ours.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        let kept = soon(&ours, "b").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        etcd.pause(first).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.release().await.unwrap();
        let next = waiting.await.unwrap();
        kept.verify().await.expect("the session is kept alive by way of another member");
        assert!(!next.is_lost() && !kept.is_lost());
        next.release().await.unwrap();
        kept.release().await.unwrap();
        etcd.resume(first).unwrap();
        etcd.healthy().await.unwrap();
        ours.close().await;
        other.close().await;
    }
    only_sessions_are_left(&etcd, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_every_lock_is_lost_in_time() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let leader = etcd.leader().await.unwrap();
    for ours_at in [leader, (leader + 1) % 3] {
        let ours = coordinator(&url_from(&etcd, ours_at, 4)).await;
        let held = soon(&ours, "a").await;
        let failed: Vec<_> = (0..3).filter(|member| *member != ours_at).collect();
        let since = Instant::now();
        for member in &failed {
            etcd.pause(*member).unwrap();
        }
        lost(&held).await;
        assert!(
            since.elapsed() < Duration::from_secs(4),
            "told after etcd might have given it away: {:?}",
            since.elapsed()
        );
        assert!(matches!(once(&ours, "b").await, Err(Error::Unavailable(_))));
        for member in &failed {
            etcd.resume(*member).unwrap();
        }
        etcd.healthy().await.unwrap();
        is(&ours, true).await;
        drop(held);
        soon(&ours, "a").await.release().await.unwrap();
        ours.close().await;
    }
    only_sessions_are_left(&etcd, 0).await;
}

/// A leader that the others no longer hear goes on answering its clients, while they choose another one and let leases end whose
/// beats they do not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_at_a_leader_that_is_cut_off_knows_before_another_one_holds() {
    let etcd = Etcd::cluster_with_links(3).await.unwrap();
    for link in [Link::Stalled, Link::Cut] {
        let leader = etcd.leader().await.unwrap();
        let ports = [leader, (leader + 1) % 3].map(|member| etcd.port_of(member));
        let mut formats = Vec::new();
        for urls in [
            ports.map(|port| format!("etcd://127.0.0.1:{port}?timeout=3")),
            ports.map(|port| format!("etcd3+http://127.0.0.1:{port}?lock_timeout=3")),
        ] {
            let (ours, other) = (coordinator(&urls[0]).await, coordinator(&urls[1]).await);
            let lock = Contended::start(&ours, &other, "a").await;
            formats.push((ours, other, lock));
        }
        let shown_by_it = async || {
            let all = json!({ "key": "AA==", "range_end": "AA==", "serializable": true });
            etcd.ask(leader, "kv/range", &all).await.unwrap()["count"].clone()
        };
        let before = shown_by_it().await;
        etcd.one_to_others(leader, link).unwrap();
        for (_, _, lock) in &mut formats {
            let next = (&mut lock.waiting).await.unwrap();
            assert!(next.token() > lock.held.token());
            next.release().await.unwrap();
        }
        assert_eq!(shown_by_it().await, before, "{link:?}: it answers as if nothing had happened");
        etcd.one_to_others(leader, Link::Up).unwrap();
        etcd.agreed().await.unwrap();
        for (ours, other, lock) in formats {
            is(&ours, true).await;
            assert!(matches!(lock.held.release().await, Err(Error::Lost { .. })));
            soon(&ours, "a").await.release().await.unwrap();
            ours.close().await;
            other.close().await;
        }
    }
    only_sessions_are_left(&etcd, 0).await;
}

/// A request that lay in a connection that hung, and is carried out after everybody has forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_arrives_late_takes_no_lock() {
    let etcd = Etcd::start().await.unwrap();
    let (first, second) = (Proxy::start(etcd.port()).unwrap(), Proxy::start(etcd.port()).unwrap());
    let ours = coordinator(&format!("etcd://127.0.0.1:{},127.0.0.1:{}?timeout=4", first.port(), second.port())).await;
    for _ in 0..3 {
        soon(&ours, "warm").await.release().await.unwrap();
        first.set(Link::Stalled);
        let given_up = ours.acquire(request("a").wait(within(Duration::from_millis(200))));
        assert!(tokio::time::timeout(Duration::from_millis(100), given_up).await.is_err());
        // By way of the other endpoint: it is nobody's.
        let other = soon(&ours, "a").await;
        other.release().await.unwrap();
        // Now the first request arrives.
        first.set(Link::Up);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(keys(&etcd).await, Vec::<String>::new(), "a late request has made an orphan");
        first.cut();
        second.cut();
        is(&ours, true).await;
        // So that the next round goes by way of the first one again.
        second.set(Link::Cut);
        soon(&ours, "warm").await.release().await.unwrap();
        second.set(Link::Up);
    }
}

/// Instances that take the same lock in turn.
async fn crowd(urls: [String; 3]) -> Crowd {
    Crowd::start(urls.each_ref().map(|url| coordinator(url)), &["a"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_die_one_after_the_other_and_no_lock_is_lost() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let crowd = crowd([0, 1, 2].map(|first| url_from(&etcd, first, 20))).await;
    for member in 0..3 {
        etcd.kill(member);
        // So that the two others have to choose a leader.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        etcd.restart(member).await.unwrap();
        etcd.healthy().await.unwrap();
        crowd.goes_on().await;
    }
    assert_eq!(crowd.end().await.lost, 0, "lost without need");
    only_sessions_are_left(&etcd, 0).await;
}

/// How long a lease lives where everything hangs in turn: no shorter one is to be had of etcd.
const LEASE: Duration = Duration::from_secs(2);

/// Members, the majority and links hang for longer than a lease lives.
async fn hang_in_turn(etcd: &mut Etcd, links: [Proxy; 2], crowd: Crowd) {
    let longer_than_a_lease = LEASE + Duration::from_secs(1);
    for hang in [vec![0], vec![1, 2], vec![0, 1, 2]] {
        crowd.kept().await;
        for member in &hang {
            etcd.pause(*member).unwrap();
        }
        tokio::time::sleep(longer_than_a_lease).await;
        for member in &hang {
            etcd.resume(*member).unwrap();
        }
        etcd.healthy().await.unwrap();
        crowd.goes_on().await;
    }
    for (link, fault) in links.iter().zip([Link::Stalled, Link::AnswersLost]) {
        crowd.kept().await;
        link.set(fault);
        tokio::time::sleep(longer_than_a_lease).await;
        link.set(Link::Up);
        link.cut();
        crowd.goes_on().await;
    }
    let summary = crowd.end().await;
    assert!(summary.lost > 0, "{summary:?}: nothing was tried");
    only_sessions_are_left(etcd, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_hangs_there_are_never_two_holders() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let links = [0, 1].map(|member| Proxy::start(etcd.port_of(member)).unwrap());
    let behind = |link: &Proxy| format!("etcd://127.0.0.1:{}?timeout={}", link.port(), LEASE.as_secs());
    let urls = [behind(&links[0]), behind(&links[1]), url_from(&etcd, 2, 2)];
    let crowd = crowd(urls).await;
    hang_in_turn(&mut etcd, links, crowd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_hangs_there_are_never_two_holders_as_tooz_keeps_them() {
    let mut etcd = Etcd::cluster(3).await.unwrap();
    let links = [0, 1].map(|member| Proxy::start(etcd.port_of(member)).unwrap());
    let ports = [links[0].port(), links[1].port(), etcd.port_of(2)];
    let crowd = crowd(ports.map(|port| format!("etcd3+http://127.0.0.1:{port}?lock_timeout=2"))).await;
    hang_in_turn(&mut etcd, links, crowd).await;
}
