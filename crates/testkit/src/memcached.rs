//! A memcached server.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program};

/// A memcached server of the caller's own.
#[derive(Debug)]
pub struct Memcached {
    port: u16,
    options: Vec<String>,
    process: Process,
    dir: TempDir,
}

impl Memcached {
    /// Starts a server.
    ///
    /// # Errors
    /// memcached is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with further options of its command line, e.g. `-m 2`. With `-Z` it speaks TLS on the addresses that are
    /// listed in the options, and its own port stays in the clear.
    ///
    /// # Errors
    /// As [`Memcached::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        Self::start_on(free_port()?, options).await
    }

    /// Starts a server on a port that was chosen before.
    ///
    /// # Errors
    /// As [`Memcached::start`].
    pub async fn start_on(port: u16, options: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-memcached-").tempdir()?;
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = serve(dir.path(), port, &options).await?;
        Ok(Self { port, options, process, dir })
    }

    /// Its URL, `memcached://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// The server's TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends one command of the text protocol, with its data block if it has one, and gives the lines of the answer without
    /// the last (`END`, `STORED`, …) where there are several.
    ///
    /// # Errors
    /// The server does not answer, or with an error.
    pub fn execute(&self, command: &str) -> Result<Vec<String>> {
        execute(self.port, command)
    }

    /// The keys that it holds, sorted, without those that have run out.
    ///
    /// # Errors
    /// As [`Memcached::execute`].
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = BTreeSet::new();
        // Records move between memcached's lists all the time, and one list is read after the other: one dump may miss some.
        for _ in 0..3 {
            let dump = self.execute("lru_crawler metadump all")?;
            let key = |line: &String| line.strip_prefix("key=")?.split(' ').next().map(str::to_owned);
            keys.extend(dump.iter().filter_map(key));
        }
        Ok(keys.into_iter().collect())
    }

    /// Stops it from doing anything (SIGSTOP), its sockets stay open.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Kills the server; its data is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again, empty, on the same port.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = serve(self.dir.path(), self.port, &self.options).await?;
        Ok(())
    }
}

async fn serve(dir: &Path, port: u16, options: &[String]) -> Result<Process> {
    let mut command = Command::new(program("memcached", "memcached")?);
    // Without a user it refuses to run for root; for anybody else it does not look at the user.
    let clear = if options.iter().any(|option| option == "-Z") { "notls:" } else { "" };
    command.args(["-u", "root", "-l", &format!("{clear}127.0.0.1:{port}"), "-U", "0"]).args(options);
    let mut process = Process::spawn("memcached", command, &dir.join("log"))?;
    process.ready("answer", START_TIMEOUT, async || execute(port, "version").is_ok()).await?;
    Ok(process)
}

fn execute(port: u16, command: &str) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let several = ["get", "stats", "lru_crawler metadump"].iter().any(|start| command.starts_with(start));
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.with_context(|| format!("memcached on port {port}: {command}"))?;
        if line.starts_with("ERROR") || line.starts_with("CLIENT_ERROR") || line.starts_with("SERVER_ERROR") {
            bail!("memcached on port {port}: {command}: {line}");
        }
        match line.as_str() {
            "END" if several => return Ok(lines),
            _ => lines.push(line),
        }
        if !several {
            return Ok(lines);
        }
    }
    bail!("memcached on port {port} closed the connection: {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_forgets_and_comes_back() {
        let mut server = Memcached::start().await.unwrap();
        assert_eq!(server.execute("set k 1 0 2\r\nab").unwrap(), ["STORED"]);
        assert_eq!(server.execute("get k").unwrap(), ["VALUE k 1 2", "ab"]);
        assert_eq!(server.keys().unwrap(), ["k"]);
        assert!(server.execute("nonsense").unwrap_err().to_string().contains("ERROR"));
        server.restart().await.unwrap();
        assert_eq!(server.keys().unwrap(), Vec::<String>::new());
        server.kill();
        assert!(server.execute("version").is_err());
    }
}
