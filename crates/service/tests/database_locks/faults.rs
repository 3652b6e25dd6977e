//! Servers, links and processes that fail.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoria_coordination::{Coordinator, Error, Health, LockSet};
use scoria_db::Database;
use scoria_model::LockTable;
use scoria_runtime::Tasks;
use scoria_testkit::faults::Link;
use scoria_testkit::{MariaDb, Postgres};

use crate::locks::{SOON, once, request, soon, until, within};
use crate::peers::process;
use crate::place::{Place, sync, table};
use crate::{coordinator, lock_options};

/// Leases that are over soon.
const SHORT: &str = "database://?lock_timeout=3";
/// Leases that outlive a server's restart.
const LONG: &str = "database://?lock_timeout=60";
/// How often a request whose answer is to be lost may not even have been sent.
const TRIES: u32 = 5;

async fn links_fail(place: Place) {
    let (proxy, url) = place.proxied();
    let (behind, direct) = (coordinator(&url, "one", SHORT).await, coordinator(&place.url, "two", SHORT).await);

    // Silent: lost before the lease is over and somebody else can have it.
    let held = soon(&behind, "a").await;
    proxy.set(Link::Stalled);
    let theirs = soon(&direct, "a").await;
    assert!(held.lost().is_cancelled() && held.is_lost(), "two holders");
    assert!(theirs.token() > held.token());
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    theirs.release().await.unwrap();
    proxy.set(Link::Up);
    soon(&behind, "a").await.release().await.unwrap();

    // Cut for a moment: made anew, nothing is lost.
    let held = soon(&behind, "a").await;
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(4)).await;
    held.verify().await.expect("extended over a new connection");
    assert!(matches!(once(&direct, "a").await, Err(Error::Busy { .. })));
    held.release().await.unwrap();
}

/// Leases are long here: what is free before they end has been given back.
async fn answers_are_lost(place: Place) {
    let direct = coordinator(&place.url, "two", LONG).await;
    // Before the first use of a statement a connection asks for something else, as it does when it may be dead; without an answer to
    // that, what is wanted is not even sent. So connections are new, and all of them have done everything before.
    let fresh = async || {
        let (proxy, url) = place.proxied();
        let behind = coordinator(&url, "one", LONG).await;
        for _ in 0..5 {
            let locks = futures_util::future::join_all(["a", "b", "c", "d"].map(|name| soon(&behind, name))).await;
            let released = futures_util::future::join_all(locks.into_iter().map(LockSet::release)).await;
            assert!(released.iter().all(Result::is_ok));
        }
        (proxy, behind)
    };

    // Whoever goes on waiting finds that it has the lock.
    let mut tries = 0;
    let (proxy, waiting) = loop {
        tries += 1;
        let (proxy, behind) = fresh().await;
        proxy.set(Link::AnswersLost);
        let waiting = Tasks::new().spawn("waiter", async move { soon(&behind, "a").await });
        if is_had_by_one(&direct).await {
            break (proxy, waiting);
        }
        waiting.abort();
        assert!(tries < TRIES, "the request is carried out");
    };
    proxy.set(Link::Up);
    proxy.cut();
    let held = waiting.await.unwrap();
    assert!(matches!(once(&direct, "a").await, Err(Error::Busy { .. })), "two holders");
    held.release().await.unwrap();

    // From whoever gives up it is taken back.
    let mut tries = 0;
    let proxy = loop {
        tries += 1;
        let (proxy, behind) = fresh().await;
        proxy.set(Link::AnswersLost);
        let attempt = behind.acquire(request("a").wait(within(Duration::from_millis(1500))));
        let (attempted, had) = tokio::join!(attempt, is_had_by_one(&direct));
        assert!(matches!(attempted, Err(Error::Unavailable(_))), "{attempted:?}");
        if had {
            break proxy;
        }
        assert!(tries < TRIES, "the request is carried out");
    };
    proxy.set(Link::Up);
    proxy.cut();
    soon(&direct, "a").await.release().await.unwrap();

    // A release is asked for again, whether it was carried out or not, and touches nobody else's lock.
    let (proxy, behind) = fresh().await;
    let held = soon(&behind, "a").await;
    proxy.set(Link::AnswersLost);
    let fault = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.set(Link::Up);
        proxy.cut();
    };
    let (_unknown, ()) = tokio::join!(held.release(), fault);
    let next = soon(&direct, "a").await;
    next.verify().await.unwrap();
    next.release().await.unwrap();
}

/// Whether the database gives it the lock, whether it knows or not. It does not when a connection had something else to ask all the
/// same: then nothing was carried out, and it takes another try.
async fn is_had_by_one(other: &Coordinator) -> bool {
    let taken = async {
        while !other.holders().await.unwrap().iter().any(|holder| holder.instance == "one") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_links_fail() {
    links_fail(Place::mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_links_fail() {
    links_fail(Place::postgresql().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_s_answers_are_lost() {
    answers_are_lost(Place::mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_s_answers_are_lost() {
    answers_are_lost(Place::postgresql().await).await;
}

/// A stopped process' locks are somebody else's when its leases are over, and it knows that before anything else when it
/// goes on. A killed process' hundred locks are free after the same time, and their rows are swept.
async fn holders_stop_and_die(place: Place) {
    let ours = coordinator(&place.url, "one", SHORT).await;
    let mut stopped = process(&place.url, SHORT, &["hold", "a"]);
    stopped.says(&["held"]);
    let holder = ours.holders().await.unwrap().remove(0);
    assert_eq!((holder.name.as_str(), holder.instance.as_str(), holder.held), ("a", "child", true));
    stopped.signal(Signal::SIGSTOP);
    let held = soon(&ours, "a").await;
    assert!(held.token() > holder.token);
    stopped.resume();
    stopped.signal(Signal::SIGCONT);
    assert_eq!(stopped.says(&["lost", "still held"]), "lost");
    assert_eq!(stopped.says(&["was lost", "released"]), "was lost");
    held.verify().await.unwrap();
    held.release().await.unwrap();

    let mut hundred = process(&place.url, SHORT, &["hundred", "n"]);
    hundred.says(&["held"]);
    assert_eq!(ours.holders().await.unwrap().len(), 100);
    drop(hundred);
    let since = Instant::now();
    for n in 0..100 {
        soon(&ours, &format!("n-{n}")).await.release().await.unwrap();
    }
    assert!(since.elapsed() < SOON);
    assert_eq!(ours.holders().await.unwrap(), []);
    place.sql("UPDATE scoria_locks SET expires_at = expires_at - 1000000 * 901");
    table(&place.url).sweep().await.unwrap();
    assert_eq!(place.rows(), 0);
}

/// The executor on which the lock was taken has one thread, and that one gets stuck for longer than a lease.
async fn beats_go_on(place: Place) {
    let (ours, other) = (coordinator(&place.url, "one", SHORT).await, coordinator(&place.url, "two", SHORT).await);
    let held = soon(&ours, "a").await;
    std::thread::sleep(Duration::from_secs(6));
    assert!(!held.is_lost());
    assert!(matches!(once(&other, "a").await, Err(Error::Busy { .. })));
    held.verify().await.unwrap();
    held.release().await.unwrap();
}

#[tokio::test]
async fn sqlite_beats_go_on_while_callers_are_stuck() {
    beats_go_on(Place::sqlite().await).await;
}

#[tokio::test]
async fn mariadb_beats_go_on_while_callers_are_stuck() {
    beats_go_on(Place::mariadb().await).await;
}

#[tokio::test]
async fn postgresql_beats_go_on_while_callers_are_stuck() {
    beats_go_on(Place::postgresql().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_holders_stop_and_die() {
    holders_stop_and_die(Place::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_holders_stop_and_die() {
    holders_stop_and_die(Place::mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_holders_stop_and_die() {
    holders_stop_and_die(Place::postgresql().await).await;
}

/// A restart that is shorter than the leases costs no lock; start without the server; waiters wait through all of it.
macro_rules! restart {
    ($name:ident, $server:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let mut server = $server::start().await.unwrap();
            sync(&server.url()).await.close().await;
            let (one, two) =
                (coordinator(&server.url(), "one", LONG).await, coordinator(&server.url(), "two", LONG).await);
            let held = soon(&one, "a").await;
            let waiter = two.clone();
            let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.kill().unwrap();
            until("down", || matches!(one.health(), Health::Down(_))).await;
            assert!(matches!(once(&one, "b").await, Err(Error::Unavailable(_))));
            let late = Coordinator::open(LONG, &lock_options(&server.url(), "late")).await.unwrap();
            assert!(matches!(once(&late, "b").await, Err(Error::Unavailable(_))));
            server.restart().await.unwrap();
            until("up", || one.health() == Health::Up && late.health() == Health::Up).await;
            held.verify().await.expect("the row is still there");
            assert!(matches!(once(&late, "a").await, Err(Error::Busy { .. })), "two holders");
            assert!(!waiting.is_finished());
            held.release().await.unwrap();
            waiting.await.unwrap().release().await.unwrap();
            soon(&late, "a").await.release().await.unwrap();
        }
    };
}

restart!(mariadb_restarts, MariaDb);
restart!(postgresql_restarts, Postgres);

/// Nothing is made in a database that has no such table, whosever it is.
#[tokio::test]
async fn without_the_table_it_does_not_start_and_says_what_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}/cinder.sqlite", directory.path().display());
    drop(Database::connect(&scoria_db::Options::new(&url)).await.unwrap());
    let error = Coordinator::open("database://", &lock_options(&url, "one")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Config(_)), "{text}");
    assert!(text.contains("scoria db sync") && text.contains("scoria db sync --locks"), "{text}");
}

#[tokio::test]
async fn options_are_checked_with_what_is_allowed() {
    let place = Place::sqlite().await;
    for (url, what) in [
        ("database://host/x", "names no host"),
        ("database://?lock_timeout=0.5", "from 1 to 600"),
        ("database://?lock_timeout=601", "from 1 to 600"),
        ("database://?lock_timeout=x", "lock_timeout=x"),
    ] {
        let options = lock_options(&place.url, "one");
        let error = scoria_coordination::providers::open(url, &options).await.unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains(what)), "{url}: {error}");
    }
}
