//! What the tests on ZooKeeper share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Health, LockRequest, Options, Owner, Provider, providers};
use scoria_testkit::ZooKeeper;
use zookeeper_client::Client;

/// Long enough for anything on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A provider that is connected.
pub(crate) async fn open(url: &str, options: &Options) -> Arc<dyn Provider> {
    let provider = providers::open(url, options).await.unwrap();
    eventually("health", || async { provider.health() == Health::Up }).await;
    provider
}

/// Waits until it is so.
pub(crate) async fn eventually<F: Future<Output = bool> + Send>(what: &str, mut check: impl FnMut() -> F + Send) {
    let end = Instant::now() + LONG;
    while !check().await {
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A coordinator that is connected.
pub(crate) async fn coordinator(url: &str) -> Coordinator {
    Coordinator::new(open(url, &Options::default()).await)
}

/// A client of its own, that may do anything.
pub(crate) async fn admin(server: &ZooKeeper) -> Client {
    Client::connect(&format!("127.0.0.1:{}", server.port())).await.unwrap()
}

/// The names that have a parent node.
pub(crate) async fn parents(server: &ZooKeeper) -> Vec<String> {
    admin(server).await.list_children("/tooz/locks").await.unwrap()
}

/// A request that names nothing yet.
pub(crate) fn request() -> LockRequest {
    let owner = Owner { operation: "extend_volume".into(), request_id: Some("req-7".into()), resource: None };
    LockRequest::new(owner)
}
