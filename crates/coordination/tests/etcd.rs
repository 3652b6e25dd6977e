//! The suite that every lock service passes, on etcd.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_coordination::conformance::Subject;
use scoria_coordination::providers;
use scoria_coordination::{Health, Options, Provider};
use scoria_testkit::Etcd;

struct Server {
    etcd: Etcd,
    url: String,
    /// What the keys of locks begin with.
    locks: &'static str,
}

impl Server {
    async fn own() -> Self {
        let etcd = Etcd::start_unsynced().await.unwrap();
        Self { url: format!("{}?timeout=3", etcd.url()), etcd, locks: "/scoria/locks/cinder-" }
    }

    async fn as_tooz() -> Self {
        let etcd = Etcd::start_unsynced().await.unwrap();
        Self { url: format!("{}?timeout=3", etcd.tooz_url()), etcd, locks: "/tooz/lockscinder-" }
    }
}

#[async_trait]
impl Subject for Server {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let options =
            Options { instance: name.to_owned(), heartbeat: Duration::from_millis(250), ..Options::default() };
        let provider = providers::open(&self.url, &options).await.unwrap();
        for _ in 0..400 {
            if provider.health() == Health::Up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        provider
    }

    async fn lose(&self, name: &str) {
        let prefix = format!("{}{name}", self.locks);
        for key in self.etcd.keys().await.unwrap() {
            if key == prefix || key.starts_with(&format!("{prefix}/")) {
                assert!(self.etcd.remove(&key).await.unwrap());
            }
        }
    }

    async fn leftovers(&self) -> Vec<String> {
        let mut left = self.etcd.keys().await.unwrap();
        left.extend(self.etcd.leases().await.unwrap());
        left
    }
}

mod own {
    use super::*;

    scoria_coordination::conformance_suite!(Server::own().await);
}

mod as_tooz {
    use super::*;

    scoria_coordination::conformance_suite!(Server::as_tooz().await);
}
