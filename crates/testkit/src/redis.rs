//! A Redis server.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program};

/// A Redis server of the caller's own, without a password and without persistence.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
    dir: TempDir,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Errors
    /// Redis is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-redis-").tempdir()?;
        let port = free_port()?;
        let process = serve(dir.path(), port).await?;
        Ok(Self { port, process, dir })
    }

    /// Its URL, `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs one command with `redis-cli` and returns what it prints.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn execute(&self, args: &[&str]) -> Result<String> {
        client(self.port, args)
    }

    /// Kills the server; its data is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same port.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = serve(self.dir.path(), self.port).await?;
        Ok(())
    }
}

async fn serve(dir: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(program("redis-server", "redis-server")?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(dir);
    let mut process = Process::spawn("redis-server", command, &dir.join("log"))?;
    process.ready("answer", START_TIMEOUT, async || client(port, &["PING"]).is_ok()).await?;
    Ok(process)
}

fn client(port: u16, args: &[&str]) -> Result<String> {
    let out = Command::new(program("redis-cli", "redis-tools")?).args(["-p", &port.to_string()]).args(args).output()?;
    if !out.status.success() {
        bail!("redis on port {port}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
