//! A database to test on.

use std::sync::Arc;
use std::time::Duration;

use scoria_db::{Database, DatabaseLocks, Options};
use scoria_testkit::{MariaDb, Postgres};
use tempfile::TempDir;

/// A database of the test's own, with our tables.
pub(crate) struct Place {
    pub(crate) url: String,
    running: Running,
}

enum Running {
    Sqlite { _directory: TempDir },
    MariaDb(MariaDb),
    Postgres(Postgres),
}

/// Retries that do not make a test wait.
fn options(url: &str) -> Options {
    let (db_retry_interval, db_max_retry_interval) = (Duration::from_millis(20), Duration::from_millis(200));
    Options { db_retry_interval, db_max_retry_interval, max_retries: Some(0), ..Options::new(url) }
}

/// The table of locks of a database, as another process would open it.
pub(crate) fn table(url: &str) -> Arc<DatabaseLocks> {
    Arc::new(DatabaseLocks::new(&options(url)).unwrap())
}

/// Makes our tables.
pub(crate) async fn sync(url: &str) -> Database {
    let db = Database::connect(&options(url)).await.unwrap();
    db.sync().await.unwrap();
    db
}

impl Place {
    async fn with(url: String, running: Running) -> Self {
        sync(&url).await.close().await;
        Self { url, running }
    }

    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:///{}/cinder.sqlite", directory.path().display());
        Self::with(url, Running::Sqlite { _directory: directory }).await
    }

    pub(crate) async fn mariadb() -> Self {
        let server = MariaDb::shared().await.unwrap();
        Self::with(server.url(), Running::MariaDb(server)).await
    }

    pub(crate) async fn postgresql() -> Self {
        let server = Postgres::shared().await.unwrap();
        Self::with(server.url(), Running::Postgres(server)).await
    }

    /// Runs SQL of the test's own; `None` on SQLite, which has no client here.
    pub(crate) fn sql(&self, sql: &str) -> Option<String> {
        match &self.running {
            Running::Sqlite { .. } => None,
            Running::MariaDb(server) => Some(server.execute(sql).unwrap()),
            Running::Postgres(server) => Some(server.execute(sql).unwrap()),
        }
    }
}
