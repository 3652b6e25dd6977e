//! The line of those who wait, on PostgreSQL: whoever gives a lock back hands it on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use scoria_db::DatabaseLocks;
use scoria_model::{LockAnswer, LockLease, LockTable, LockWatch, LockWish};
use tokio::time::{sleep, timeout};

use crate::place::Place;
use crate::{LIFE, table, taken, wish};

const SOON: Duration = Duration::from_secs(20);

/// All of it, one after the other.
pub(crate) async fn suite(place: &Place) {
    the_release_hands_on(place).await;
    they_are_served_as_they_came(place).await;
    what_nobody_heard_is_found_by_the_next_look(place).await;
    whoever_leaves_is_handed_nothing(place).await;
    the_dead_are_passed_over(place).await;
    a_broken_lock_is_handed_on(place).await;
    whoever_could_not_listen_has_to_look(place).await;
    leaving_and_handing_on_at_once_leave_nothing(place).await;
    of_many_waiters_one_has_it(place).await;
}

/// Asks, as somebody who waits; whose the lock is.
async fn waits(table: &DatabaseLocks, name: &str, claim: &str, life: Duration) -> LockLease {
    match table.take(&wish(name, claim), life, true).await.unwrap() {
        LockAnswer::Held(Some(lease)) => lease,
        other => panic!("'{name}' for {claim}: {other:?}"),
    }
}

async fn told(watch: &mut Box<dyn LockWatch>) -> Option<u64> {
    timeout(SOON, watch.freed()).await.expect("told in time").unwrap()
}

async fn holders(table: &DatabaseLocks) -> Vec<String> {
    table.list().await.unwrap().into_iter().map(|row| row.wish.claim).collect()
}

/// How many rows have somebody in line.
async fn lines(place: &Place) -> u64 {
    place.count("scoria_locks", "waiting IS NOT NULL AND waiting <> '{}'").await
}

async fn the_release_hands_on(place: &Place) {
    let (one, two) = (table(&place.url), table(&place.url));
    let first = taken(&*one, "a", "1", LIFE).await;
    let mut watch = two.watch("a", "2").await.unwrap();
    let theirs = LockWish { instance: "two".to_owned(), host: None, ..wish("a", "2") };
    let before = two.round_trips();
    let answer = two.take(&theirs, LIFE * 2, true).await.unwrap();
    assert!(matches!(answer, LockAnswer::Held(Some(lease)) if lease.token == first.token), "{answer:?}");
    assert_eq!(two.round_trips() - before, 1, "a place in the line costs no more than a look");
    let early = timeout(Duration::from_millis(200), watch.freed()).await;
    assert!(early.is_err(), "nothing has happened");

    let before = (one.round_trips(), two.round_trips());
    assert!(one.give_back("a", "1").await.unwrap());
    assert_eq!(one.round_trips() - before.0, 1);
    let rows = one.list().await.unwrap();
    assert_eq!(rows.iter().map(|row| &row.wish).collect::<Vec<_>>(), [&theirs], "its own when the release is answered");
    assert!(rows[0].token > first.token && rows[0].since < SOON);
    assert_eq!(told(&mut watch).await, Some(rows[0].token));
    assert_eq!(two.round_trips(), before.1, "the message says it all");

    let found = two.find("a", "2").await.unwrap().unwrap();
    assert_eq!(found.token, rows[0].token);
    assert!(found.remaining > LIFE && found.remaining <= LIFE * 2, "the waiter's own time to live");
    assert_eq!(two.extend(&[("a", "2")], LIFE).await.unwrap(), [true]);
    let before = two.round_trips();
    assert!(two.give_back("a", "2").await.unwrap());
    assert_eq!(two.round_trips() - before, 1);
    assert_eq!((holders(&one).await, lines(place).await), (Vec::new(), 0));
    two.close().await;
}

/// By when they began to wait, not by when they looked last.
async fn they_are_served_as_they_came(place: &Place) {
    let table = table(&place.url);
    taken(&*table, "a", "1", LIFE).await;
    for claim in ["2", "3", "4", "2", "4", "3"] {
        waits(&table, "a", claim, LIFE).await;
    }
    for pair in ["1", "2", "3", "4"].windows(2) {
        assert!(table.give_back("a", pair[0]).await.unwrap());
        assert_eq!(holders(&table).await, [pair[1]]);
    }
    assert!(table.give_back("a", "4").await.unwrap());
    assert_eq!((holders(&table).await, lines(place).await), (Vec::new(), 0));
}

async fn what_nobody_heard_is_found_by_the_next_look(place: &Place) {
    let table = table(&place.url);
    let first = taken(&*table, "a", "1", LIFE).await;
    waits(&table, "a", "2", LIFE).await;
    assert!(table.give_back("a", "1").await.unwrap());
    assert!(waits(&table, "a", "3", LIFE).await.token > first.token, "nobody comes in between");
    let LockAnswer::Ours(second) = table.take(&wish("a", "2"), LIFE, true).await.unwrap() else {
        panic!("not its own")
    };
    assert!(second.token > first.token);
    assert!(table.give_back("a", "2").await.unwrap() && table.give_back("a", "3").await.unwrap());
    assert_eq!(lines(place).await, 0);
}

async fn whoever_leaves_is_handed_nothing(place: &Place) {
    let table = table(&place.url);
    taken(&*table, "a", "1", LIFE).await;
    for claim in ["2", "3", "4"] {
        waits(&table, "a", claim, LIFE).await;
    }
    assert!(!table.give_back("a", "2").await.unwrap(), "it had nothing");
    assert!(table.give_back("a", "1").await.unwrap());
    assert_eq!(holders(&table).await, ["3"]);
    assert!(table.give_back("a", "3").await.unwrap(), "it was handed to it meanwhile");
    assert_eq!(holders(&table).await, ["4"]);
    assert!(table.give_back("a", "4").await.unwrap());
    assert_eq!((holders(&table).await, lines(place).await), (Vec::new(), 0));
}

/// Also when the holder is dead: whoever looks then has it, and is in line no more.
async fn the_dead_are_passed_over(place: &Place) {
    const SHORT: Duration = Duration::from_secs(1);
    let table = table(&place.url);
    taken(&*table, "a", "1", LIFE).await;
    waits(&table, "a", "dead", SHORT).await;
    waits(&table, "a", "3", LIFE).await;
    sleep(SHORT + Duration::from_millis(100)).await;
    assert!(table.give_back("a", "1").await.unwrap());
    assert_eq!(holders(&table).await, ["3"]);
    assert!(table.give_back("a", "3").await.unwrap());
    assert_eq!((holders(&table).await, lines(place).await), (Vec::new(), 0));

    let dead = taken(&*table, "a", "dead", SHORT).await;
    waits(&table, "a", "2", LIFE).await;
    sleep(SHORT + Duration::from_millis(100)).await;
    let LockAnswer::Ours(next) = table.take(&wish("a", "2"), LIFE, true).await.unwrap() else { panic!("over") };
    assert!(next.token > dead.token);
    assert!(table.give_back("a", "2").await.unwrap());
    assert_eq!(holders(&table).await, Vec::<String>::new(), "not handed to itself");
}

async fn a_broken_lock_is_handed_on(place: &Place) {
    let table = table(&place.url);
    let first = taken(&*table, "a", "1", LIFE).await;
    let mut watch = table.watch("a", "2").await.unwrap();
    waits(&table, "a", "2", LIFE).await;
    assert!(table.break_lock("a").await.unwrap());
    assert!(told(&mut watch).await > Some(first.token));
    assert_eq!(table.extend(&[("a", "1"), ("a", "2")], LIFE).await.unwrap(), [false, true]);
    assert!(!table.give_back("a", "1").await.unwrap() && table.give_back("a", "2").await.unwrap());
    drop(watch);
    table.close().await;
}

async fn whoever_could_not_listen_has_to_look(place: &Place) {
    let table = table(&place.url);
    let mut watch = table.watch("a", "1").await.unwrap();
    let listens = "datname = current_database() AND query LIKE 'LISTEN%'";
    let ended = place.count("pg_stat_activity", &format!("{listens} AND pg_terminate_backend(pid)")).await;
    assert_eq!(ended, 1);
    assert_eq!(told(&mut watch).await, None);
    drop(watch);
    table.close().await;
}

/// The waiter leaves in the moment in which it is handed the lock.
async fn leaving_and_handing_on_at_once_leave_nothing(place: &Place) {
    let (one, two) = (table(&place.url), table(&place.url));
    for round in 0..100 {
        taken(&*one, "a", "1", LIFE).await;
        waits(&two, "a", "2", LIFE).await;
        let late = async {
            sleep(Duration::from_micros(round * 20)).await;
            one.give_back("a", "1").await.unwrap()
        };
        let (freed, _) = tokio::join!(late, two.give_back("a", "2"));
        assert!(freed);
        assert_eq!((holders(&one).await, lines(place).await), (Vec::new(), 0), "round {round}");
    }
}

/// Waiting, being told, leaving, all at once: everybody gets it, one after the other, and tokens rise.
async fn of_many_waiters_one_has_it(place: &Place) {
    let last = Arc::new(tokio::sync::Mutex::new(0));
    let waiters = (0..6).map(|waiter| {
        let (table, last) = (table(&place.url), last.clone());
        async move {
            for round in 0..15 {
                let claim = format!("{waiter}-{round}");
                let mut watch = table.watch("contended", &claim).await.unwrap();
                let mut answer = table.take(&wish("contended", &claim), LIFE, true).await.unwrap();
                if round % 5 == 4 {
                    table.give_back("contended", &claim).await.unwrap();
                    continue;
                }
                let token = loop {
                    if let LockAnswer::Ours(lease) = answer {
                        break lease.token;
                    }
                    if let Ok(Ok(Some(token))) = timeout(Duration::from_secs(1), watch.freed()).await {
                        break token;
                    }
                    answer = table.take(&wish("contended", &claim), LIFE, true).await.unwrap();
                };
                let mut last = last.try_lock().expect("two holders");
                assert!(token > *last, "{token} after {last}");
                *last = token;
                tokio::task::yield_now().await;
                drop(last);
                assert!(table.give_back("contended", &claim).await.unwrap());
            }
            table.close().await;
        }
    });
    timeout(SOON * 3, join_all(waiters)).await.expect("nobody starves");
    assert_eq!(lines(place).await, 0);
}
