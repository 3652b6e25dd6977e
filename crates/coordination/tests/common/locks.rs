//! Our own instances, and how tests ask for locks.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use scoria_coordination::{Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, WaitPolicy, providers};
use scoria_runtime::Deadline;

/// Long enough for anything that is to happen by itself, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// An instance that may not be connected yet.
pub(crate) async fn unconnected(url: &str) -> Coordinator {
    let options = Options { max_reconnect_backoff: Duration::from_millis(500), ..Options::default() };
    Coordinator::new(providers::open(url, &options).await.unwrap())
}

/// An instance that is connected.
pub(crate) async fn coordinator(url: &str) -> Coordinator {
    let coordinator = unconnected(url).await;
    is(&coordinator, true).await;
    coordinator
}

/// Waits until it is connected, or is not.
pub(crate) async fn is(coordinator: &Coordinator, up: bool) {
    until("connected or not", || (coordinator.health() == Health::Up) == up).await;
}

pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    let end = std::time::Instant::now() + SOON;
    while !check() {
        assert!(std::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn request(name: &str) -> LockRequest {
    let owner = Owner { operation: "extend_volume".into(), request_id: Some("req-7".into()), resource: None };
    LockRequest::new(owner).exclusive(name)
}

pub(crate) fn within(time: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(time))
}

pub(crate) async fn once(coordinator: &Coordinator, name: &str) -> Result<LockSet, Error> {
    coordinator.acquire(request(name).wait(WaitPolicy::No)).await
}

pub(crate) async fn soon(coordinator: &Coordinator, name: &str) -> LockSet {
    coordinator.acquire(request(name).wait(within(SOON))).await.unwrap()
}

pub(crate) async fn busy(coordinator: &Coordinator, name: &str) {
    match once(coordinator, name).await {
        Err(Error::Busy { .. }) => {}
        other => panic!("busy was expected: {other:?}"),
    }
}

/// Waits until the loss is told.
pub(crate) async fn lost(held: &LockSet) {
    tokio::time::timeout(SOON, held.lost().cancelled()).await.expect("the loss is told");
    assert!(held.is_lost());
}
