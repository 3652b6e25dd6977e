//! A PostgreSQL server.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::START_TIMEOUT;
use crate::programs::postgres_bin;
use crate::{Process, free_port, program};

/// Names the server of a whole test run: `127.0.0.1:PORT`.
pub(crate) const SHARED: &str = "SCORIA_TEST_POSTGRES";
/// Superuser (without a password) and first database of every server that testkit starts.
const NAME: &str = "scoria";

/// A PostgreSQL server with a database for the caller; the superuser is `scoria`, without a password.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    database: String,
    own: Option<(Process, TempDir)>,
}

impl Postgres {
    /// Starts a server of the caller's own.
    ///
    /// # Errors
    /// PostgreSQL is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-postgres-").tempdir()?;
        let port = free_port()?;
        install(dir.path())?;
        let process = serve(dir.path(), port).await?;
        client(port, "postgres", &format!("CREATE DATABASE {NAME}"))?;
        Ok(Self { port, database: NAME.into(), own: Some((process, dir)) })
    }

    /// A fresh database on the server of the test run, or a server of the caller's own when there is none.
    ///
    /// # Errors
    /// As [`Postgres::start`]; the shared server does not answer.
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
        format!("postgresql+psycopg2://{NAME}@127.0.0.1:{}/{}", self.port, self.database)
    }

    /// The sqlx URL of the caller's database.
    #[must_use]
    pub fn sqlx_url(&self) -> String {
        self.sqlx_url_of(&self.database)
    }

    /// The sqlx URL of any database of this server.
    #[must_use]
    pub fn sqlx_url_of(&self, database: &str) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{database}", self.port)
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
        client(self.port, "postgres", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs statements in the caller's database: rows as lines, columns separated by tabs, no headings.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn execute(&self, sql: &str) -> Result<String> {
        client(self.port, &self.database, sql)
    }

    /// Kills the server: what a crash does to its connections.
    ///
    /// # Errors
    /// The server is shared.
    pub fn kill(&mut self) -> Result<()> {
        let (process, _) =
            self.own.as_mut().context("a shared PostgreSQL must not be killed: use Postgres::start()")?;
        process.kill();
        Ok(())
    }

    /// Stops the server as it stands, with the processes of its connections: nobody answers.
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
        let (process, _) =
            self.own.as_mut().context("a shared PostgreSQL must not be stopped: use Postgres::start()")?;
        // First the one that makes new ones; each child has a process group of its own.
        process.signal(signal)?;
        let id = process.pid();
        for child in std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?.split_whitespace() {
            // It may have ended by now.
            let _ = kill(Pid::from_raw(child.parse()?), signal);
        }
        Ok(())
    }

    /// Starts the server again on the same port with the same data.
    ///
    /// # Errors
    /// The server is shared, or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let Some((process, dir)) = self.own.as_mut() else { return Ok(()) };
        let end = Instant::now() + ORPHANS_TIMEOUT;
        loop {
            match serve(dir.path(), self.port).await {
                Ok(started) => {
                    *process = started;
                    return Ok(());
                }
                Err(error) if is_still_in_use(&error) && Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// How long the children of a killed server may take to notice that it is gone.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a server does not start because children of the one before it still hold its memory.
fn is_still_in_use(error: &anyhow::Error) -> bool {
    error.to_string().contains("pre-existing shared memory block")
}

fn install(dir: &Path) -> Result<()> {
    if let Some(user) = postgres_user()? {
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    let out = unprivileged("initdb")?
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", NAME, "--pgdata"])
        .arg(dir.join("data"))
        .current_dir(dir)
        .output()?;
    if !out.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}

async fn serve(dir: &Path, port: u16) -> Result<Process> {
    let mut command = unprivileged("postgres")?;
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).current_dir(dir);
    command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]);
    // Commits survive a killed server, which tests do; not a power cut, which they do not.
    command.args(["-c", "fsync=off", "-c", "shared_buffers=32MB"]);
    // SIGQUIT is PostgreSQL's immediate shutdown: it takes its children along, which have left the process group.
    let mut process = Process::spawn("postgres", command, &dir.join("log"))?.stopped_with(Signal::SIGQUIT);
    let answers =
        async || TcpStream::connect(("127.0.0.1", port)).await.is_ok() && client(port, "postgres", "SELECT 1").is_ok();
    process.ready("answer", START_TIMEOUT, answers).await?;
    Ok(process)
}

/// A PostgreSQL program, as user `postgres` when we are root: it refuses to run as root.
fn unprivileged(name: &str) -> Result<Command> {
    let file = postgres_bin()?.join(name);
    let Some(user) = postgres_user()? else { return Ok(Command::new(file)) };
    let mut command = Command::new(program("setpriv", "util-linux")?);
    command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".into()]);
    command.arg("--").arg(file);
    Ok(command)
}

fn postgres_user() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?;
    user.map(Some).context("there is no user postgres: apt-get install postgresql (or run scripts/setup test)")
}

fn client(port: u16, database: &str, sql: &str) -> Result<String> {
    let out = Command::new(program("psql", "postgresql-client")?)
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1"])
        .args(["--host=127.0.0.1", &format!("--port={port}"), &format!("--username={NAME}"), "--no-password"])
        .args(["--command", sql, database])
        .output()?;
    if !out.status.success() {
        bail!("PostgreSQL on port {port}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
