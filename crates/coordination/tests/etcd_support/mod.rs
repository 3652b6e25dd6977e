//! What the tests on etcd share: our own instances, and other processes, ours and Python's.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scoria_coordination::{Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, WaitPolicy, providers};
use scoria_runtime::{Deadline, Tasks};
use scoria_testkit::{Etcd, PythonPeer};

/// Tells a test program that it is to act as a peer: `URL COMMAND…`.
const CHILD: &str = "SCORIA_TEST_LOCK_CHILD";

/// Long enough for anything that is to happen by itself, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// An instance that may not be connected yet.
pub(crate) async fn unconnected(url: &str) -> Coordinator {
    beating(url, Duration::from_millis(250)).await
}

/// An instance with beats in so long intervals.
pub(crate) async fn beating(url: &str, heartbeat: Duration) -> Coordinator {
    let options = Options { heartbeat, max_reconnect_backoff: Duration::from_millis(500), ..Options::default() };
    Coordinator::new(providers::open(url, &options).await.unwrap())
}

/// An instance that is connected.
pub(crate) async fn coordinator(url: &str) -> Coordinator {
    let coordinator = unconnected(url).await;
    is(&coordinator, true).await;
    coordinator
}

/// Waits until it is connected, or is not.
pub(crate) async fn is(coordinator: &Coordinator, up: bool) {
    until("connected or not", || (coordinator.health() == Health::Up) == up).await;
}

pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    let end = std::time::Instant::now() + SOON;
    while !check() {
        assert!(std::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn request(name: &str) -> LockRequest {
    let owner = Owner { operation: "extend_volume".into(), request_id: Some("req-7".into()), resource: None };
    LockRequest::new(owner).exclusive(name)
}

pub(crate) fn within(time: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(time))
}

pub(crate) async fn once(coordinator: &Coordinator, name: &str) -> Result<LockSet, Error> {
    coordinator.acquire(request(name).wait(WaitPolicy::No)).await
}

pub(crate) async fn soon(coordinator: &Coordinator, name: &str) -> LockSet {
    coordinator.acquire(request(name).wait(within(SOON))).await.unwrap()
}

pub(crate) async fn busy(coordinator: &Coordinator, name: &str) {
    match once(coordinator, name).await {
        Err(Error::Busy { .. }) => {}
        other => panic!("busy was expected: {other:?}"),
    }
}

/// Waits until the loss is told.
pub(crate) async fn lost(held: &LockSet) {
    tokio::time::timeout(SOON, held.lost().cancelled()).await.expect("the loss is told");
    assert!(held.is_lost());
}

/// The keys at etcd, without those of sessions.
pub(crate) async fn keys(etcd: &Etcd) -> Vec<String> {
    let mut keys = etcd.keys().await.unwrap();
    keys.retain(|key| !key.contains("/sessions/"));
    keys
}

/// Waits until nothing is left at etcd but so many sessions, each a lease and a key.
pub(crate) async fn only_sessions_are_left(etcd: &Etcd, sessions: usize) {
    let end = std::time::Instant::now() + SOON;
    loop {
        let (keys, leases) = (etcd.keys().await.unwrap(), etcd.leases().await.unwrap());
        let of_sessions = keys.iter().filter(|key| key.contains("/sessions/")).count();
        if (keys.len(), of_sessions, leases.len()) == (sessions, sessions, sessions) {
            return;
        }
        assert!(std::time::Instant::now() < end, "left at etcd beside {sessions} sessions: {keys:?}, {leases:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A process that takes locks; killed when dropped.
pub(crate) struct Peer {
    child: Child,
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
        let mut command = Command::new(PythonPeer::find().unwrap().bin("python"));
        command
            .args(["-B", "-W", "ignore", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer.py"), url])
            .args(arguments);
        // They would win over the authority that the URL names.
        command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
        Self::start(command)
    }

    /// A process of ours: this test program again, running the test `child` only, which calls [`act`].
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

    /// Writes it an empty line.
    pub(crate) fn resume(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn let_go(&mut self) {
        self.resume();
        self.says(&["released"]);
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

pub(crate) fn python_tries(url: &str, name: &str) -> String {
    Peer::python(url, &["try", name]).says(&["got", "busy"])
}

/// What [`Peer::ours`] runs. Without the variable there is nothing to do.
pub(crate) async fn act() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0]).await;
    match words[1..] {
        ["hold", name] => {
            println!("\nwaiting");
            let held = soon(&coordinator, name).await;
            println!("\nheld");
            listen().await;
            // What a process that was stopped has to ask before anything else.
            println!("\n{}", if held.is_lost() { "lost" } else { "still held" });
            if held.release().await.is_ok() {
                println!("\nreleased");
            }
        }
        ["hold-many", number] => {
            let mut all = Vec::new();
            for n in 0..number.parse().unwrap() {
                all.push(soon(&coordinator, &format!("many-{n}")).await);
            }
            println!("\nheld");
            listen().await;
        }
        ["count", name, file, rounds] => {
            let rounds: u32 = rounds.parse().unwrap();
            let tasks = Tasks::new();
            let counting: Vec<_> = (0..4)
                .map(|_| tasks.spawn("count", count(coordinator.clone(), name.to_owned(), file.into(), rounds)))
                .collect();
            for task in counting {
                task.await.unwrap();
            }
        }
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}

/// Waits for a line without stopping the executor.
async fn listen() {
    let (said, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let _ = said.send(());
    });
    heard.await.unwrap();
}

/// Reads, adds one and writes, under the lock.
pub(crate) async fn count(coordinator: Coordinator, name: String, file: std::path::PathBuf, rounds: u32) {
    for _ in 0..rounds {
        let held = coordinator.acquire(request(&name)).await.unwrap();
        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        tokio::task::yield_now().await;
        assert!(!held.is_lost());
        std::fs::write(&file, (count + 1).to_string()).unwrap();
        held.release().await.unwrap();
    }
}
