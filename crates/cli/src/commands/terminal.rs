//! The terminal goes to the command while it runs: it is in a process group of its own, and one in the background may not
//! read from it.

use std::io::{self, IsTerminal};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Whoever has this has given the terminal away, and takes it back when it is dropped.
pub(super) struct Terminal {
    ours: Pid,
}

impl Terminal {
    /// Hands the terminal to a group; `None` when there is none, or when it was not ours to give.
    pub(super) fn hand_to(group: Pid) -> Option<Self> {
        let stdin = io::stdin();
        let ours = getpgrp();
        if !stdin.is_terminal() || tcgetpgrp(&stdin) != Ok(ours) {
            return None;
        }
        tcsetpgrp(&stdin, group).ok()?;
        // It may have tried to read before, and been stopped for it.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Self { ours })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Who is in the background is stopped for taking the terminal, unless it does not listen.
        let mut stopped = SigSet::empty();
        stopped.add(Signal::SIGTTOU);
        if stopped.thread_block().is_ok() {
            // It fails only when the terminal is gone.
            let _ = tcsetpgrp(io::stdin(), self.ours);
            let _ = stopped.thread_unblock();
        }
    }
}
