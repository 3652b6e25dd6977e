//! `scoria locks` against the admin port of a service whose locks are its own.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;

use nix::pty::openpty;
use scoria_api::admin::{AdminState, Status, router};
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Coordinator, Health, LockRequest, LockSet, Options, Owner};
use scoria_runtime::Tasks;
use scoria_testkit::Memcached;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::run::{Run, command, scoria, until};

/// Nothing of it is asked here.
struct NoStatus;

impl Status for NoStatus {
    fn health(&self) -> Vec<(String, Result<(), String>)> {
        Vec::new()
    }

    fn operations(&self) -> Value {
        Value::Null
    }
}

/// A service with an admin port.
struct Service {
    runtime: Runtime,
    locks: Coordinator,
    url: String,
    _tasks: Tasks,
}

impl Service {
    fn start() -> Self {
        Self::on(Coordinator::new(Arc::new(MemoryProvider::new())))
    }

    fn on(locks: Coordinator) -> Self {
        let runtime = Runtime::new().unwrap();
        let state =
            AdminState { status: Arc::new(NoStatus), metrics: Arc::new(String::new), coordinator: locks.clone() };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        runtime.block_on(async {
            tasks.spawn("admin", async move { axum::serve(listener, router(state)).await.unwrap() });
        });
        Self { runtime, locks, url, _tasks: tasks }
    }

    fn hold(&self) -> LockSet {
        let owner = Owner {
            operation: "delete_volume".to_owned(),
            request_id: Some("req-1".to_owned()),
            resource: Some("v1".to_owned()),
        };
        self.runtime.block_on(self.locks.acquire(LockRequest::new(owner).exclusive("v1-delete_volume"))).unwrap()
    }

    fn locks<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--admin", self.url.as_str(), "locks"], args].concat()
    }
}

#[test]
fn holders_are_listed_and_shown() {
    let service = Service::start();
    assert!(scoria(&service.locks(&["show", "v1-delete_volume"])).failed(3).contains("nobody holds lock"));
    let lock = service.hold();
    let listed = scoria(&service.locks(&["--json", "list"])).json();
    let shown = scoria(&service.locks(&["--json", "show", "v1-delete_volume"])).json();
    for line in [&listed[0], &shown["holders"][0]] {
        assert_eq!(
            (&line["request_id"], &line["resource"], &line["token"]),
            (&"req-1".into(), &"v1".into(), &1.into())
        );
    }
    assert_eq!(shown["waiters"], Value::Array(Vec::new()));
    let table = scoria(&service.locks(&["show", "v1-delete_volume"])).done();
    assert!(table.contains("req-1") && table.contains("since"), "{table}");
    service.runtime.block_on(lock.release()).unwrap();
}

#[test]
fn waiting_takes_until_the_lock_is_free() {
    let service = Service::start();
    let wait = service.locks(&["wait", "v1-delete_volume"]);
    assert_eq!(scoria(&wait).done(), "");
    let lock = service.hold();
    let error = scoria(&[&wait[..], &["--timeout", "0.2"]].concat()).failed(73);
    assert!(error.contains("by delete_volume of req-1") && error.contains("--timeout"), "{error}");
    let waiting = command(&wait).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it waits", || service.runtime.block_on(service.locks.holders()).unwrap().iter().any(|other| !other.held));
    service.runtime.block_on(lock.release()).unwrap();
    assert_eq!(Run::from(waiting.wait_with_output().unwrap()).done(), "");
}

#[test]
fn a_lock_is_broken_when_that_is_confirmed() {
    let service = Service::start();
    let break_it = service.locks(&["break", "v1-delete_volume"]);
    let with_yes = [&break_it[..], &["--yes"]].concat();
    assert!(scoria(&with_yes).failed(3).contains("nobody holds lock 'v1-delete_volume'"));

    let lock = service.hold();
    let error = Run::from(command(&break_it).stdin(Stdio::null()).output().unwrap()).failed(2);
    assert!(error.contains("request req-1") && error.contains("--yes"), "{error}");
    assert!(!lock.is_lost());

    let told = scoria(&with_yes).done();
    assert!(told.contains("taken away from") && told.contains("operation delete_volume, request req-1"), "{told}");
    assert!(lock.is_lost());

    let lock = service.hold();
    let broken = scoria(&[&with_yes[..], &["--json"]].concat()).json();
    assert_eq!(broken["broken"][0]["resource"], "v1");
    assert!(lock.is_lost());
}

/// Somebody who is asked on a terminal whether the lock is to be broken.
struct Asked {
    process: Child,
    terminal: File,
}

impl Asked {
    /// Once the question is there.
    fn at(service: &Service) -> Self {
        let ends = openpty(None, None).unwrap();
        let process = command(&service.locks(&["break", "v1-delete_volume"]))
            .stdin(File::from(ends.slave))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let (mut process, mut question) = (process.unwrap(), String::new());
        let stderr = process.stderr.as_mut().unwrap();
        let mut byte = [0];
        while !question.ends_with("[y/N] ") {
            stderr.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {question}"));
            question.push(char::from(byte[0]));
        }
        assert!(question.contains("request req-1"), "{question}");
        Self { process, terminal: File::from(ends.master) }
    }

    fn answers(mut self, answer: &str) -> Run {
        self.terminal.write_all(answer.as_bytes()).unwrap();
        Run::from(self.process.wait_with_output().unwrap())
    }
}

#[test]
fn on_a_terminal_one_is_asked_first() {
    let service = Service::start();
    for (answer, code) in [("n\n", 1), ("\n", 1), ("yes\n", 0)] {
        let lock = service.hold();
        let run = Asked::at(&service).answers(answer);
        assert_eq!((run.code, lock.is_lost()), (Some(code), code == 0), "{answer:?}: {run:?}");
    }
}

#[test]
fn a_lock_that_changed_hands_while_one_was_asked_is_left_alone() {
    let service = Service::start();
    let shown = service.hold();
    let asked = Asked::at(&service);
    service.runtime.block_on(shown.release()).unwrap();
    let next = service.hold();
    assert!(asked.answers("y\n").failed(1).contains("went to somebody else meanwhile"));
    assert!(!next.is_lost());

    let asked = Asked::at(&service);
    service.runtime.block_on(next.release()).unwrap();
    assert!(asked.answers("y\n").failed(3).contains("nobody holds lock 'v1-delete_volume' any more"));
}

#[test]
fn a_lock_service_that_tells_of_nobody_is_no_proof_that_a_lock_is_free() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Memcached::start()).unwrap();
    let open = || runtime.block_on(Coordinator::open(&server.url(), &Options::default())).unwrap();
    let (service, other) = (Service::on(open()), Service::on(open()));
    for service in [&service, &other] {
        until("it is connected", || service.locks.health() == Health::Up);
        assert!(scoria(&service.locks(&["list"])).failed(1).contains("does not tell who holds its locks"));
        assert_eq!(scoria(&service.locks(&["break", "v1-delete_volume", "--yes"])).code, Some(3));
    }
    let lock = service.hold();
    let listed = scoria(&service.locks(&["list"]));
    assert!(
        listed.stdout.contains("v1-delete_volume") && listed.stderr.contains("the locks of one service"),
        "{listed:?}"
    );
    let error = scoria(&other.locks(&["show", "v1-delete_volume"])).failed(1);
    assert!(error.contains("nobody is known to hold lock 'v1-delete_volume', but"), "{error}");
    assert!(scoria(&other.locks(&["break", "v1-delete_volume", "--yes"])).done().contains("does not name"));
    until("the holder has noticed", || lock.is_lost());
}

#[test]
fn locks_within_one_process_are_asked_for_at_its_admin_port() {
    let service = Service::start();
    let _lock = service.hold();
    let directory = tempfile::tempdir().unwrap();
    let conf = crate::run::site(directory.path());
    let port = service.url.rsplit(':').next().unwrap();
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(
        &conf,
        format!("{text}[coordination]\nbackend_url = memory://\n[scoria]\nadmin_listen_port = {port}\n"),
    )
    .unwrap();
    let listed = scoria(&["--config-file", &conf, "--json", "locks", "list"]).json();
    assert_eq!(listed[0]["name"], "v1-delete_volume");
}
