//! A Redis server, and servers under sentinels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program, wait_until};

/// A Redis server of the caller's own, without persistence.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
    dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Redis {
    /// Starts a server without a password.
    ///
    /// # Errors
    /// Redis is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with settings as in `redis.conf`. With `requirepass`, [`Redis::execute`] uses that password.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-redis-").tempdir()?;
        let port = free_port()?;
        let settings: Vec<_> = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let process = serve(dir.path(), port, &settings).await?;
        Ok(Self { port, process, dir, settings })
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

    /// The Unix socket on which it listens too.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs one command with `redis-cli` and returns what it prints.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn execute(&self, args: &[&str]) -> Result<String> {
        client(self.port, password(&self.settings), args)
    }

    /// The names of all keys in database 0.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys: Vec<_> = self.execute(&["KEYS", "*"])?.lines().map(str::to_owned).collect();
        keys.retain(|key| !key.is_empty());
        keys.sort();
        Ok(keys)
    }

    /// Stops its process for now (SIGSTOP): it keeps its connections and answers nobody.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets a paused server go on.
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

    /// Starts the server again on the same port.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = serve(self.dir.path(), self.port, &self.settings).await?;
        Ok(())
    }
}

/// One master, its replicas, and three sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    /// All servers; the first was the master at the start.
    pub servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
    settings: Vec<(String, String)>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    tls_port: u16,
    process: Process,
    _dir: TempDir,
}

impl RedisSentinels {
    /// What the sentinels call the master.
    pub const MASTER: &str = "locks";

    /// Starts a master, replicas and three sentinels that declare a server dead after `down_after`. With a password, the sentinels
    /// want it too.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start(replicas: usize, down_after: Duration, password: Option<&str>) -> Result<Self> {
        let settings: Vec<_> = password.map(|password| ("requirepass", password)).into_iter().collect();
        Self::start_with(replicas, down_after, password, &settings).await
    }

    /// As [`RedisSentinels::start`], with settings of the sentinels as in `sentinel.conf`, among them a `requirepass` of their own. With
    /// `tls-cert-file` they have a port for TLS too.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_with(
        replicas: usize,
        down_after: Duration,
        password: Option<&str>,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let secret = |mut settings: Vec<(&'static str, String)>| {
            if let Some(password) = password {
                settings.extend([("requirepass", password.to_owned()), ("masterauth", password.to_owned())]);
            }
            settings
        };
        let mut servers = Vec::new();
        for _ in 0..=replicas {
            let mut settings = secret(vec![("repl-diskless-sync-delay", "0".to_owned())]);
            if let Some(master) = servers.first().map(Redis::port) {
                settings.push(("replicaof", format!("127.0.0.1 {master}")));
            }
            let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
            servers.push(Redis::start_with(&settings).await?);
        }
        let settings = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let mut cluster = Self { servers, sentinels: Vec::new(), settings };
        for _ in 0..3 {
            let dir = tempfile::Builder::new().prefix("scoria-sentinel-").tempdir()?;
            let (port, tls_port) = (free_port()?, free_port()?);
            let name = Self::MASTER;
            let mut conf = format!(
                "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {name} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {name} {}\nsentinel failover-timeout {name} 4000\n",
                dir.path().display(),
                cluster.servers[0].port(),
                down_after.as_millis(),
            );
            if let Some(password) = password {
                conf.push_str(&format!("sentinel auth-pass {name} {password}\n"));
            }
            for (key, value) in &cluster.settings {
                conf.push_str(&format!("{key} {value}\n"));
                match key.as_str() {
                    "requirepass" => conf.push_str(&format!("sentinel sentinel-pass {value}\n")),
                    "tls-cert-file" => conf.push_str(&format!("tls-port {tls_port}\n")),
                    _ => {}
                }
            }
            let file = dir.path().join("sentinel.conf");
            std::fs::write(&file, conf)?;
            let mut command = Command::new(program("redis-server", "redis-server")?);
            command.arg(&file).arg("--sentinel");
            let mut process = Process::spawn("redis-sentinel", command, &dir.path().join("log"))?;
            let answers = async || cluster.ask(port, &["PING"]).is_ok();
            process.ready("answer", START_TIMEOUT, answers).await?;
            cluster.sentinels.push(Sentinel { port, tls_port, process, _dir: dir });
        }
        let replicas = replicas.to_string();
        for port in cluster.ports() {
            let says = |field: &str| {
                let told = cluster.ask(port, &["SENTINEL", "MASTER", Self::MASTER]).unwrap_or_default();
                let mut lines = told.lines();
                lines.find(|line| *line == field).and_then(|_| lines.next().map(str::to_owned))
            };
            let complete = async || {
                says("num-other-sentinels").as_deref() == Some("2") && says("num-slaves") == Some(replicas.clone())
            };
            wait_until("the sentinels know each other and every replica", START_TIMEOUT, complete).await?;
        }
        let replicated = async || {
            let info = cluster.servers[0].execute(&["INFO", "replication"]).unwrap_or_default();
            info.matches("state=online").count() == cluster.servers.len() - 1
        };
        wait_until("the replicas are online", START_TIMEOUT, replicated).await?;
        Ok(cluster)
    }

    /// The ports of the sentinels.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port).collect()
    }

    /// Their ports for TLS, in the same order.
    #[must_use]
    pub fn tls_ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.tls_port).collect()
    }

    /// The URL as tooz takes it.
    #[must_use]
    pub fn url(&self) -> String {
        let ports = self.ports();
        let fallbacks: String = ports[1..].iter().map(|port| format!("&sentinel_fallback=127.0.0.1:{port}")).collect();
        let user = password(&self.servers[0].settings).map(|password| format!(":{password}@")).unwrap_or_default();
        let sentinel = password(&self.settings).map(|password| format!("&sentinel_password={password}"));
        let sentinel = sentinel.unwrap_or_default();
        format!("redis://{user}127.0.0.1:{}?sentinel={}{fallbacks}{sentinel}", ports[0], Self::MASTER)
    }

    /// The server that the first sentinel which answers takes for the master: its place in [`RedisSentinels::servers`].
    ///
    /// # Errors
    /// No sentinel answers.
    pub fn master(&self) -> Result<usize> {
        let ask = ["SENTINEL", "get-master-addr-by-name", Self::MASTER];
        let told = self.ports().into_iter().find_map(|port| self.ask(port, &ask).ok());
        let told = told.context("no sentinel answers")?;
        let port = told.lines().nth(1).context("the sentinels know no master")?.trim().to_owned();
        let found = self.servers.iter().position(|server| server.port().to_string() == port);
        found.with_context(|| format!("the master on port {port} is none of ours"))
    }

    /// Has the sentinels make a replica the master while the old one lives.
    ///
    /// # Errors
    /// The last sentinel does not agree.
    pub fn fail_over(&self) -> Result<()> {
        let last = self.sentinels.last().context("no sentinels")?;
        self.ask(last.port, &["SENTINEL", "FAILOVER", Self::MASTER]).map(drop)
    }

    /// Runs one command at a sentinel.
    fn ask(&self, port: u16, args: &[&str]) -> Result<String> {
        client(port, password(&self.settings), args)
    }

    /// Kills a sentinel.
    pub fn kill_sentinel(&mut self, which: usize) {
        self.sentinels[which].process.kill();
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}

fn password(settings: &[(String, String)]) -> Option<&str> {
    settings.iter().find(|(key, _)| key == "requirepass").map(|(_, password)| password.as_str())
}

async fn serve(dir: &Path, port: u16, settings: &[(String, String)]) -> Result<Process> {
    let mut command = Command::new(program("redis-server", "redis-server")?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(dir);
    command.arg("--unixsocket").arg(socket(dir));
    for (key, value) in settings {
        command.arg(format!("--{key}")).args(value.split(' '));
    }
    if settings.iter().any(|(key, _)| key == "cluster-enabled") {
        // Otherwise it is ten thousand above the other one, which may be anybody's.
        command.args(["--cluster-port", &free_port()?.to_string()]);
    }
    let mut process = Process::spawn("redis-server", command, &dir.join("log"))?;
    let secret = password(settings);
    process.ready("answer", START_TIMEOUT, async || client(port, secret, &["PING"]).is_ok()).await?;
    Ok(process)
}

fn client(port: u16, password: Option<&str>, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program("redis-cli", "redis-tools")?);
    // Fails instead of printing an error as if it were an answer.
    command.args(["-e", "-p", &port.to_string()]);
    if let Some(password) = password {
        command.args(["--no-auth-warning", "-a", password]);
    }
    let out = command.args(args).output()?;
    if !out.status.success() {
        bail!(
            "redis on port {port}: {}{}",
            String::from_utf8_lossy(&out.stdout).trim(),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
