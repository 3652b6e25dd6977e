//! Our own `scoria-volume`, as a process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::process::START_TIMEOUT;
use crate::site::{Setting, Site};
use crate::{Process, free_port, repository};

/// A running `scoria-volume` on a site.
///
/// A test that ends without saying otherwise fails if the daemon logged an ERROR line: see [`Daemon::allow_errors`].
#[derive(Debug)]
pub struct Daemon {
    name: String,
    settings: Vec<(String, String, String)>,
    admin: u16,
    process: Process,
    errors_allowed: bool,
}

impl Daemon {
    /// Starts it with options over those of the site and waits until it says that it is healthy. `name` tells it from the test's
    /// other daemons, and is its `host` unless the options have another one.
    ///
    /// # Errors
    /// The binary is not built, or it is not healthy in time (the error has its log).
    pub async fn start(site: &Site, name: &str, settings: &[Setting<'_>]) -> Result<Self> {
        let mut daemon = Self::start_unready(site, name, settings)?;
        daemon.ready().await?;
        Ok(daemon)
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn start_unready(site: &Site, name: &str, settings: &[Setting]) -> Result<Self> {
        let admin = free_port()?;
        let process = spawn(site, name, settings, admin)?;
        let settings = settings.iter().map(|(g, n, v)| ((*g).into(), (*n).into(), (*v).into())).collect();
        Ok(Self { name: name.into(), settings, admin, process, errors_allowed: false })
    }

    /// Starts it again after it ended or was killed, with the same configuration.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub async fn restart(&mut self, site: &Site) -> Result<()> {
        self.process.kill();
        let settings: Vec<_> = self.settings.iter().map(|(g, n, v)| (g.as_str(), n.as_str(), v.as_str())).collect();
        self.process = spawn(site, &self.name, &settings, self.admin)?;
        self.ready().await
    }

    /// Waits until its health is good.
    ///
    /// # Errors
    /// It ends or is not healthy in time (the error has its log).
    pub async fn ready(&mut self) -> Result<()> {
        let url = self.admin_url("/healthcheck");
        let healthy = async || match reqwest::get(&url).await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        };
        self.process.ready("good health", START_TIMEOUT, healthy).await
    }

    /// A URL of its administrative interface, e.g. of `/metrics`.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it and its children (SIGKILL): a crash.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it in good order (SIGTERM).
    ///
    /// # Errors
    /// It does not end in a minute, or ends with an error.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(60)).await?;
        if !status.success() {
            bail!("scoria-volume {} ended with {status}\n{}", self.name, self.process.log_tail());
        }
        Ok(())
    }

    /// Its log so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.process.log())?).into_owned())
    }

    /// The test provokes errors: ERROR lines in the log are expected.
    pub fn allow_errors(&mut self) {
        self.errors_allowed = true;
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: the process is gone")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed: its reader will want to know what the daemon had to say.
            eprintln!("{}", self.process.log_tail());
            return;
        }
        let log = self.log().unwrap_or_default();
        let errors: Vec<_> =
            log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked at")).collect();
        if !errors.is_empty() && !self.errors_allowed {
            panic!("scoria-volume {} logged errors that the test did not provoke:\n{}", self.name, errors.join("\n"));
        }
    }
}

/// The program itself, for tests that start it in their own way. Cargo puts binaries beside the directory of the running test.
///
/// # Errors
/// It is not built.
pub fn scoria_volume() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("SCORIA_VOLUME_BIN") {
        return Ok(file.into());
    }
    let test = std::env::current_exe()?;
    let beside = test.ancestors().map(|dir| dir.join("scoria-volume")).find(|file| file.is_file());
    let built = || Some(repository().join("target/debug/scoria-volume")).filter(|file| file.is_file());
    beside.or_else(built).context("scoria-volume is not built: cargo build --workspace --bins")
}

fn spawn(site: &Site, name: &str, settings: &[Setting], admin: u16) -> Result<Process> {
    let port = admin.to_string();
    let own =
        [("DEFAULT", "host", name), ("scoria", "admin_listen", "127.0.0.1"), ("scoria", "admin_listen_port", &port)];
    let conf = site.conf(&format!("scoria-{name}"), &[&own, settings].concat())?;
    let mut command = site.command(&scoria_volume()?)?;
    command.arg("--config-file").arg(conf).current_dir(site.dir());
    Process::spawn(&format!("scoria-volume {name}"), command, &site.dir().join(format!("scoria-{name}.log")))
}
