//! A child process that does not outlive its test.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long a server has to come up. Start-up takes a few seconds; the machine may be shared.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A child in a process group of its own, its output in a log file.
///
/// Dropping it stops the whole group. If the test process itself is killed, a watchdog does: a shell that waits for the end of
/// a pipe whose other end only the test process holds. (The kernel's parent-death signal would come when the *thread*
/// that started the child ends, which in a runtime with a thread pool is any time.)
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    watchdog: Child,
    log: PathBuf,
    on_drop: Signal,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// The program or the watchdog cannot be started, the log cannot be opened.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -s KILL -- -$1", "watchdog", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the watchdog")?;
        Ok(Self { name: name.into(), child, watchdog, log: log.into(), on_drop: Signal::SIGKILL, exited: None })
    }

    /// Asks with `signal` first when dropped, before the group is killed.
    #[must_use]
    pub fn stopped_with(mut self, signal: Signal) -> Self {
        self.on_drop = signal;
        self
    }

    /// The process id, which is also the id of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal to the process alone, not to its children.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status() {
            bail!("{} has ended ({status}), {signal} not sent", self.name);
        }
        kill(self.group(), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Sends a signal to the process and all its children.
    ///
    /// # Errors
    /// The process has ended already.
    pub fn signal_group(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status() {
            bail!("{} has ended ({status}), {signal} not sent", self.name);
        }
        killpg(self.group(), signal).with_context(|| format!("{signal} to the group of {}", self.name))
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)));
        }
        self.exited
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} still runs after {timeout:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the process and all its children (SIGKILL): a crash.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// The last lines of its log, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("--- the end of {}'s log\n{tail}\n---", self.name)
    }

    /// Waits until `check` holds.
    ///
    /// # Errors
    /// The process ends or the time is up before; the error has the end of the log.
    pub async fn ready(&mut self, what: &str, timeout: Duration, mut check: impl AsyncFnMut() -> bool) -> Result<()> {
        let end = Instant::now() + timeout;
        while !check().await {
            if let Some(status) = self.exit_status() {
                bail!("{} ended ({status}) before {what}\n{}", self.name, self.log_tail());
            }
            if Instant::now() >= end {
                bail!("{}: no {what} within {timeout:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn end(&mut self, first: Signal) {
        if self.exit_status().is_none() && first != Signal::SIGKILL {
            let _ = kill(self.group(), first);
            let end = Instant::now() + Duration::from_secs(10);
            while self.exit_status().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Once the leader has been waited for and its children are gone too, the group's id may belong to somebody else.
        // The watchdog, alive since the start, would kill the same group: as long as any member lives the id is not reused.
        let _ = killpg(self.group(), Signal::SIGKILL);
        if self.exit_status().is_none() {
            self.exited = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.on_drop);
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// Waits until `check` holds, looking every 50 ms.
///
/// # Errors
/// It does not within `timeout`; the error says `what`.
pub async fn wait_until(what: &str, timeout: Duration, mut check: impl AsyncFnMut() -> bool) -> Result<()> {
    let end = Instant::now() + timeout;
    while !check().await {
        if Instant::now() >= end {
            bail!("not within {timeout:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn alive(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[tokio::test]
    async fn dropping_stops_the_children_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.tmp; mv {0}.tmp {0}; wait", pid_file.display());
        let mut process = Process::spawn("parent", shell(&script), &dir.path().join("log")).unwrap();
        process.ready("pid file", START_TIMEOUT, async || pid_file.exists()).await.unwrap();
        let grandchild: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert!(alive(grandchild));
        drop(process);
        wait_until("the grandchild is gone", START_TIMEOUT, async || !alive(grandchild)).await.unwrap();
    }

    #[tokio::test]
    async fn the_watchdog_stops_it_when_the_test_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::spawn("sleeper", shell("sleep 1000"), &dir.path().join("log")).unwrap();
        // What the kernel does to the pipe when the test process dies.
        drop(process.watchdog.stdin.take());
        let status = process.wait(START_TIMEOUT).await.unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_server_that_ends_before_it_is_ready_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            Process::spawn("broken", shell("echo no such option; exit 3"), &dir.path().join("log")).unwrap();
        let error = process.ready("port", START_TIMEOUT, async || false).await.unwrap_err().to_string();
        assert!(error.contains("broken ended") && error.contains("no such option"), "{error}");
    }
}
