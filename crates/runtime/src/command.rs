//! External commands with deadline, process group, bounded output and root helper.
//!
//! A command runs in a process group of its own, in the C locale, and the whole group is killed when its time is up, when
//! the operation is cancelled or when the future is dropped: what a stopped operation started stops with it. The parent's
//! own death kills nothing on purpose: `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, which on a runtime
//! with many threads is at any time. A child that outlives the process is kept harmless by the descriptor it inherited
//! ([`Command::keep_fd`]), whose lock lasts as long as the child does.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::Deadline;

/// How much of each stream is kept; of more, the tail.
const OUTPUT_LIMIT: usize = 1 << 20;
/// How long a killed command may take to be reaped, and an ended one to close its pipes.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// A command to run: no shell, arguments verbatim.
#[derive(Debug, Clone)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    as_root: bool,
    deadline: Option<Deadline>,
    limits: Option<(u64, u64)>,
    kept: Option<Arc<OwnedFd>>,
}

impl Command {
    /// A command without arguments.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), as_root: false, deadline: None, limits: None, kept: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Whether it runs through the root helper (not needed, and not used, when we are root).
    #[must_use]
    pub fn as_root(mut self, as_root: bool) -> Self {
        self.as_root = as_root;
        self
    }

    /// By when it has to be done, instead of the executor's time for one command.
    #[must_use]
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Limits its CPU time (seconds) and address space (bytes), by util-linux' `prlimit`.
    #[must_use]
    pub fn limits(mut self, cpu_seconds: u64, address_space_bytes: u64) -> Self {
        self.limits = Some((cpu_seconds, address_space_bytes));
        self
    }

    /// Hands a descriptor on to the child, so that a lock on its open file lives as long as the child does. It becomes the
    /// child's standard input, because `sudo` and rootwrap close everything above the three standard streams; so it is
    /// for commands that read none.
    #[must_use]
    pub fn keep_fd(mut self, fd: impl Into<Arc<OwnedFd>>) -> Self {
        self.kept = Some(fd.into());
        self
    }

    /// The whole line: limits, root helper, program, arguments.
    fn line(&self, helper: &[String]) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        if let Some((cpu, address_space)) = self.limits {
            line.extend(["prlimit".into(), format!("--cpu={cpu}").into(), format!("--as={address_space}").into()]);
        }
        if self.as_root {
            line.extend(helper.iter().map(OsString::from));
        }
        line.push(self.program.clone());
        line.extend(self.args.iter().cloned());
        line
    }
}

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, the last MiB of it.
    pub stdout: Vec<u8>,
    /// Standard error, the last MiB of it.
    pub stderr: Vec<u8>,
}

/// A command that failed (`oslo_concurrency.processutils: ProcessExecutionError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("Command not found, its package is not installed: {command}")]
    NotFound {
        /// The command line.
        command: String,
    },
    /// Its time was up; it was killed.
    #[error("Command did not end in time and was killed: {command}\nStderr: {stderr:?}")]
    Timeout {
        /// The command line.
        command: String,
        /// What it had written to standard error.
        stderr: String,
    },
    /// The operation was cancelled; it was killed, or not even started.
    #[error("Command was cancelled: {command}")]
    Cancelled {
        /// The command line.
        command: String,
    },
    /// It ended with another code than 0.
    #[error(
        "Unexpected error while running command.\nCommand: {command}\nExit code: {code}\nStdout: {stdout:?}\nStderr: {stderr:?}"
    )]
    Exit {
        /// The command line.
        command: String,
        /// The code.
        code: i32,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// A signal ended it.
    #[error("Command was ended by signal {signal}: {command}\nStdout: {stdout:?}\nStderr: {stderr:?}")]
    Signal {
        /// The command line.
        command: String,
        /// The signal.
        signal: i32,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// It could not be started or followed.
    #[error("Command could not be run: {command}: {error}")]
    Io {
        /// The command line.
        command: String,
        /// The system's words.
        error: String,
    },
}

impl CommandError {
    /// What the command wrote to standard error.
    #[must_use]
    pub fn stderr(&self) -> &str {
        match self {
            Self::Timeout { stderr, .. } | Self::Exit { stderr, .. } | Self::Signal { stderr, .. } => stderr,
            Self::NotFound { .. } | Self::Cancelled { .. } | Self::Io { .. } => "",
        }
    }
}

/// Why a command was not followed to its end.
enum Stopped {
    Cancelled,
    Timeout,
    Io(std::io::Error),
}

/// Runs commands.
#[derive(Debug, Clone)]
pub struct Executor {
    /// What goes before a command that runs as root; empty when we are root.
    helper: Vec<String>,
    timeout: Duration,
}

impl Executor {
    /// An executor with a root helper (such as `sudo cinder-rootwrap /etc/cinder/rootwrap.conf`), and the time one command
    /// may take when it has no deadline of its own. Without a helper, or when we are root, all commands run as ourselves.
    #[must_use]
    pub fn new(root_helper: Option<Vec<String>>, timeout: Duration) -> Self {
        let helper = if geteuid().is_root() { Vec::new() } else { root_helper.unwrap_or_default() };
        Self { helper, timeout }
    }

    /// Whether a command that runs as root may do more than we ourselves.
    #[must_use]
    pub fn has_root_helper(&self) -> bool {
        !self.helper.is_empty()
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`CommandError`] when it cannot be started, ends with anything but 0, or is killed: at its deadline or when `cancel`
    /// is. By then the process group has been killed and its leader reaped, unless the helper made it another user's and
    /// that user's processes resist.
    pub async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, CommandError> {
        let line = command.line(&self.helper);
        let text = || line.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if cancel.is_cancelled() {
            return Err(CommandError::Cancelled { command: text() });
        }
        let deadline = command.deadline.unwrap_or_else(|| Deadline::after(self.timeout));
        let (mut group, mut stdout, mut stderr) =
            start(&line, command.kept.as_deref()).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => CommandError::NotFound { command: text() },
                _ => CommandError::Io { command: text(), error: error.to_string() },
            })?;
        let mut output = Output { stdout: Vec::new(), stderr: Vec::new() };
        let ended = {
            let follow = group.follow(&mut stdout, &mut stderr, &mut output);
            tokio::select! {
                biased;
                ended = follow => ended.map_err(Stopped::Io),
                () = cancel.cancelled() => Err(Stopped::Cancelled),
                () = deadline.wait() => Err(Stopped::Timeout),
            }
        };
        let status = match ended {
            Ok(status) if status.success() => return Ok(output),
            Ok(status) => status,
            Err(why) => {
                self.end(&mut group).await;
                return Err(match why {
                    Stopped::Cancelled => CommandError::Cancelled { command: text() },
                    Stopped::Timeout => CommandError::Timeout { command: text(), stderr: lossy(&output.stderr) },
                    Stopped::Io(error) => CommandError::Io { command: text(), error: error.to_string() },
                });
            }
        };
        let (command, stdout, stderr) = (text(), lossy(&output.stdout), lossy(&output.stderr));
        Err(match status.code() {
            Some(code) => CommandError::Exit { command, code, stdout, stderr },
            None => CommandError::Signal { command, signal: status.signal().unwrap_or_default(), stdout, stderr },
        })
    }

    /// Kills a group and waits for its leader.
    async fn end(&self, group: &mut Group) {
        if group.kill() == Err(Errno::EPERM)
            && let Some((program, rest)) = self.helper.split_first()
        {
            // The helper made the child another user's: only the helper may kill it.
            let kill = ["kill".to_owned(), "-KILL".to_owned(), format!("-{}", group.id)];
            let mut killer = tokio::process::Command::new(program);
            killer.args(rest).args(kill).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            drop(tokio::time::timeout(LAST_BREATH, killer.status()).await);
        }
        match tokio::time::timeout(LAST_BREATH, group.child.wait()).await {
            Ok(_) => group.reaped = true,
            Err(_) => tracing::warn!(pid = group.id.as_raw(), "a killed command does not end"),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

type Pipe = Box<dyn AsyncRead + Send + Unpin>;

fn start(line: &[OsString], kept: Option<&OwnedFd>) -> std::io::Result<(Group, Pipe, Pipe)> {
    let (program, args) = line.split_first().expect("a command line begins with its program");
    let stdin = match kept {
        Some(fd) => Stdio::from(fd.try_clone()?),
        None => Stdio::null(),
    };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let missing = || std::io::Error::other("the child has no pipes");
    let stdout = Box::new(child.stdout.take().ok_or_else(missing)?);
    let stderr = Box::new(child.stderr.take().ok_or_else(missing)?);
    let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(missing)?;
    Ok((Group { id: Pid::from_raw(id), child, reaped: false }, stdout, stderr))
}

/// A process group with its leader. Dropping it kills the group (and tokio reaps the leader).
struct Group {
    id: Pid,
    child: Child,
    reaped: bool,
}

impl Group {
    /// Kills all of the group. Only while the leader is not reaped, or a member known to live, is the id surely ours.
    fn kill(&self) -> nix::Result<()> {
        match killpg(self.id, Signal::SIGKILL) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    async fn follow(
        &mut self,
        stdout: &mut Pipe,
        stderr: &mut Pipe,
        output: &mut Output,
    ) -> std::io::Result<std::process::ExitStatus> {
        let pipes =
            async { tokio::join!(keep_tail(stdout, &mut output.stdout), keep_tail(stderr, &mut output.stderr)) };
        tokio::pin!(pipes);
        let status = tokio::select! {
            status = self.child.wait() => {
                self.reaped = true;
                // A grandchild that still holds a pipe belongs to the group: the id is in use, so it is ours to kill.
                if tokio::time::timeout(LAST_BREATH, &mut pipes).await.is_err() {
                    let _ = self.kill();
                }
                status?
            }
            _ = &mut pipes => {
                let status = self.child.wait().await?;
                self.reaped = true;
                status
            }
        };
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill();
        }
    }
}

/// Reads to the end, keeping the last [`OUTPUT_LIMIT`] bytes.
async fn keep_tail(pipe: &mut Pipe, kept: &mut Vec<u8>) {
    let mut chunk = vec![0; 8192];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => kept.extend_from_slice(&chunk[..read]),
        }
        if kept.len() > 2 * OUTPUT_LIMIT {
            kept.drain(..kept.len() - OUTPUT_LIMIT);
        }
    }
    let surplus = kept.len().saturating_sub(OUTPUT_LIMIT);
    kept.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::signal::kill;

    use super::*;

    fn executor() -> Executor {
        Executor { helper: Vec::new(), timeout: Duration::from_secs(20) }
    }

    fn shell(script: &str) -> Command {
        Command::new("sh").arg("-c").arg(script)
    }

    async fn run(command: &Command) -> Result<Output, CommandError> {
        executor().run(command, &CancellationToken::new()).await
    }

    /// Waits for the file `path` to hold a pid.
    async fn pid_in(path: &std::path::Path) -> Pid {
        for _ in 0..200 {
            if let Some(pid) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
                return Pid::from_raw(pid);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no pid in {}", path.display());
    }

    /// Whether a process is gone, or dead and merely not reaped by whoever adopted it.
    async fn ends(pid: Pid) -> bool {
        for _ in 0..200 {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if kill(pid, None).is_err() || state.contains(") Z ") {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("scoria-command-{name}-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        path
    }

    #[tokio::test]
    async fn a_failure_tells_command_code_and_both_streams() {
        let error = run(&shell("echo out; echo err >&2; exit 3")).await.unwrap_err();
        assert!(matches!(&error, CommandError::Exit { code: 3, stdout, .. } if stdout == "out\n"), "{error:?}");
        assert_eq!(error.stderr(), "err\n");
        let text = error.to_string();
        assert!(text.contains("Command: sh -c echo out") && text.contains("Exit code: 3"), "{text}");
        let error = run(&shell("kill -TERM $$")).await.unwrap_err();
        assert!(matches!(error, CommandError::Signal { signal: 15, .. }));
        let error = run(&Command::new("scoria-no-such-program")).await.unwrap_err();
        assert!(matches!(error, CommandError::NotFound { .. }));
    }

    #[tokio::test]
    async fn the_locale_is_c_and_nothing_is_on_standard_input() {
        let output = run(&shell("cat; echo $LC_ALL")).await.unwrap();
        assert_eq!(output.stdout, b"C\n");
    }

    #[tokio::test]
    async fn a_deadline_kills_the_whole_group() {
        let file = scratch("deadline");
        let command = shell(&format!("sleep 600 & echo $! > {}; wait", file.display()));
        let began = Instant::now();
        let error = run(&command.deadline(Deadline::after(Duration::from_millis(300)))).await.unwrap_err();
        assert!(matches!(error, CommandError::Timeout { .. }));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(ends(pid_in(&file).await).await, "the grandchild lives on");
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn cancelling_and_dropping_kill_the_group_too() {
        for dropped in [false, true] {
            let file = scratch(if dropped { "dropped" } else { "cancelled" });
            let command = shell(&format!("sleep 600 & echo $! > {}; wait", file.display()));
            let cancel = CancellationToken::new();
            let executor = executor();
            let mut running = Box::pin(executor.run(&command, &cancel));
            let pid = tokio::select! {
                pid = pid_in(&file) => pid,
                ended = &mut running => panic!("ended early: {ended:?}"),
            };
            if dropped {
                drop(running);
            } else {
                cancel.cancel();
                assert!(matches!(running.await.unwrap_err(), CommandError::Cancelled { .. }));
            }
            assert!(ends(pid).await, "the grandchild lives on");
            std::fs::remove_file(file).unwrap();
        }
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let error = executor().run(&shell("true"), &cancelled).await.unwrap_err();
        assert!(matches!(error, CommandError::Cancelled { .. }));
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_pipes_open_delays_nothing_for_long() {
        let began = Instant::now();
        let output = run(&shell("sleep 600 & echo done")).await.unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn of_a_flood_the_tail_is_kept() {
        let output = run(&shell("head -c 5000000 /dev/zero | tr '\\0' x; echo end")).await.unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_LIMIT);
        assert!(output.stdout.ends_with(b"xend\n"));
    }

    #[tokio::test]
    async fn limits_reach_the_child() {
        let output = run(&shell("ulimit -t; ulimit -v").limits(7, 1 << 30)).await.unwrap();
        assert_eq!(output.stdout, b"7\n1048576\n");
    }

    #[tokio::test]
    async fn the_root_helper_goes_before_commands_that_want_it_only() {
        let executor = Executor { helper: vec!["env".into(), "HELPED=yes".into()], timeout: Duration::from_secs(5) };
        let run = async |root| {
            let command = shell("echo ${HELPED:-no}").as_root(root);
            executor.run(&command, &CancellationToken::new()).await.unwrap().stdout
        };
        assert_eq!(run(true).await, b"yes\n");
        assert_eq!(run(false).await, b"no\n");
    }

    #[tokio::test]
    async fn a_kept_descriptor_is_the_same_open_file_in_the_child() {
        let path = scratch("kept");
        std::fs::write(&path, "").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let kept = OwnedFd::from(file);
        let output = run(&Command::new("readlink").arg("/proc/self/fd/0").keep_fd(kept)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), path.to_str().unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
