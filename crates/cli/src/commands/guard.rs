//! A command under a lock does not run on without the lock's holder, which is us: when we are killed or stopped, the lock
//! service gives our lock to others, and nobody would be there to end the command.
//!
//! So a second process of ours hears from us again and again. When it hears nothing it stops the command's process group until we
//! are back, and when the kernel tells it that we have gone without a word, it kills the group.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::exit::{Exit, Failure, Result};

/// Arguments that make a guard out of this program.
const AS_GUARD: [&str; 2] = ["locks", "guard"];
/// What the guard is told at the end.
const ALL_IS_WELL: &str = "done";
/// How long it may hear nothing: much longer than it takes us to say something, and shorter than any lock service takes to give the
/// lock of somebody silent away.
const SILENCE: Duration = Duration::from_secs(1);

/// The guard, from our side. Dropping it counts as our death.
pub(super) struct Guard {
    process: Child,
    line: UnixStream,
}

impl Guard {
    /// Starts it, out of reach of the terminal's signals.
    pub(super) fn start() -> io::Result<Self> {
        let (line, its_end) = UnixStream::pair()?;
        // One that has been stopped itself must not stop us.
        line.set_nonblocking(true)?;
        let process = Command::new(std::env::current_exe()?)
            .args(AS_GUARD)
            .stdin(OwnedFd::from(its_end))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { process, line })
    }

    /// Tells it whom to stop and to kill.
    pub(super) fn watch(&mut self, group: Pid) -> io::Result<()> {
        writeln!(self.line, "{group}")
    }

    /// Tells it that the lock is held still. A guard that somebody has killed is done without.
    pub(super) fn beat(&mut self) {
        let _ = self.line.write_all(b"\n");
    }

    /// The command has ended.
    pub(super) fn dismiss(mut self) {
        let _ = writeln!(self.line, "{ALL_IS_WELL}");
        drop(self.line);
        let _ = self.process.wait();
    }
}

/// The guard itself.
pub(super) fn run() -> Result {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(io::stdin()).lines().map_while(io::Result::ok);
        for line in lines {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    // No command was started.
    let Ok(group) = told.recv().map(|group| group.parse().map(Pid::from_raw)) else { return Ok(Exit::Done) };
    let group = group.map_err(|_| Failure::usage("locks guard is for scoria itself: use locks run"))?;
    // Each fails only when nobody is left in the group.
    let send = |signal| {
        let _ = killpg(group, signal);
    };
    let mut stopped = false;
    loop {
        match told.recv_timeout(SILENCE) {
            Ok(word) if word == ALL_IS_WELL => return Ok(Exit::Done),
            Ok(_) if stopped => {
                send(Signal::SIGCONT);
                stopped = false;
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                send(Signal::SIGSTOP);
                stopped = true;
            }
            Err(RecvTimeoutError::Disconnected) => {
                send(Signal::SIGKILL);
                return Err(Failure::new(
                    Exit::LockLost,
                    "scoria locks run was killed; so was the command under its lock",
                ));
            }
        }
    }
}
