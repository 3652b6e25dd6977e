//! Other processes that take locks: tooz, and this program again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scoria_coordination::Coordinator;
use scoria_runtime::Tasks;
use scoria_testkit::PythonPeer;

use crate::{coordinator, soon};

const CHILD: &str = "SCORIA_TEST_LOCK_CHILD";

/// A process that takes locks; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// A tooz process.
    pub(crate) fn python(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(PythonPeer::find().unwrap().bin("python"));
        command.args(["-W", "ignore", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer.py"), url]).args(arguments);
        Self::start(command)
    }

    /// A process of ours: this test program again, running [`child`] only.
    pub(crate) fn ours(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "peers::child", "--nocapture"]);
        command.env(CHILD, format!("{url} {}", arguments.join(" ")));
        Self::start(command)
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

    pub(crate) fn let_go(&mut self) {
        self.tell();
        self.says(&["released"]);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn succeeds(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Peer::ours`] runs: `hold NAME` until a line comes, `hundred NAME`, or `count NAME FILE ROUNDS` with four tasks. Without
/// the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0]).await;
    match words[1..] {
        ["hold", name] => {
            println!("\nwaiting");
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
        ["count", name, file, rounds] => {
            let rounds: u32 = rounds.parse().unwrap();
            let tasks = Tasks::new();
            let one = |_| tasks.spawn("count", count(coordinator.clone(), name.to_owned(), file.into(), rounds));
            for task in (0..4).map(one).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}

/// Counts in a file under the lock.
pub(crate) async fn count(coordinator: Coordinator, name: String, file: std::path::PathBuf, rounds: u32) {
    for _ in 0..rounds {
        let held = soon(&coordinator, &name).await;
        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        tokio::task::yield_now().await;
        std::fs::write(&file, (count + 1).to_string()).unwrap();
        held.release().await.unwrap();
        // tooz looks once per second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
