//! Links and servers that are silent or away for longer than a lease: who holds a lock is told before another one has it.

use std::time::{Duration, Instant};

use scoria_testkit::faults::Link;

use crate::contended::Contended;
use crate::coordinator;
use crate::crowd::Crowd;
use crate::place::Place;

const LEASE: Duration = Duration::from_secs(5);
const URL: &str = "database://?lock_timeout=5";

async fn silence_is_told_in_time(mut place: Place) {
    let behind: [_; 3] = std::array::from_fn(|_| place.proxied());
    let [one, two, three] = behind.each_ref().map(|(_, url)| url.as_str());
    let all = [("one", one), ("two", two), ("three", three), ("four", &place.url)];
    let crowd = Crowd::start(all.map(|(name, url)| coordinator(url, name, URL)), &["crowded"]).await;
    let direct = coordinator(&place.url, "direct", URL).await;

    // Each of the links fails in a way of its own, for as long as it takes.
    let faults = [("a", Link::Stalled), ("b", Link::Cut), ("c", Link::AnswersLost)];
    let mut locks = Vec::new();
    for ((_, url), (name, _)) in behind.iter().zip(faults) {
        locks.push(Contended::start(&coordinator(url, name, URL).await, &direct, name).await);
    }
    crowd.kept().await;
    let since = Instant::now();
    for ((proxy, _), (_, fault)) in behind.iter().zip(faults) {
        proxy.set(fault);
    }
    futures_util::future::join_all(locks.iter().map(|lock| lock.is_lost_in_time(since, LEASE))).await;
    for lock in locks {
        lock.goes_to_the_waiter().await.release().await.unwrap();
    }
    // And each in another way for a moment.
    for round in 1..3 {
        crowd.kept().await;
        for (number, (proxy, _)) in behind.iter().enumerate() {
            proxy.set(faults[(number + round) % 3].1);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (proxy, _) in &behind {
            proxy.set(Link::Up);
            proxy.cut();
        }
        crowd.goes_on().await;
    }

    let lock = Contended::start(&direct, &coordinator(&place.url, "other", URL).await, "paused").await;
    crowd.kept().await;
    place.pause();
    let since = Instant::now();
    lock.is_lost_in_time(since, LEASE).await;
    lock.is_given_to_nobody_until(since + LEASE).await;
    place.resume();
    lock.goes_to_the_waiter().await.release().await.unwrap();
    crowd.goes_on().await;

    let lock = Contended::start(&direct, &coordinator(&place.url, "other", URL).await, "killed").await;
    crowd.kept().await;
    place.kill();
    let since = Instant::now();
    lock.is_lost_in_time(since, LEASE).await;
    lock.is_given_to_nobody_until(since + LEASE).await;
    place.restart().await;
    lock.goes_to_the_waiter().await.release().await.unwrap();
    crowd.goes_on().await;
    let summary = crowd.end().await;
    // At least where nobody was answered.
    assert!(summary.acquired > 30 && summary.lost >= 2, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_s_silence_is_told_in_time_and_there_are_never_two_holders() {
    silence_is_told_in_time(Place::own_mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_s_silence_is_told_in_time_and_there_are_never_two_holders() {
    silence_is_told_in_time(Place::own_postgresql().await).await;
}

/// Somebody else, a backup for instance, has the file to itself for longer than a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_s_silence_is_told_in_time() {
    let place = Place::sqlite().await;
    let (one, two) = (coordinator(&place.url, "one", URL).await, coordinator(&place.url, "two", URL).await);
    let lock = Contended::start(&one, &two, "a").await;
    let alone = place.taken_by_another_process();
    let since = Instant::now();
    lock.is_lost_in_time(since, LEASE).await;
    lock.is_given_to_nobody_until(since + LEASE).await;
    drop(alone);
    lock.goes_to_the_waiter().await.release().await.unwrap();
}
