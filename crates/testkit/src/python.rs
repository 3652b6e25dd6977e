//! The real Python peers: scripts run by the virtual environment that `scripts/setup test` makes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Names a virtual environment other than the repository's `.tools/peer-venv`.
pub(crate) const VENV: &str = "SCORIA_PEER_VENV";

/// A virtual environment with Cinder, tooz, oslo.messaging and the clients, all real.
#[derive(Debug, Clone)]
pub struct PythonPeer {
    venv: PathBuf,
}

impl PythonPeer {
    /// The environment that `SCORIA_PEER_VENV` names, or the repository's own.
    ///
    /// # Errors
    /// There is none: the error says how to make it.
    pub fn find() -> Result<Self> {
        let venv = std::env::var_os(VENV).map_or_else(|| repository().join(".tools/peer-venv"), PathBuf::from);
        if !venv.join("bin/cinder-manage").is_file() {
            bail!("no Python peers in {}: run `make setup` (scripts/setup test)", venv.display());
        }
        Ok(Self { venv })
    }

    /// The environment's directory.
    #[must_use]
    pub fn venv(&self) -> &Path {
        &self.venv
    }

    /// A program of the environment, e.g. `cinder-manage`.
    #[must_use]
    pub fn bin(&self, name: &str) -> PathBuf {
        self.venv.join("bin").join(name)
    }

    /// Runs a script to its end; its last line of output is JSON.
    ///
    /// # Errors
    /// It fails, takes longer than `timeout`, or prints something else; the error has its standard error.
    pub async fn run<S: AsRef<OsStr>>(&self, script: &Path, args: &[S], timeout: Duration) -> Result<Value> {
        let running = self.command(script, args).kill_on_drop(true).output();
        let out = tokio::time::timeout(timeout, running).await;
        let out = out.with_context(|| format!("{} still runs after {timeout:?}", script.display()))??;
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if !out.status.success() {
            bail!("{} ended with {}:\n{stdout}{stderr}", script.display(), out.status);
        }
        let last = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{} printed {last:?}, not JSON\n{stderr}", script.display()))
    }

    /// Starts a script that goes on: it prints JSON lines and reads lines.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, script: &Path, args: &[S]) -> Result<PythonChild> {
        let mut command = self.command(script, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", script.display()))?;
        let stdin = child.stdin.take().context("no pipe to the script")?;
        let lines = BufReader::new(child.stdout.take().context("no pipe from the script")?).lines();
        Ok(PythonChild { child, stdin, lines })
    }

    fn command<S: AsRef<OsStr>>(&self, script: &Path, args: &[S]) -> Command {
        let mut command = Command::new(self.bin("python"));
        // Unbuffered, without compiled files in the source tree and without the peers' own deprecation warnings.
        command.args(["-u", "-B", "-W", "ignore"]).arg(script).args(args);
        command
    }
}

/// A running script.
#[derive(Debug)]
pub struct PythonChild {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PythonChild {
    /// The next JSON line that it prints.
    ///
    /// # Errors
    /// It ends, prints something else, or prints nothing within `timeout`.
    pub async fn next(&mut self, timeout: Duration) -> Result<Value> {
        let line = tokio::time::timeout(timeout, self.lines.next_line()).await;
        let line = line.with_context(|| format!("the script said nothing within {timeout:?}"))??;
        let line = line.context("the script ended")?;
        serde_json::from_str(&line).with_context(|| format!("the script printed {line:?}, not JSON"))
    }

    /// Writes it a line.
    ///
    /// # Errors
    /// It has ended.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    crates.expect("the crate lies two levels below the repository's root").to_path_buf()
}
