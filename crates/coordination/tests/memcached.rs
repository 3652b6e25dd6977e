//! The suite that every lock service passes, on memcached; and what its URL says.

mod common {
    pub(crate) mod log;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::log::Log;
use scoria_coordination::conformance::Subject;
use scoria_coordination::{Health, Options, Provider, providers};
use scoria_testkit::Memcached;

/// A server of the test's own.
struct Server(Memcached);

impl Server {
    async fn start() -> Self {
        Self(Memcached::start().await.unwrap())
    }
}

#[async_trait]
impl Subject for Server {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let options = Options { instance: name.to_owned(), ..Options::default() };
        let provider = providers::open(&self.0.url(), &options).await.unwrap();
        while provider.health() != Health::Up {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        provider
    }

    async fn lose(&self, name: &str) {
        self.0.execute(&format!("delete __TOOZ_LOCK_cinder-{name}")).unwrap();
    }

    /// The word that a waiter leaves of its waiting goes by itself.
    async fn leftovers(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let keys = self.0.keys().unwrap();
            if keys.is_empty() || end < Instant::now() {
                return keys;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

scoria_coordination::conformance_suite!(Server::start().await);

/// What is said when it is opened: it is not what an operator should choose.
#[tokio::test]
async fn a_warning_says_that_it_forgets_and_what_to_use_instead() {
    let (log, _logging) = Log::begin();
    let url = "memcached://u:hush@localhost:1?lock_tiemout=7";
    providers::open(url, &Options::default()).await.unwrap();
    let said = log.said();
    for word in ["WARN", "forgets locks", "zookeeper://", "no option 'lock_tiemout'", "has no user and password"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("hush"), "{said}");
}
