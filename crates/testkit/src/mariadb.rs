//! A MariaDB server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program};

/// Names the server of a whole test run: `127.0.0.1:PORT`.
pub(crate) const SHARED: &str = "SCORIA_TEST_MARIADB";
const PACKAGE: &str = "mariadb-server";
/// User, password and first database of every server that testkit starts.
const NAME: &str = "scoria";

/// A MariaDB server with a database for the caller; user and password are `scoria`, who may do everything.
#[derive(Debug)]
pub struct MariaDb {
    port: u16,
    database: String,
    own: Option<(Process, TempDir)>,
}

impl MariaDb {
    /// Starts a server of the caller's own.
    ///
    /// # Errors
    /// MariaDB is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-mariadb-").tempdir()?;
        install(dir.path())?;
        let port = free_port()?;
        let process = serve(dir.path(), port).await?;
        Ok(Self { port, database: NAME.into(), own: Some((process, dir)) })
    }

    /// A fresh database on the server of the test run, or a server of the caller's own when there is none.
    ///
    /// # Errors
    /// As [`MariaDb::start`]; the shared server does not answer.
    pub async fn shared() -> Result<Self> {
        let Ok(address) = std::env::var(SHARED) else { return Self::start().await };
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("{SHARED}={address} is not 127.0.0.1:PORT"))?;
        let database = format!("t{}", uuid::Uuid::new_v4().simple());
        let shared = Self { port, database, own: None };
        shared.create_database(&shared.database)?;
        Ok(shared)
    }

    /// The SQLAlchemy URL of the caller's database, as in `[database] connection`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.database)
    }

    /// The SQLAlchemy URL of any database of this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("mysql+pymysql://{NAME}:{NAME}@127.0.0.1:{}/{database}?charset=utf8mb4", self.port)
    }

    /// The sqlx URL of the caller's database.
    #[must_use]
    pub fn sqlx_url(&self) -> String {
        self.sqlx_url_of(&self.database)
    }

    /// The sqlx URL of any database of this server.
    #[must_use]
    pub fn sqlx_url_of(&self, database: &str) -> String {
        format!("mysql://{NAME}:{NAME}@127.0.0.1:{}/{database}", self.port)
    }

    /// The server's TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates another, empty database.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn create_database(&self, name: &str) -> Result<()> {
        client(self.port, "mysql", &format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4")).map(drop)
    }

    /// Runs statements in the caller's database: rows as lines, columns separated by tabs, no headings.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn execute(&self, sql: &str) -> Result<String> {
        client(self.port, &self.database, sql)
    }

    /// Kills the server: what a crash or a power cut does to its connections.
    ///
    /// # Errors
    /// The server is shared.
    pub fn kill(&mut self) -> Result<()> {
        let (process, _) = self.own.as_mut().context("a shared MariaDB must not be killed: use MariaDb::start()")?;
        process.kill();
        Ok(())
    }

    /// Stops the server as it stands: connections stay, nobody answers.
    ///
    /// # Errors
    /// The server is shared.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// The server is shared.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let (process, _) = self.own.as_mut().context("a shared MariaDB must not be stopped: use MariaDb::start()")?;
        process.signal(signal)
    }

    /// Starts the server again on the same port with the same data.
    ///
    /// # Errors
    /// The server is shared, or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        if let Some((process, dir)) = self.own.as_mut() {
            *process = serve(dir.path(), self.port).await?;
        }
        Ok(())
    }
}

fn install(dir: &Path) -> Result<()> {
    let out = Command::new(program("mariadb-install-db", PACKAGE)?)
        // A server that starts removes what looks like a temporary table, also that of another server.
        .env("TMPDIR", dir)
        .arg("--no-defaults")
        .arg(format!("--datadir={}", dir.join("data").display()))
        .args(["--skip-test-db", "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"])
        .args(as_root())
        .output()?;
    if !out.status.success() {
        bail!("mariadb-install-db failed: {}{}", text(&out.stdout), text(&out.stderr));
    }
    let init = format!(
        "CREATE USER IF NOT EXISTS {NAME}@'127.0.0.1' IDENTIFIED BY '{NAME}';\n\
         GRANT ALL ON *.* TO {NAME}@'127.0.0.1' WITH GRANT OPTION;\n\
         CREATE DATABASE IF NOT EXISTS {NAME} CHARACTER SET utf8mb4;\n"
    );
    Ok(std::fs::write(dir.join("init.sql"), init)?)
}

async fn serve(dir: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(program("mariadbd", PACKAGE)?);
    command.env("TMPDIR", dir);
    let at = |option: &str, file: &str| format!("--{option}={}", dir.join(file).display());
    command.arg("--no-defaults").args([at("datadir", "data"), at("socket", "socket"), at("pid-file", "pid")]);
    command.args([at("init-file", "init.sql"), format!("--port={port}")]).args(as_root()).args([
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--character-set-server=utf8mb4",
        "--max-connections=500",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
        // Commits survive a killed server, which tests do; not a power cut, which they do not.
        "--innodb-flush-log-at-trx-commit=2",
    ]);
    let mut process = Process::spawn("mariadbd", command, &dir.join("log"))?;
    let answers =
        async || TcpStream::connect(("127.0.0.1", port)).await.is_ok() && client(port, NAME, "SELECT 1").is_ok();
    process.ready("answer", START_TIMEOUT, answers).await?;
    Ok(process)
}

fn client(port: u16, database: &str, sql: &str) -> Result<String> {
    let out = Command::new(program("mariadb", "mariadb-client")?)
        .args(["--no-defaults", "--host=127.0.0.1", "--batch", "--skip-column-names"])
        .args([format!("--port={port}"), format!("--user={NAME}"), format!("--password={NAME}")])
        .args(["--execute", sql, database])
        .output()?;
    if !out.status.success() {
        bail!("MariaDB on port {port}: {}", text(&out.stderr).trim());
    }
    Ok(text(&out.stdout))
}

/// MariaDB runs as root only when told so.
fn as_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--user=root")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
