//! An administrator who deletes the rows of locks.

use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, Options};
use scoria_runtime::Tasks;

use crate::lock_options;
use crate::locks::{lost, soon};
use crate::place::Place;

/// As the service has it.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The documentation promises it at the next beat.
async fn the_holder_is_told(place: Place) {
    let instance = async |name| {
        let options = Options { heartbeat: HEARTBEAT, ..lock_options(&place.url, name) };
        Coordinator::open("database://", &options).await.unwrap()
    };
    let (one, two) = (instance("one").await, instance("two").await);
    let held = soon(&one, "a").await;
    let waiting = Tasks::new().spawn("waiter", async move { soon(&two, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "two holders");
    let since = Instant::now();
    place.sql("DELETE FROM scoria_locks");
    lost(&held).await;
    assert!(since.elapsed() < HEARTBEAT + Duration::from_secs(1), "{:?}", since.elapsed());
    let next = waiting.await.unwrap();
    assert!(next.token() > held.token());
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.expect("the first one's release has not touched it");
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_s_holder_is_told_at_the_next_beat() {
    the_holder_is_told(Place::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_s_holder_is_told_at_the_next_beat() {
    the_holder_is_told(Place::mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_s_holder_is_told_at_the_next_beat() {
    the_holder_is_told(Place::postgresql().await).await;
}
