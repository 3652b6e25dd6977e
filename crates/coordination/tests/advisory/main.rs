//! MySQL's named locks and PostgreSQL's advisory locks, on real servers.

mod conformance;
#[path = "../common/contended.rs"]
mod contended;
#[path = "../common/crowd.rs"]
mod crowd;
mod faults;
#[path = "../common/history.rs"]
mod history;
#[path = "../common/locks.rs"]
mod locks;
#[path = "../common/log.rs"]
mod log;
#[path = "../common/peer.rs"]
mod peer;
mod peers;
mod shared_keys;
mod silence;
mod tooz;

use std::sync::Arc;
use std::time::Duration;

use locks::until;
use scoria_coordination::{Coordinator, Health, Options, Provider};
use scoria_testkit::{MariaDb, Postgres};

fn options(instance: &str) -> Options {
    let (heartbeat, max_reconnect_backoff) = (Duration::from_millis(100), Duration::from_millis(500));
    Options { instance: instance.to_owned(), heartbeat, max_reconnect_backoff, ..Options::default() }
}

async fn open(url: &str, instance: &str) -> Arc<dyn Provider> {
    let provider = scoria_coordination::providers::open(url, &options(instance)).await.unwrap();
    until("connected", || provider.health() == Health::Up).await;
    provider
}

async fn coordinator(url: &str) -> Coordinator {
    Coordinator::new(open(url, "one").await)
}

/// Ends the connection that holds a lock, as an administrator does.
fn end_mysql_holder(server: &MariaDb, name: &str) {
    let holder = server.execute(&format!("SELECT IS_USED_LOCK('cinder-{name}')")).unwrap();
    server.execute(&format!("KILL CONNECTION {holder}")).unwrap();
}

/// Ends the connection that holds a lock, as an administrator does.
fn end_postgres_holder(server: &Postgres, name: &str) {
    let ended = server.execute(&format!("SELECT pg_terminate_backend(pid) {}", postgres_locks(name))).unwrap();
    assert_eq!(ended.trim(), "t");
}

/// `FROM` the server's table of locks `WHERE` it is this one, in the database asked.
fn postgres_locks(name: &str) -> String {
    let key = format!("('x' || left(md5('cinder-{name}'), 4))::bit(16)::int");
    format!(
        "FROM pg_locks WHERE locktype = 'advisory' AND classid = {key} / 256 AND objid = {key} % 256 AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
}

/// How long the server keeps the connection of a holder that says nothing.
const SESSION: Duration = Duration::from_secs(3);

/// One of the two servers, the test's own.
enum Server {
    MySql(MariaDb),
    Postgres(Postgres),
}

impl Server {
    async fn mysql() -> Self {
        Self::MySql(MariaDb::start().await.unwrap())
    }

    async fn postgres() -> Self {
        Self::Postgres(Postgres::start().await.unwrap())
    }

    fn port(&self) -> u16 {
        match self {
            Self::MySql(server) => server.port(),
            Self::Postgres(server) => server.port(),
        }
    }

    fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// Through a proxy.
    fn url_at(&self, port: u16) -> String {
        match self {
            Self::MySql(_) => format!("mysql://scoria:scoria@127.0.0.1:{port}/scoria?session_timeout=3"),
            Self::Postgres(_) => format!("postgresql://scoria@127.0.0.1:{port}/scoria?session_timeout=3"),
        }
    }

    /// Client connections besides the one that asks.
    fn connections(&self) -> usize {
        let count = match self {
            Self::MySql(server) => server.execute(
                "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'scoria' AND ID <> CONNECTION_ID()",
            ),
            Self::Postgres(server) => server.execute(
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            ),
        };
        count.unwrap().trim().parse().unwrap()
    }

    fn end_holder_of(&self, name: &str) {
        match self {
            Self::MySql(server) => end_mysql_holder(server, name),
            Self::Postgres(server) => end_postgres_holder(server, name),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::MySql(server) => server.kill().unwrap(),
            Self::Postgres(server) => server.kill().unwrap(),
        }
    }

    /// It stands still with its connections.
    fn pause(&mut self) {
        match self {
            Self::MySql(server) => server.pause().unwrap(),
            Self::Postgres(server) => server.pause().unwrap(),
        }
    }

    fn resume(&mut self) {
        match self {
            Self::MySql(server) => server.resume().unwrap(),
            Self::Postgres(server) => server.resume().unwrap(),
        }
    }

    async fn restart(&mut self) {
        match self {
            Self::MySql(server) => server.restart().await.unwrap(),
            Self::Postgres(server) => server.restart().await.unwrap(),
        }
    }
}
