//! Locks stay held although the executor on which they were taken is stuck, for longer than they live without a beat.

mod common {
    pub(crate) mod locks;
}

use std::time::Duration;

use common::locks::{busy, coordinator, soon};
use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, Redis, ZooKeeper};

/// Longer than a lock lives without beats. The URLs say how long each in its own way.
const STUCK: Duration = Duration::from_secs(8);

/// Each test has an executor of one thread, which is the one that gets stuck.
async fn outlives_a_stuck_executor(url: &str) {
    let (ours, other) = (coordinator(url).await, coordinator(url).await);
    let held = soon(&ours, "a").await;
    std::thread::sleep(STUCK);
    assert!(!held.is_lost());
    busy(&other, "a").await;
    held.verify().await.unwrap();
    held.release().await.unwrap();
    soon(&other, "a").await.release().await.unwrap();
}

#[tokio::test]
async fn redis() {
    let server = Redis::start().await.unwrap();
    outlives_a_stuck_executor(&format!("{}?lock_timeout=5", server.url())).await;
}

#[tokio::test]
async fn memcached() {
    let server = Memcached::start().await.unwrap();
    outlives_a_stuck_executor(&format!("{}?lock_timeout=5", server.url())).await;
}

#[tokio::test]
async fn zookeeper() {
    let server = ZooKeeper::start().await.unwrap();
    outlives_a_stuck_executor(&format!("{}?timeout=4", server.url())).await;
}

#[tokio::test]
async fn etcd() {
    let server = Etcd::start().await.unwrap();
    outlives_a_stuck_executor(&format!("{}?timeout=4", server.url())).await;
    outlives_a_stuck_executor(&format!("{}?lock_timeout=4", server.tooz_url())).await;
}

#[tokio::test]
async fn mysql() {
    let server = MariaDb::start().await.unwrap();
    outlives_a_stuck_executor(&format!("{}?session_timeout=4", server.sqlx_url())).await;
}

#[tokio::test]
async fn postgresql() {
    let server = Postgres::start().await.unwrap();
    let url = server.sqlx_url().replace("postgres://", "postgresql://");
    outlives_a_stuck_executor(&format!("{url}?session_timeout=4")).await;
}
