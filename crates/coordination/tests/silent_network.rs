//! A network that drops everything without a word, as when a cable is pulled: nothing is refused, reset or confirmed, not even by
//! the kernel, which the links of `*_faults.rs` cannot do. Each test has a network of its own, with server and clients in it.

mod common {
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::process::Command;
use std::time::{Duration, Instant};

use common::locks::{coordinator, lost, once, soon};
use scoria_coordination::Error;
use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, Redis, ZooKeeper};

/// Set in the network of a test's own.
const ALONE: &str = "SCORIA_TEST_NETWORK";

/// Runs a test again, in a network that has nothing but a loopback of its own. True in there.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let mut there = Command::new("unshare");
    there.args(["--net", "--"]).arg(this).args(["--exact", test, "--nocapture"]);
    assert!(there.env(ALONE, "yes").status().unwrap().success(), "see above");
    false
}

fn run(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The network drops every packet until this is dropped.
struct Silence;

impl Silence {
    fn begins() -> Self {
        run("tc", &["qdisc", "replace", "dev", "lo", "root", "blackhole"]);
        Self
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        run("tc", &["qdisc", "delete", "dev", "lo", "root"]);
    }
}

/// `lease` is how long others have to wait for the lock of somebody who is silent.
async fn a_silent_network_ends_locks_and_nothing_else(url: &str, lease: Duration) {
    let (one, two) = (coordinator(url).await, coordinator(url).await);
    let held = soon(&one, "a").await;
    let began = Instant::now();
    let silence = Silence::begins();
    lost(&held).await;
    assert!(began.elapsed() < lease, "told after {:?}", began.elapsed());
    let asked = once(&one, "b").await;
    assert!(matches!(asked, Err(Error::Unavailable(_))), "{asked:?}");
    tokio::time::sleep((began + lease).saturating_duration_since(Instant::now())).await;
    drop(silence);
    // Nothing has ever said that the connections were dead.
    let other = soon(&two, "a").await;
    soon(&one, "b").await.release().await.unwrap();
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    other.verify().await.unwrap();
    other.release().await.unwrap();
    one.close().await;
    two.close().await;
}

const FIVE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn redis() {
    if alone("redis") {
        let server = Redis::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?lock_timeout=5", server.url()), FIVE).await;
    }
}

#[tokio::test]
async fn memcached() {
    if alone("memcached") {
        let server = Memcached::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?lock_timeout=5", server.url()), FIVE).await;
    }
}

#[tokio::test]
async fn zookeeper() {
    if alone("zookeeper") {
        let server = ZooKeeper::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?timeout=5", server.url()), FIVE).await;
    }
}

#[tokio::test]
async fn etcd() {
    if alone("etcd") {
        let server = Etcd::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?timeout=5", server.url()), FIVE).await;
    }
}

#[tokio::test]
async fn etcd_as_tooz() {
    if alone("etcd_as_tooz") {
        let server = Etcd::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?lock_timeout=5", server.tooz_url()), FIVE).await;
    }
}

#[tokio::test]
async fn mysql() {
    if alone("mysql") {
        let server = MariaDb::start().await.unwrap();
        a_silent_network_ends_locks_and_nothing_else(&format!("{}?session_timeout=5", server.sqlx_url()), FIVE).await;
    }
}

#[tokio::test]
async fn postgresql() {
    if alone("postgresql") {
        let server = Postgres::start().await.unwrap();
        let url = server.sqlx_url().replace("postgres://", "postgresql://");
        a_silent_network_ends_locks_and_nothing_else(&format!("{url}?session_timeout=5"), FIVE).await;
    }
}
