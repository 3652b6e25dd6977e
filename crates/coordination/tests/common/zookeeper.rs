//! What the tests on ZooKeeper share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scoria_coordination::{
    Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, Provider, WaitPolicy, providers,
};
use scoria_runtime::Deadline;
use scoria_testkit::{PythonPeer, ZooKeeper};
use zookeeper_client::Client;

/// Long enough for anything on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Tells [`Peer::ours`] what to do.
pub(crate) const CHILD: &str = "SCORIA_TEST_LOCK_CHILD";

/// A provider that is connected.
pub(crate) async fn open(url: &str, options: &Options) -> Arc<dyn Provider> {
    let provider = providers::open(url, options).await.unwrap();
    eventually("health", || async { provider.health() == Health::Up }).await;
    provider
}

/// Waits until it is so.
pub(crate) async fn eventually<F: Future<Output = bool> + Send>(what: &str, mut check: impl FnMut() -> F + Send) {
    let end = Instant::now() + LONG;
    while !check().await {
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A coordinator that is connected.
pub(crate) async fn coordinator(url: &str) -> Coordinator {
    Coordinator::new(open(url, &Options::default()).await)
}

/// A client of its own, that may do anything.
pub(crate) async fn admin(server: &ZooKeeper) -> Client {
    Client::connect(&format!("127.0.0.1:{}", server.port())).await.unwrap()
}

/// The names that have a parent node.
pub(crate) async fn parents(server: &ZooKeeper) -> Vec<String> {
    admin(server).await.list_children("/tooz/locks").await.unwrap()
}

pub(crate) fn request() -> LockRequest {
    let owner = Owner { operation: "extend_volume".into(), request_id: Some("req-7".into()), resource: None };
    LockRequest::new(owner)
}

pub(crate) async fn once(coordinator: &Coordinator, name: &str) -> Result<LockSet, Error> {
    coordinator.acquire(request().exclusive(name).wait(WaitPolicy::No)).await
}

pub(crate) async fn soon(coordinator: &Coordinator, name: &str) -> LockSet {
    coordinator.acquire(request().exclusive(name).wait(within(LONG))).await.unwrap()
}

pub(crate) fn within(time: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(time))
}

/// A process that takes locks; killed when dropped.
pub(crate) struct Peer {
    pub(crate) child: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut command: Command) -> Self {
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
        Self::start(command)
    }

    /// A process of ours: this test program again, running its test `child` only, which reads [`CHILD`].
    pub(crate) fn ours(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]);
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
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn let_go(&mut self) {
        self.tell();
        self.says(&["released"]);
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
