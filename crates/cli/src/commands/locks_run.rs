//! A command under locks: it ends before a lock can be somebody else's, or at once when a lock is lost.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use scoria_conf::Config;
use scoria_coordination::{Coordinator, LockRequest, LockSet, Owner, WaitPolicy};
use scoria_runtime::Deadline;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use super::guard::Guard;
use super::locks_at::{self, check_name, in_one_process, in_time};
use super::terminal::Terminal;
use crate::exit::{Exit, Failure, Result};
use crate::output::Progress;

/// How long killed processes may take to go: one that is stuck in the kernel goes when the kernel lets it.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// How often the clock is asked whether a lock is lost: nobody else tells a process that was stopped.
const LOOK: Duration = Duration::from_millis(50);

/// The locks to run under.
pub(super) struct Under {
    /// Without prefix.
    pub(super) names: Vec<String>,
    pub(super) shared: bool,
    /// `None`: for ever.
    pub(super) wait: Option<Duration>,
}

pub(super) async fn run(config: &Config, under: Under, command: Vec<OsString>) -> Result {
    under.names.iter().try_for_each(|name| check_name(name))?;
    if in_one_process(config) {
        return Err(Failure::failed(
            "[coordination] backend_url = memory:// keeps locks within one process, a command would run under none: \
             configure a lock service that processes share, such as file:///var/lib/cinder",
        ));
    }
    let mut signals = Signals::new()?;
    let locks = locks_at::service(config).await?;
    let done = with_lock(&locks, &under, command, &mut signals).await;
    locks.close().await;
    done
}

async fn with_lock(locks: &Coordinator, under: &Under, command: Vec<OsString>, signals: &mut Signals) -> Result {
    let wait = match under.wait {
        Some(limit) if limit.is_zero() => WaitPolicy::No,
        Some(limit) => WaitPolicy::Until(Deadline::after(limit)),
        None => WaitPolicy::Until(Deadline::NEVER),
    };
    let request = under.names.iter().fold(LockRequest::new(owner(&command)).wait(wait), |request, name| {
        if under.shared { request.shared(name) } else { request.exclusive(name) }
    });
    let mut guard = Guard::start()
        .map_err(|error| Failure::failed(format!("the command is not run, as nothing would guard it: {error}")))?;
    let progress = Progress::start(format!("waiting for {}", quoted(under.names.iter().map(String::as_str))));
    let set = tokio::select! {
        set = locks.acquire(request) => set.map_err(|error| in_time(error, "--wait"))?,
        signal = signals.next() => return Ok(ended_by(signal as i32)),
    };
    drop(progress);
    let locked = quoted(set.names());
    if let Some(token) = set.token() {
        eprintln!("scoria: held: {locked}, fencing token {token}");
    }
    if set.is_lost() {
        return Err(Failure::new(Exit::LockLost, format!("{locked}: lost before the command was started")));
    }

    let ended = match start(&set, &mut guard, command) {
        Ok(mut running) => running.follow(&set, &mut guard, signals).await,
        Err((code, why)) => {
            drop(set.release().await);
            return Err(Failure::new(Exit::Of(code), why));
        }
    };
    guard.dismiss();
    // Giving it back finds out whether it was ours to the end, and if not, why.
    let released = set.release().await;
    match (ended, released) {
        (Ended::Lost, released) => {
            let why = released.err().map_or_else(|| format!("{locked}: lost"), |error| error.to_string());
            Err(Failure::new(Exit::LockLost, format!("{why}; the command was killed with its process group")))
        }
        (Ended::By(_), Err(error @ scoria_coordination::Error::Lost { .. })) => {
            Err(Failure::new(Exit::LockLost, format!("{error}; the command had ended when that was noticed")))
        }
        (Ended::By(status), released) => {
            if let Err(error) = released {
                eprintln!("scoria: {error}; the lock service gives the lock back by itself");
            }
            Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or_else(|| ended_by(status.signal().unwrap_or_default()), Exit::Of))
        }
        (Ended::Unknown(error), _) => Err(Failure::failed(format!("the command cannot be followed: {error}"))),
    }
}

/// What lists of holders say of us: enough to find the process.
fn owner(command: &[OsString]) -> Owner {
    let program = command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let resource = Some(format!("{program} (pid {})", std::process::id()));
    Owner { operation: "locks run".to_owned(), resource, ..Owner::default() }
}

/// `lock 'a'`, or `locks 'a', 'b'`.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    format!("lock{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// As shells report it.
pub(super) fn ended_by(signal: i32) -> Exit {
    Exit::Of(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// How the command ended.
enum Ended {
    By(ExitStatus),
    /// Killed, because the lock was lost.
    Lost,
    Unknown(std::io::Error),
}

/// The command and its process group.
struct Running {
    child: Child,
    group: Pid,
    _terminal: Option<Terminal>,
}

/// Starts the command in a process group of its own; exit code and reason, as shells have them, when it cannot.
fn start(set: &LockSet, guard: &mut Guard, command: Vec<OsString>) -> std::result::Result<Running, (u8, String)> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let shown = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    let names: Vec<_> = set.names().collect();
    command.args(words).env("SCORIA_LOCK_NAME", names.join(" ")).env_remove("SCORIA_FENCING_TOKEN");
    if let Some(token) = set.token() {
        command.env("SCORIA_FENCING_TOKEN", token.to_string());
    }
    let child = command.process_group(0).kill_on_drop(true).spawn().map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        (code, format!("{shown}: {error}"))
    })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).expect("a child that nobody has waited for has an id");
    let group = Pid::from_raw(id);
    let running = Running { child, group, _terminal: Terminal::hand_to(group) };
    guard.watch(group).map_err(|error| {
        running.kill();
        (1, format!("{shown} was ended at once, as nothing would guard it: {error}"))
    })?;
    Ok(running)
}

impl Running {
    /// Until the command has ended; signals are passed on to its group.
    async fn follow(&mut self, set: &LockSet, guard: &mut Guard, signals: &mut Signals) -> Ended {
        loop {
            tokio::select! {
                biased;
                () = lost(set, guard) => {
                    self.kill();
                    let ended = self.child.wait().await;
                    self.emptied().await;
                    return ended.map_or_else(Ended::Unknown, |_| Ended::Lost);
                }
                ended = self.child.wait() => {
                    return ended.map_or_else(
                        |error| {
                            self.kill();
                            Ended::Unknown(error)
                        },
                        Ended::By,
                    );
                }
                signal = signals.next() => {
                    let _ = killpg(self.group, signal);
                }
            }
        }
    }

    /// At once and without asking: somebody else may hold the lock already.
    fn kill(&self) {
        // It fails only when nobody is left in the group.
        let _ = killpg(self.group, Signal::SIGKILL);
    }

    /// Until nobody is left in a killed group, or for as long as [`LAST_BREATH`].
    async fn emptied(&self) {
        let limit = Deadline::after(LAST_BREATH);
        while killpg(self.group, None).is_ok() && !limit.has_passed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Until a lock is or may be lost: the lock tells, or the clock does. Until then the guard is told that all is well.
async fn lost(set: &LockSet, guard: &mut Guard) {
    let told = set.lost();
    while !set.is_lost() {
        guard.beat();
        tokio::select! {
            () = told.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The signals that are passed on.
pub(super) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        let listen = |signal: Signal| {
            let stream = unix::signal(SignalKind::from_raw(signal as i32));
            stream.map(|stream| (signal, stream)).map_err(|error| Failure::failed(format!("no signals: {error}")))
        };
        let passed_on = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        Ok(Self { streams: passed_on.into_iter().map(listen).collect::<Result<_>>()? })
    }

    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let arrived =
                |(signal, stream): &mut (Signal, unix::Signal)| stream.poll_recv(context).is_ready().then_some(*signal);
            self.streams.iter_mut().find_map(arrived).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
