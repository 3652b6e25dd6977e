//! A network that drops everything without a word, as when a cable is pulled: nothing is refused, reset or confirmed, not even by
//! the kernel, which the links of `*_faults.rs` cannot do. Each test has a network of its own, with server and clients in it.

mod common {
    pub(crate) mod locks;
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

/// How long others have to wait for the lock of somebody who is silent.
const LEASE: Duration = Duration::from_secs(5);

async fn a_silent_network_ends_locks_and_nothing_else(url: &str) {
    // What sqlx calls postgres:// is postgresql:// here.
    let url = &url.replace("postgres://", "postgresql://");
    let (one, two) = (coordinator(url).await, coordinator(url).await);
    let held = soon(&one, "a").await;
    let began = Instant::now();
    let silence = Silence::begins();
    lost(&held).await;
    assert!(began.elapsed() < LEASE, "told after {:?}", began.elapsed());
    let asked = once(&one, "b").await;
    assert!(matches!(asked, Err(Error::Unavailable(_))), "{asked:?}");
    tokio::time::sleep((began + LEASE).saturating_duration_since(Instant::now())).await;
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

/// A test for each service, on a server of its own.
macro_rules! services {
    ($($test:ident: $server:ident, $url:ident, $option:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                if alone(stringify!($test)) {
                    let server = $server::start().await.unwrap();
                    let url = format!("{}?{}={}", server.$url(), $option, LEASE.as_secs());
                    a_silent_network_ends_locks_and_nothing_else(&url).await;
                }
            }
        )*
    };
}

services!(
    redis: Redis, url, "lock_timeout";
    memcached: Memcached, url, "lock_timeout";
    zookeeper: ZooKeeper, url, "timeout";
    etcd: Etcd, url, "timeout";
    etcd_as_tooz: Etcd, tooz_url, "lock_timeout";
    mysql: MariaDb, sqlx_url, "session_timeout";
    postgresql: Postgres, sqlx_url, "session_timeout";
);
