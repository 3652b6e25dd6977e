//! What waiting costs where nobody is told and everybody has to look.

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use scoria_coordination::{Coordinator, Options};
use scoria_runtime::Tasks;

use crate::lock_options;
use crate::locks::soon;
use crate::place::Place;

/// The database was asked so often, by the tasks of this thread: those of callers and waiters, not those that beat.
fn asked(handle: &PrometheusHandle) -> f64 {
    let metrics = handle.render();
    let count = metrics.lines().find_map(|line| line.strip_prefix("scoria_db_round_trips_total "));
    count.unwrap().parse().unwrap()
}

/// As the documentation has it: so many looks per second for a short while, and so many after that, however many wait here.
async fn five_waiters_look_as_one(place: Place, first: f64, later: f64) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _counted = metrics::set_default_local_recorder(&recorder);
    let instance = async |name| {
        let options = Options { heartbeat: Duration::from_secs(60), ..lock_options(&place.url, name) };
        Coordinator::open("database://", &options).await.unwrap()
    };
    let (one, two) = (instance("one").await, instance("two").await);
    let held = soon(&one, "a").await;
    let (before, began) = (asked(&handle), Instant::now());
    let wait = |_| {
        let waiter = two.clone();
        Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await.release().await.unwrap() })
    };
    let waiting: Vec<_> = (0..5).map(wait).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (looks, seconds) = (asked(&handle) - before, began.elapsed().as_secs_f64());
    // Beside the looks there is a try each second.
    let most = first / 4.0 + (later + 1.0) * seconds + 10.0;
    assert!(looks >= seconds && looks <= most, "{looks} in {seconds} s, at most {most}");
    held.release().await.unwrap();
    for waiter in waiting {
        waiter.await.unwrap();
    }
}

#[tokio::test]
async fn mariadb_s_waiters_do_not_hammer() {
    five_waiters_look_as_one(Place::mariadb().await, 200.0, 20.0).await;
}

#[tokio::test]
async fn sqlite_s_waiters_do_not_hammer() {
    five_waiters_look_as_one(Place::sqlite().await, 500.0, 50.0).await;
}
