//! etcd that dies, hangs, is cut off, forgets and is tampered with; holders that are killed and stopped.

mod common {
    pub(crate) mod act;
    pub(crate) mod contended;
    pub(crate) mod etcd;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::time::{Duration, Instant};

use common::act::act;
use common::contended::Contended;
use common::etcd::{keys, only_sessions_are_left};
use common::locks::{SOON, busy, coordinator, is, lost, once, request, soon, unconnected, until, within};
use common::peer::Peer;
use nix::sys::signal::Signal;
use scoria_coordination::{Coordinator, Error, Health, Options};
use scoria_runtime::Tasks;
use scoria_testkit::Etcd;
use scoria_testkit::faults::{Link, Proxy};

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

/// How the locks are kept.
#[derive(Clone, Copy)]
enum Format {
    Own,
    Tooz,
}

impl Format {
    fn url(self, port: u16, seconds: u32) -> String {
        match self {
            Self::Own => format!("etcd://127.0.0.1:{port}?timeout={seconds}"),
            Self::Tooz => format!("etcd3+http://127.0.0.1:{port}?lock_timeout={seconds}"),
        }
    }
}

/// Makes a test for each format of each case.
macro_rules! in_both_formats {
    ($($case:ident)*) => {
        mod own {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::Format::Own).await;
                }
            )*
        }

        mod as_tooz {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::Format::Tooz).await;
                }
            )*
        }
    };
}

in_both_formats!(
    it_starts_without_the_server_and_goes_to_work_when_that_comes
    a_connection_whose_answers_are_lost_leaves_no_lease
    a_quick_restart_of_the_server_loses_nothing
    a_server_that_is_gone_for_long_loses_every_lock_in_time
    a_server_that_hangs_loses_every_lock_in_time
    whoever_is_cut_off_knows_before_another_one_holds
    the_token_is_the_revision_that_made_the_key
    an_acquisition_without_an_answer_is_found_or_undone
    a_release_without_an_answer_is_done_once
    a_holder_that_was_stopped_knows_when_it_goes_on
    a_lease_that_is_revoked_loses_everything_at_once
    a_lock_that_is_broken_is_told_lost_at_once
    waiters_are_woken_after_a_break_and_a_compaction
    killed_holders_leave_nothing
    a_hundred_killed_processes_leave_nothing
    nobody_leaves_a_lease_behind
);

async fn it_starts_without_the_server_and_goes_to_work_when_that_comes(format: Format) {
    let mut etcd = Etcd::start().await.unwrap();
    etcd.kill(0);
    let ours = unconnected(&format.url(etcd.port(), 3)).await;
    assert!(matches!(ours.health(), Health::Down(_)));
    assert!(matches!(once(&ours, "a").await, Err(Error::Unavailable(_))));
    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    etcd.restart(0).await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    assert_eq!(ours.health(), Health::Up);
    ours.close().await;
    only_sessions_are_left(&etcd, 0).await;
}

async fn a_connection_whose_answers_are_lost_leaves_no_lease(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(etcd.port()).unwrap();
    proxy.set(Link::AnswersLost);
    let ours = unconnected(&format.url(proxy.port(), 8)).await;
    let granted = async {
        while etcd.leases().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, granted).await.expect("the grant is done, and nobody tells us");
    assert!(matches!(ours.health(), Health::Down(_)));
    proxy.cut();
    proxy.set(Link::Up);
    soon(&ours, "a").await.release().await.unwrap();
    only_sessions_are_left(&etcd, 1).await;
}

async fn a_quick_restart_of_the_server_loses_nothing(format: Format) {
    let mut etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 60);
    let (ours, other) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&ours, "a").await;
    let waiter = other.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.kill(0);
    is(&ours, false).await;
    etcd.restart(0).await.unwrap();
    is(&ours, true).await;
    assert!(!held.is_lost());
    held.verify().await.unwrap();
    assert!(!waiting.is_finished(), "two holders");
    held.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    only_sessions_are_left(&etcd, 2).await;
}

async fn a_server_that_is_gone_for_long_loses_every_lock_in_time(format: Format) {
    let mut etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 3);
    let ours = coordinator(&url).await;
    let held = soon(&ours, "a").await;
    let gone = Instant::now();
    etcd.kill(0);
    lost(&held).await;
    assert!(gone.elapsed() < Duration::from_secs(3), "told after etcd might have given it away: {:?}", gone.elapsed());
    assert!(matches!(once(&ours, "b").await, Err(Error::Unavailable(_))));
    etcd.restart(0).await.unwrap();
    soon(&ours, "b").await.release().await.unwrap();
    assert!(held.is_lost(), "what is lost stays lost");
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    soon(&ours, "a").await.release().await.unwrap();
    only_sessions_are_left(&etcd, 1).await;
}

async fn a_server_that_hangs_loses_every_lock_in_time(format: Format) {
    let mut etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 3);
    let (ours, other) = (coordinator(&url).await, coordinator(&url).await);
    let lock = Contended::start(&ours, &other, "a").await;
    let (hangs, lease) = (Instant::now(), Duration::from_secs(3));
    etcd.pause(0).unwrap();
    lock.is_lost_in_time(hangs, lease).await;
    is(&ours, false).await;
    // The lease has run out when it goes on.
    lock.is_given_to_nobody_until(hangs + lease).await;
    etcd.resume(0).unwrap();
    lock.goes_to_the_waiter().await.release().await.unwrap();
    only_sessions_are_left(&etcd, 2).await;
}

async fn whoever_is_cut_off_knows_before_another_one_holds(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    for link in [Link::Stalled, Link::Cut, Link::AnswersLost] {
        let proxy = Proxy::start(etcd.port()).unwrap();
        let (ours, other) =
            (coordinator(&format.url(proxy.port(), 2)).await, coordinator(&format.url(etcd.port(), 2)).await);
        let Contended { held, waiting } = Contended::start(&ours, &other, "a").await;
        proxy.set(link);
        lost(&held).await;
        if link == Link::AnswersLost {
            // Its beats arrive: etcd keeps its lease for as long as they do, and it ends that as soon as it can.
            proxy.set(Link::Up);
        }
        waiting.await.unwrap().release().await.unwrap();
        other.close().await;
        proxy.set(Link::Up);
        is(&ours, true).await;
        assert!(held.is_lost(), "what is lost stays lost");
        drop(held);
        soon(&ours, "a").await.release().await.unwrap();
        ours.close().await;
    }
    only_sessions_are_left(&etcd, 0).await;
}

/// The revision that made the key of the only lock that is held.
async fn made_at(etcd: &Etcd) -> Option<u64> {
    let mut keys = keys(etcd).await;
    keys.retain(|key| key.contains("/locks"));
    let [key] = &keys[..] else { panic!("{keys:?}") };
    etcd.made_at(key).await.ok()
}

async fn the_token_is_the_revision_that_made_the_key(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 20);
    let (ours, other) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&ours, "a").await;
    assert_eq!(held.token(), made_at(&etcd).await);
    let waiting = Tasks::new().spawn("waiter", async move { soon(&other, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.release().await.unwrap();
    let held = waiting.await.unwrap();
    assert_eq!(held.token(), made_at(&etcd).await, "after waiting");
}

async fn an_acquisition_without_an_answer_is_found_or_undone(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(etcd.port()).unwrap();
    let (ours, other) =
        (coordinator(&format.url(proxy.port(), 20)).await, coordinator(&format.url(etcd.port(), 20)).await);
    for link in [Link::AnswersLost, Link::Stalled] {
        // Whoever may wait has it in the end, once.
        proxy.set(link);
        let waiter = ours.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxy.cut();
        proxy.set(Link::Up);
        let held = waiting.await.unwrap();
        assert_eq!(held.token(), made_at(&etcd).await, "{link:?}");
        busy(&other, "a").await;
        held.release().await.unwrap();
        once(&other, "a").await.expect("free at once").release().await.unwrap();

        // Whoever gives up leaves nothing.
        is(&ours, true).await;
        proxy.set(link);
        let given_up = tokio::time::timeout(Duration::from_millis(300), soon(&ours, "b")).await;
        assert!(given_up.is_err());
        proxy.set(Link::Up);
        soon(&other, "b").await.release().await.unwrap();
        is(&ours, true).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    only_sessions_are_left(&etcd, 2).await;
}

async fn a_release_without_an_answer_is_done_once(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(etcd.port()).unwrap();
    let (ours, other) =
        (coordinator(&format.url(proxy.port(), 20)).await, coordinator(&format.url(etcd.port(), 20)).await);
    let held = soon(&ours, "a").await;
    proxy.set(Link::AnswersLost);
    let releasing = Tasks::new().spawn("release", async move { held.release().await });
    let next = soon(&other, "a").await;
    proxy.cut();
    proxy.set(Link::Up);
    releasing.await.unwrap().expect("it was ours and was given back");
    next.verify().await.expect("a release that is repeated does not take away what is somebody else's");
    next.release().await.unwrap();
    only_sessions_are_left(&etcd, 2).await;
}

async fn a_holder_that_was_stopped_knows_when_it_goes_on(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 2);
    let ours = coordinator(&url).await;
    let mut other = Peer::ours(&url, &["hold", "a"]);
    other.says(&["held"]);
    other.signal(Signal::SIGSTOP);
    let held = soon(&ours, "a").await;
    other.resume();
    other.signal(Signal::SIGCONT);
    assert_eq!(other.says(&["lost", "still held"]), "lost");
    held.verify().await.unwrap();
    held.release().await.unwrap();
    other.succeeds();
    only_sessions_are_left(&etcd, 1).await;
}

async fn a_lease_that_is_revoked_loses_everything_at_once(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let ours = coordinator(&format.url(etcd.port(), 600)).await;
    let (held, further) = (soon(&ours, "a").await, soon(&ours, "b").await);
    let lease = etcd.leases().await.unwrap().pop().unwrap();
    etcd.ask(0, "lease/revoke", &serde_json::json!({ "ID": lease })).await.unwrap();
    lost(&held).await;
    lost(&further).await;
    // Where waiters of one process queue up among themselves, a lost lock keeps its turn until its holder has stopped.
    drop((held, further));
    soon(&ours, "a").await.release().await.unwrap();
    only_sessions_are_left(&etcd, 1).await;
}

/// Not with the next beat, by which somebody else may have it.
async fn a_lock_that_is_broken_is_told_lost_at_once(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 600);
    let options = Options { heartbeat: Duration::from_secs(600), ..Options::default() };
    let (ours, other) = (Coordinator::open(&url, &options).await.unwrap(), coordinator(&url).await);
    let (held, bystander) = (soon(&ours, "a").await, soon(&ours, "b").await);
    assert!(other.break_lock("a").await.unwrap());
    lost(&held).await;
    bystander.verify().await.unwrap();
}

async fn waiters_are_woken_after_a_break_and_a_compaction(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(etcd.port()).unwrap();
    let (ours, other) =
        (coordinator(&format.url(etcd.port(), 60)).await, coordinator(&format.url(proxy.port(), 60)).await);
    let held = soon(&ours, "a").await;
    let waiting = Tasks::new().spawn("waiter", async move { soon(&other, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // While it does not listen the lock becomes free, and what tells so is forgotten.
    proxy.set(Link::Cut);
    for name in ["b", "c", "d"] {
        soon(&ours, name).await.release().await.unwrap();
    }
    held.release().await.unwrap();
    soon(&ours, "e").await.release().await.unwrap();
    etcd.compact().await.unwrap();
    let back = Instant::now();
    proxy.set(Link::Up);
    waiting.await.unwrap().release().await.unwrap();
    assert!(back.elapsed() < Duration::from_secs(15), "it was not woken: {:?}", back.elapsed());
}

async fn killed_holders_leave_nothing(format: Format) {
    let etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 2);
    let ours = coordinator(&url).await;
    let mut many = Peer::ours(&url, &["hold-many", "100"]);
    many.says(&["held"]);
    let mut waiting = Peer::ours(&url, &["hold", "many-0"]);
    waiting.says(&["waiting"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ours.holders().await.unwrap().iter().filter(|holder| holder.held).count(), 100);
    waiting.kill();
    many.kill();
    only_sessions_are_left(&etcd, 1).await;
    once(&ours, "many-0").await.unwrap().release().await.unwrap();
}

/// Each had a session of its own.
async fn a_hundred_killed_processes_leave_nothing(format: Format) {
    let etcd = Etcd::start_unsynced().await.unwrap();
    let url = format.url(etcd.port(), 2);
    for batch in 0..10 {
        let hold = |n| Peer::ours(&url, &["hold", &format!("a-{batch}-{n}")]);
        let mut holders: Vec<_> = (0..10).map(hold).collect();
        for holder in &mut holders {
            holder.says(&["held"]);
        }
        assert!(etcd.leases().await.unwrap().len() >= 10);
        holders.iter_mut().for_each(Peer::kill);
    }
    only_sessions_are_left(&etcd, 0).await;
    once(&coordinator(&url).await, "a-9-9").await.unwrap().release().await.unwrap();
}

/// Cancelled waits, sessions that end, coordinators that are closed: only sessions that live have leases.
async fn nobody_leaves_a_lease_behind(format: Format) {
    let mut etcd = Etcd::start().await.unwrap();
    let url = format.url(etcd.port(), 2);
    let (ours, other) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&ours, "a").await;
    for n in 0..100 {
        let waited = other.acquire(request("a").wait(within(Duration::from_secs(5))));
        assert!(tokio::time::timeout(Duration::from_millis(n % 20), waited).await.is_err());
    }
    busy(&other, "a").await;
    assert_eq!(etcd.leases().await.unwrap().len(), 2);
    held.release().await.unwrap();
    only_sessions_are_left(&etcd, 2).await;
    etcd.kill(0);
    until("the sessions end", || ours.health() != Health::Up).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    etcd.restart(0).await.unwrap();
    is(&ours, true).await;
    is(&other, true).await;
    only_sessions_are_left(&etcd, 2).await;
    ours.close().await;
    only_sessions_are_left(&etcd, 1).await;
    other.close().await;
    only_sessions_are_left(&etcd, 0).await;
}
