//! Other processes that take locks: this program again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::coordinator;
use crate::locks::soon;

const CHILD: &str = "SCORIA_TEST_LOCK_CHILD";

/// A process that takes locks; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Runs [`child`] only: `hold NAME` or `hundred NAME`.
    pub(crate) fn start(url: &str, backend_url: &str, order: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "peers::child", "--nocapture"]).env(CHILD, format!("{url} {backend_url} {order}"));
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Waits until it prints one of these words.
    pub(crate) fn says(&mut self, words: &[&str]) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended without saying any of {words:?}");
            if words.contains(&line.trim()) {
                return line.trim().to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0], "child", words[1]).await;
    match words[2..] {
        ["hold", name] => {
            let held = soon(&coordinator, name).await;
            println!("\nheld");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            // Nothing may come before this, neither a timer nor an answer.
            println!("\n{}", if held.is_lost() { "lost" } else { "still held" });
            let released = held.release().await.is_ok();
            println!("\n{}", if released { "released" } else { "was lost" });
        }
        ["hundred", name] => {
            let mut held = Vec::new();
            for n in 0..100 {
                held.push(soon(&coordinator, &format!("{name}-{n}")).await);
            }
            println!("\nheld");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}
