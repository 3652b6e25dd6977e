//! The suite that every lock service passes, on those that need no server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_coordination::conformance::Subject;
use scoria_coordination::providers::{FileProvider, MemoryProvider};
use scoria_coordination::{Options, Provider};

struct Memory(MemoryProvider);

#[async_trait]
impl Subject for Memory {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        Arc::new(self.0.another(name))
    }

    async fn lose(&self, name: &str) {
        assert!(self.0.lose(name));
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.holders().await.unwrap().into_iter().map(|holder| holder.name).collect()
    }
}

struct Files {
    directory: tempfile::TempDir,
    exclusive_directory: bool,
}

impl Files {
    fn new(exclusive_directory: bool) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), exclusive_directory }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[async_trait]
impl Subject for Files {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let options = Options {
            instance: name.to_owned(),
            heartbeat: Duration::from_millis(50),
            exclusive_directory: self.exclusive_directory,
            ..Options::default()
        };
        Arc::new(FileProvider::in_directory(self.directory.path(), &options).await.unwrap())
    }

    async fn lose(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join(format!("cinder-{name}"))).unwrap();
    }

    /// Beside Python peers the (empty) lock files stay, one per name, as tooz leaves them.
    async fn leftovers(&self) -> Vec<String> {
        let mut left = names(self.directory.path());
        left.retain(|name| name != ".scoria-holders" && (self.exclusive_directory || !name.starts_with("cinder-")));
        left.extend(names(&self.directory.path().join(".scoria-holders")));
        left
    }
}

mod memory {
    use super::*;

    scoria_coordination::conformance_suite!(Memory(MemoryProvider::new()));
}

mod file_beside_python {
    use super::*;

    scoria_coordination::conformance_suite!(Files::new(false));
}

mod file_of_our_own {
    use super::*;

    scoria_coordination::conformance_suite!(Files::new(true));
}
