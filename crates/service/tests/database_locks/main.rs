//! `database://`: the lock service over the table of locks, which this crate brings together, on SQLite, MariaDB (also as a
//! Galera cluster) and PostgreSQL.

mod conformance;
mod crowd;
mod deleted;
mod faults;
mod galera;
mod galera_faults;
mod hand_over;
#[path = "../../../coordination/tests/common/history.rs"]
mod history;
mod looks;
mod losses;
mod peers;
mod place;

use std::sync::Arc;
use std::time::{Duration, Instant};

use place::table;
use scoria_coordination::{Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, Provider, WaitPolicy};
use scoria_runtime::Deadline;

const SOON: Duration = Duration::from_secs(30);

/// Waits for something that is to happen by itself.
async fn until(what: &str, check: impl Fn() -> bool + Send) {
    let end = Instant::now() + SOON;
    while !check() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lock_options(url: &str, instance: &str) -> Options {
    let heartbeat = Duration::from_millis(100);
    Options { instance: instance.to_owned(), heartbeat, lock_table: Some(table(url)), ..Options::default() }
}

/// The lock service, connected.
async fn provider(url: &str, instance: &str, backend_url: &str) -> Arc<dyn Provider> {
    let options = lock_options(url, instance);
    let provider = scoria_coordination::providers::open(backend_url, &options).await.unwrap();
    until("connected", || provider.health() == Health::Up).await;
    provider
}

async fn coordinator(url: &str, instance: &str, backend_url: &str) -> Coordinator {
    Coordinator::new(provider(url, instance, backend_url).await)
}

fn exclusive(name: &str) -> LockRequest {
    LockRequest::new(Owner { operation: "extend_volume".into(), ..Owner::default() }).exclusive(name)
}

fn until_in(limit: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(limit))
}

async fn once(coordinator: &Coordinator, name: &str) -> Result<LockSet, Error> {
    coordinator.acquire(exclusive(name).wait(WaitPolicy::No)).await
}

async fn within(coordinator: &Coordinator, name: &str, limit: Duration) -> Result<LockSet, Error> {
    coordinator.acquire(exclusive(name).wait(until_in(limit))).await
}

async fn soon(coordinator: &Coordinator, name: &str) -> LockSet {
    within(coordinator, name, SOON).await.expect("the lock, in time")
}
