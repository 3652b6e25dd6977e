//! PostgreSQL: whoever gives a lock back hands it on to a waiter of another instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, Options};
use scoria_db::DatabaseLocks;
use scoria_model::LockTable;
use scoria_runtime::Tasks;

use crate::coordinator;
use crate::locks::{SOON, once, request, soon, until, within};
use crate::peers::process;
use crate::place::{Place, table};

/// As the service has it.
const URL: &str = "database://";
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(25);
/// A waiter has its place in the line by then.
const LINED_UP: Duration = Duration::from_millis(300);

/// An instance, and the table that it uses; beats are ten seconds apart (a third of `lock_timeout`), so that none falls among what is
/// counted.
async fn instance(place: &Place, name: &str) -> (Coordinator, Arc<DatabaseLocks>) {
    let table = table(&place.url);
    let (instance, heartbeat) = (name.to_owned(), Duration::from_secs(60));
    let options = Options { instance, heartbeat, lock_table: Some(table.clone()), ..Options::default() };
    (Coordinator::open(URL, &options).await.unwrap(), table)
}

/// Whom the table knows as holder.
async fn holder(place: &Place) -> Option<String> {
    table(&place.url).list().await.unwrap().pop().map(|row| row.wish.instance)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_handed_the_lock_asks_nothing_more() {
    let place = Place::postgresql().await;
    let ((one, _), (two, theirs)) = (instance(&place, "one").await, instance(&place, "two").await);
    // Their connections are made, and it listens.
    soon(&one, "a").await.release().await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let held = soon(&one, "a").await;
        let (waiter, before, began) = (two.clone(), theirs.round_trips(), Instant::now());
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        tokio::time::sleep(LINED_UP).await;
        let token = held.token();
        held.release().await.unwrap();
        assert_eq!(holder(&place).await.as_deref(), Some("two"), "its own when the release is answered");
        let theirs_now = waiting.await.unwrap();
        // It asked, lined up, and kept its place each second.
        let looks = began.elapsed().as_secs();
        let asked = theirs.round_trips() - before;
        assert!(asked <= 2 + looks, "{asked} requests in {looks} s");
        assert!(theirs_now.token() > token && token > last);
        last = theirs_now.token();
        theirs_now.verify().await.unwrap();
        theirs_now.release().await.unwrap();
    }
    assert_eq!(holder(&place).await, None);
}

/// Whether it is told so or not: its place is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_gave_up_is_handed_nothing() {
    let place = Place::postgresql().await;
    let ours = coordinator(&place.url, "one", URL).await;
    let (two, three) = (coordinator(&place.url, "two", URL).await, coordinator(&place.url, "three", URL).await);
    let held = soon(&ours, "a").await;
    let waited = two.acquire(request("a").wait(within(LINED_UP))).await;
    assert!(matches!(waited, Err(Error::Busy { .. })));
    let dropped = tokio::time::timeout(LINED_UP, three.acquire(request("a").wait(within(SOON)))).await;
    assert!(dropped.is_err());
    let line = "SELECT COUNT(*) FROM scoria_locks WHERE waiting <> '{}'";
    until("nobody in line", || place.sql(line).trim() == "0").await;
    held.release().await.unwrap();
    once(&ours, "a").await.expect("free").release().await.unwrap();
}

/// Its place runs out long before a lock would; another waiter is next then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_waiter_is_passed_over() {
    let place = Place::postgresql().await;
    let (ours, other) = (coordinator(&place.url, "one", URL).await, coordinator(&place.url, "two", URL).await);
    let held = soon(&ours, "a").await;
    let dead = process(&place.url, URL, &["hold", "a"]);
    let line = "SELECT COUNT(*) FROM scoria_locks, jsonb_each(waiting)";
    until("in line", || place.sql(line).trim() == "1").await;
    drop(dead);
    let waiting = Tasks::new().spawn("waiter", async move { other.acquire(request("a").wait(within(LONG))).await });
    tokio::time::sleep(Duration::from_secs(4)).await;
    held.release().await.unwrap();
    let since = Instant::now();
    waiting.await.unwrap().expect("the next one in line").release().await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(10), "not only when a lock would have been over");
}

/// The message is lost with the connection that listens: the next look finds the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_nobody_heard_costs_one_look() {
    let place = Place::postgresql().await;
    let (ours, other) = (coordinator(&place.url, "one", URL).await, coordinator(&place.url, "two", URL).await);
    let held = soon(&ours, "a").await;
    let waiting = Tasks::new().spawn("waiter", async move { other.acquire(request("a").wait(within(LONG))).await });
    tokio::time::sleep(LINED_UP).await;
    // Nobody listens from here on for half a second.
    let ended = "SELECT COUNT(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pg_terminate_backend(pid)";
    assert_eq!(place.sql(ended).trim(), "1");
    held.release().await.unwrap();
    assert_eq!(holder(&place).await.as_deref(), Some("two"));
    let since = Instant::now();
    waiting.await.unwrap().expect("found").release().await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(10));
}

/// Four instances with two waiters each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_less_than_half_the_turns_of_another() {
    let place = Place::postgresql().await;
    let mut instances = Vec::new();
    for name in ["one", "two", "three", "four"] {
        instances.push(coordinator(&place.url, name, URL).await);
    }
    let end = Instant::now() + Duration::from_secs(3);
    let tasks = Tasks::new();
    let waiters: Vec<_> = (0..8)
        .map(|number| {
            let instance = instances[number % 4].clone();
            tasks.spawn("waiter", async move {
                let mut turns = 0_u32;
                while Instant::now() < end {
                    let held = soon(&instance, "a").await;
                    turns += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    held.release().await.unwrap();
                }
                turns
            })
        })
        .collect();
    let mut turns = Vec::new();
    for waiter in waiters {
        turns.push(waiter.await.unwrap());
    }
    let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
    assert!(*least > 0 && least * 2 >= *most, "{turns:?}");
}
