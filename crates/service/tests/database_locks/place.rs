//! A database to test on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use scoria_db::{Database, DatabaseLocks, Options};
use scoria_testkit::faults::Proxy;
use scoria_testkit::{MariaDb, Postgres, PythonPeer};
use tempfile::TempDir;

use crate::peer::Peer;

/// A database of the test's own, with our tables.
pub(crate) struct Place {
    pub(crate) url: String,
    running: Running,
}

enum Running {
    Sqlite(TempDir),
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
        // Where there is memory for it, nothing waits for the disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let url = format!("sqlite:///{}", file_in(&directory));
        Self::with(url, Running::Sqlite(directory)).await
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.running, Running::Sqlite(_))
    }

    pub(crate) async fn mariadb() -> Self {
        let server = MariaDb::shared().await.unwrap();
        Self::with(server.url(), Running::MariaDb(server)).await
    }

    pub(crate) async fn postgresql() -> Self {
        let server = Postgres::shared().await.unwrap();
        Self::with(server.url(), Running::Postgres(server)).await
    }

    /// A server of the test's own, which may fail.
    pub(crate) async fn own_mariadb() -> Self {
        let server = MariaDb::start().await.unwrap();
        Self::with(server.url(), Running::MariaDb(server)).await
    }

    /// A server of the test's own, which may fail.
    pub(crate) async fn own_postgresql() -> Self {
        let server = Postgres::start().await.unwrap();
        Self::with(server.url(), Running::Postgres(server)).await
    }

    /// A proxy before the server, and the place's URL by way of it.
    pub(crate) fn proxied(&self) -> (Proxy, String) {
        let port = match &self.running {
            Running::Sqlite(_) => panic!("{NO_SERVER}"),
            Running::MariaDb(server) => server.port(),
            Running::Postgres(server) => server.port(),
        };
        let proxy = Proxy::start(port).unwrap();
        let url = self.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
        (proxy, url)
    }

    pub(crate) fn pause(&mut self) {
        match &mut self.running {
            Running::Sqlite(_) => panic!("{NO_SERVER}"),
            Running::MariaDb(server) => server.pause().unwrap(),
            Running::Postgres(server) => server.pause().unwrap(),
        }
    }

    pub(crate) fn resume(&mut self) {
        match &mut self.running {
            Running::Sqlite(_) => panic!("{NO_SERVER}"),
            Running::MariaDb(server) => server.resume().unwrap(),
            Running::Postgres(server) => server.resume().unwrap(),
        }
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.running {
            Running::Sqlite(_) => panic!("{NO_SERVER}"),
            Running::MariaDb(server) => server.kill().unwrap(),
            Running::Postgres(server) => server.kill().unwrap(),
        }
    }

    pub(crate) async fn restart(&mut self) {
        match &mut self.running {
            Running::Sqlite(_) => panic!("{NO_SERVER}"),
            Running::MariaDb(server) => server.restart().await.unwrap(),
            Running::Postgres(server) => server.restart().await.unwrap(),
        }
    }

    /// Runs a statement of the test's own.
    pub(crate) fn sql(&self, sql: &str) -> String {
        match &self.running {
            Running::Sqlite(directory) => {
                let run = "import sqlite3, sys; database = sqlite3.connect(sys.argv[1], isolation_level=None); \
                           [print(*row, sep='\\t') for row in database.execute(sys.argv[2])]";
                let out = python(run).args([&file_in(directory), sql]).output().unwrap();
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
                String::from_utf8(out.stdout).unwrap()
            }
            Running::MariaDb(server) => server.execute(sql).unwrap(),
            Running::Postgres(server) => server.execute(sql).unwrap(),
        }
    }

    /// How many rows of locks there are, held or not.
    pub(crate) fn rows(&self) -> usize {
        self.sql("SELECT COUNT(*) FROM scoria_locks").trim().parse().unwrap()
    }

    /// Another process that has SQLite's file to itself, from when this returns until it is dropped.
    pub(crate) fn taken_by_another_process(&self) -> Peer {
        let Running::Sqlite(directory) = &self.running else { panic!("no file") };
        let run = "import sqlite3, sys; database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30); \
                   database.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()";
        let mut command = python(run);
        command.arg(file_in(directory));
        let mut peer = Peer::start(command);
        peer.says(&["locked"]);
        peer
    }
}

const NO_SERVER: &str = "SQLite has no server";

fn file_in(directory: &TempDir) -> String {
    directory.path().join("cinder.sqlite").display().to_string()
}

/// SQLite's command line is not everywhere; Python has it built in.
fn python(script: &str) -> Command {
    let mut command = Command::new(PythonPeer::find().unwrap().bin("python"));
    command.args(["-B", "-c", script]);
    command
}
