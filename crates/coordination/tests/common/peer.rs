//! Other processes that take locks: Python's with tooz, and this test program again.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scoria_testkit::PythonPeer;

/// Tells a test program that it is to act as a peer: `URL COMMAND…`.
pub(crate) const CHILD: &str = "SCORIA_TEST_LOCK_CHILD";

/// A process that takes locks; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// A tooz process.
    pub(crate) fn python(url: &str, arguments: &[&str]) -> Self {
        Self::script("peer.py", url, arguments)
    }

    /// A Python script of this directory.
    pub(crate) fn script(file: &str, url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(PythonPeer::find().unwrap().bin("python"));
        let script = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
        command.args(["-B", "-W", "ignore", &script, url]).args(arguments);
        // They would win over the authority that the URL names.
        command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
        Self::start(command)
    }

    /// A process of ours: this test program again, running its test `child` only, which reads [`CHILD`].
    pub(crate) fn ours(url: &str, arguments: &[&str]) -> Self {
        Self::ours_in("child", url, arguments)
    }

    /// As [`Peer::ours`], where the test has another path.
    pub(crate) fn ours_in(test: &str, url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
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

    /// Writes it an empty line.
    pub(crate) fn resume(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn let_go(&mut self) {
        self.resume();
        self.says(&["released"]);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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

/// Whether tooz gets the lock: `got` or `busy`.
pub(crate) fn python_tries(url: &str, name: &str) -> String {
    let mut python = Peer::python(url, &["try", name]);
    let outcome = python.says(&["got", "busy"]);
    python.succeeds();
    outcome
}
