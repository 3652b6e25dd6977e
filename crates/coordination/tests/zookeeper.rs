//! The suite that every lock service passes, on a real ZooKeeper server.

mod common {
    pub(crate) mod zookeeper;
}

use std::sync::Arc;

use async_trait::async_trait;
use common::zookeeper::{admin, eventually, open, parents};
use scoria_coordination::conformance::Subject;
use scoria_coordination::{Options, Provider};
use scoria_testkit::ZooKeeper;

struct Server(ZooKeeper);

impl Server {
    async fn start() -> Self {
        Self(ZooKeeper::start().await.unwrap())
    }
}

#[async_trait]
impl Subject for Server {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let options = Options { instance: name.to_owned(), ..Options::default() };
        open(&format!("{}?timeout=6&remove_idle_after=1", self.0.url()), &options).await
    }

    async fn lose(&self, name: &str) {
        let admin = admin(&self.0).await;
        let parent = format!("/tooz/locks/cinder-{name}");
        for child in admin.list_children(&parent).await.unwrap() {
            admin.delete(&format!("{parent}/{child}"), None).await.unwrap();
        }
    }

    /// Contenders at once; the parents of locks go when nobody has used them for a while.
    async fn leftovers(&self) -> Vec<String> {
        let mut left = self.0.ephemerals().unwrap();
        // Somebody else has to be there to tidy up.
        let tidy = self.instance("tidy").await;
        eventually("parents removed", || async { parents(&self.0).await.is_empty() }).await;
        left.extend(self.0.ephemerals().unwrap());
        tidy.close().await;
        left
    }
}

scoria_coordination::conformance_suite!(Server::start().await);
