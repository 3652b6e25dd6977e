//! A database to test on: which server, and who made the tables.

use std::process::Command;
use std::time::Duration;

use scoria_db::{Database, Options};
use scoria_testkit::{MariaDb, Postgres, PythonPeer};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Sqlite,
    MariaDb,
    Postgres,
}

/// Who made the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Scoria,
    Cinder,
    Nobody,
}

enum Running {
    Sqlite,
    MariaDb(MariaDb),
    Postgres(Postgres),
}

/// A database of the test's own.
pub(crate) struct Place {
    pub(crate) db: Database,
    pub(crate) url: String,
    pub(crate) server: Server,
    pub(crate) origin: Origin,
    running: Running,
    directory: TempDir,
}

/// Retries that do not make a test wait.
pub(crate) fn options(url: &str) -> Options {
    Options {
        db_retry_interval: Duration::from_millis(20),
        db_max_retry_interval: Duration::from_millis(200),
        retry_interval: Duration::from_millis(200),
        ..Options::new(url)
    }
}

impl Place {
    pub(crate) async fn new(server: Server, origin: Origin) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (running, url) = match server {
            Server::Sqlite => (Running::Sqlite, format!("sqlite:///{}/cinder.sqlite", directory.path().display())),
            Server::MariaDb => {
                let server = MariaDb::shared().await.unwrap();
                let url = server.url();
                (Running::MariaDb(server), url)
            }
            Server::Postgres => {
                let server = Postgres::shared().await.unwrap();
                let url = server.url();
                (Running::Postgres(server), url)
            }
        };
        if origin == Origin::Cinder {
            cinder_manage_db_sync(&url, &directory);
        }
        let db = Database::connect(&options(&url)).await.unwrap();
        if origin == Origin::Scoria {
            db.sync().await.unwrap();
        }
        Self { db, url, server, origin, running, directory }
    }

    /// Runs SQL of the test's own: rows as lines, columns separated by tabs.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        let text = match &self.running {
            Running::MariaDb(server) => server.execute(sql).unwrap(),
            Running::Postgres(server) => server.execute(sql).unwrap(),
            Running::Sqlite => {
                let path = self.directory.path().join("cinder.sqlite");
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).foreign_keys(false);
                let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
                let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap();
                let cell = |row: &sqlx::sqlite::SqliteRow, index| {
                    let text: Option<String> = row.get_unchecked(index);
                    text.unwrap_or_default()
                };
                let line = |row| (0..Row::len(row)).map(|index| cell(row, index)).collect::<Vec<_>>().join("\t");
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        };
        text.trim().to_owned()
    }

    /// The server's URL in sqlx's form, for connections of the test's own.
    pub(crate) fn sqlx_url(&self) -> String {
        match &self.running {
            Running::MariaDb(server) => server.sqlx_url(),
            Running::Postgres(server) => server.sqlx_url(),
            Running::Sqlite => self.url.clone(),
        }
    }

    /// Counts rows.
    pub(crate) async fn count(&self, table: &str, condition: &str) -> u64 {
        self.sql(&format!("SELECT COUNT(*) FROM {table} WHERE {condition}")).await.parse().unwrap()
    }

    /// How many round trips a call makes.
    pub(crate) async fn trips<T>(&self, call: impl Future<Output = T>) -> (T, u64) {
        let before = self.db.round_trips();
        let answer = call.await;
        (answer, self.db.round_trips() - before)
    }
}

/// Makes the tables as a Cinder installation does.
pub(crate) fn cinder_manage_db_sync(url: &str, directory: &TempDir) {
    let peer = PythonPeer::find().unwrap();
    let conf = directory.path().join("cinder.conf");
    let state = directory.path().display();
    std::fs::write(&conf, format!("[DEFAULT]\nstate_path = {state}\n[database]\nconnection = {url}\n")).unwrap();
    let out = Command::new(peer.bin("cinder-manage")).arg("--config-file").arg(&conf).args(["db", "sync"]).output();
    let out = out.unwrap();
    assert!(out.status.success(), "cinder-manage db sync: {}", String::from_utf8_lossy(&out.stderr));
}
