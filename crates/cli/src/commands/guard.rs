//! A command under a lock does not outlive the lock's holder: when we are killed, the lock service gives our lock to others,
//! and nobody would be there to end the command.
//!
//! So a second process of ours reads from a pipe whose only writer we are. The kernel closes it however we end; unless we
//! have said before that all is well, the guard kills the command's process group then.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::exit::{Exit, Failure, Result};

/// Arguments that make a guard out of this program.
const AS_GUARD: [&str; 2] = ["locks", "guard"];
/// What the guard is told at the end.
const ALL_IS_WELL: &[u8] = b"done\n";

/// The guard, from our side. Dropping it counts as our death.
pub(super) struct Guard {
    process: Child,
    line: ChildStdin,
}

impl Guard {
    /// Starts it, out of reach of the terminal's signals.
    pub(super) fn start() -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(AS_GUARD)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let line = process.stdin.take().expect("its standard input is a pipe");
        Ok(Self { process, line })
    }

    /// Tells it whom to kill.
    pub(super) fn watch(&mut self, group: Pid) -> io::Result<()> {
        writeln!(self.line, "{group}")
    }

    /// The command has ended.
    pub(super) fn dismiss(mut self) {
        // A guard that somebody has killed has nothing to do any more.
        let _ = self.line.write_all(ALL_IS_WELL);
        drop(self.line);
        let _ = self.process.wait();
    }
}

/// The guard itself.
pub(super) fn run() -> Result {
    let mut line = BufReader::new(io::stdin());
    let mut group = String::new();
    let mut rest = Vec::new();
    let read = line.read_line(&mut group).and_then(|_| line.read_to_end(&mut rest));
    if rest == ALL_IS_WELL || (read.is_ok() && group.is_empty()) {
        return Ok(Exit::Done);
    }
    let group = group.trim().parse().map_err(|_| Failure::usage("locks guard is for scoria itself: use locks run"))?;
    // It fails only when nobody is left in the group.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    Err(Failure::new(Exit::LockLost, "scoria locks run was killed; so was the command under its lock"))
}
