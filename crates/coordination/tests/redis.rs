//! The suite that every lock service passes, on a real Redis server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_coordination::conformance::Subject;
use scoria_coordination::{Health, Options, Provider, providers};
use scoria_runtime::Deadline;
use scoria_testkit::Redis;

struct Server(Redis);

#[async_trait]
impl Subject for Server {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let heartbeat = Duration::from_millis(100);
        let options = Options { instance: name.to_owned(), heartbeat, ..Options::default() };
        let provider = providers::open(&self.0.url(), &options).await.unwrap();
        let patience = Deadline::after(Duration::from_secs(30));
        while provider.health() != Health::Up {
            assert!(!patience.has_passed(), "{:?}", provider.health());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        provider
    }

    async fn lose(&self, name: &str) {
        self.0.execute(&["DEL", &format!("_tooz_cinder-{name}_lock")]).unwrap();
    }

    async fn leftovers(&self) -> Vec<String> {
        let mut keys = self.0.keys().unwrap();
        keys.retain(|key| key != "_tooz_scoria_token");
        keys
    }
}

scoria_coordination::conformance_suite!(Server(Redis::start().await.unwrap()));
