//! How often a lock service had to be connected to anew, as a service shows it.

mod common {
    pub(crate) mod locks;
}

use std::sync::LazyLock;

use common::locks::{coordinator, soon, until};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use scoria_testkit::faults::Proxy;
use scoria_testkit::{Etcd, ZooKeeper};

/// Of the whole process: connections live on threads of their own.
static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

fn reconnects(backend: &str) -> u32 {
    let line = format!("scoria_lock_reconnects_total{{backend=\"{backend}\"}} ");
    METRICS.render().lines().find_map(|count| count.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// A connection that is cut is made anew, and no lock is lost with it.
async fn are_counted(backend: &str, server: u16, url: impl Fn(u16) -> String) {
    LazyLock::force(&METRICS);
    let proxy = Proxy::start(server).unwrap();
    let coordinator = coordinator(&url(proxy.port())).await;
    let held = soon(&coordinator, "a").await;
    assert_eq!(reconnects(backend), 0, "a first connection is none that was lost");
    for cuts in 1..=2 {
        proxy.cut();
        until("it is counted", || reconnects(backend) >= cuts).await;
        held.verify().await.unwrap();
        assert_eq!(reconnects(backend), cuts);
    }
    held.release().await.unwrap();
    coordinator.close().await;
    assert_eq!(reconnects(backend), 2);
}

#[tokio::test]
async fn of_zookeeper_are_counted() {
    let server = ZooKeeper::start().await.unwrap();
    are_counted("zookeeper", server.port(), |port| format!("zookeeper://127.0.0.1:{port}")).await;
}

#[tokio::test]
async fn of_etcd_are_counted() {
    let server = Etcd::start().await.unwrap();
    are_counted("etcd", server.port(), |port| format!("etcd://127.0.0.1:{port}")).await;
    are_counted("etcd3+http", server.port(), |port| format!("etcd3+http://127.0.0.1:{port}")).await;
}
