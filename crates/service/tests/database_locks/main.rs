//! `database://`: the lock service over the table of locks, which this crate brings together, on SQLite, MariaDB (also as a
//! Galera cluster) and PostgreSQL.

mod conformance;
#[path = "../../../coordination/tests/common/contended.rs"]
mod contended;
#[path = "../../../coordination/tests/common/crowd.rs"]
mod crowd;
mod deleted;
mod faults;
mod galera;
mod galera_faults;
mod hand_over;
#[path = "../../../coordination/tests/common/history.rs"]
mod history;
#[path = "../../../coordination/tests/common/locks.rs"]
mod locks;
mod looks;
mod losses;
#[path = "../../../coordination/tests/common/peer.rs"]
mod peer;
mod peers;
mod place;

use std::sync::Arc;
use std::time::Duration;

use locks::until;
use place::table;
use scoria_coordination::{Coordinator, Health, Options, Provider};

fn lock_options(url: &str, instance: &str) -> Options {
    let heartbeat = Duration::from_millis(100);
    Options { instance: instance.to_owned(), heartbeat, lock_table: Some(table(url)), ..Options::default() }
}

/// The lock service, connected.
async fn provider(url: &str, instance: &str, backend_url: &str) -> Arc<dyn Provider> {
    let options = lock_options(url, instance);
    let provider = scoria_coordination::providers::open(backend_url, &options).await.unwrap();
    until("connected", || provider.health() == Health::Up).await;
    provider
}

async fn coordinator(url: &str, instance: &str, backend_url: &str) -> Coordinator {
    Coordinator::new(provider(url, instance, backend_url).await)
}
