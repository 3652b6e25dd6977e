//! `scoria locks` against the admin port of a service whose locks are its own.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use nix::pty::openpty;
use scoria_api::admin::{AdminState, Status, router};
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Coordinator, LockRequest, LockSet, Owner};
use scoria_runtime::Tasks;
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
        let runtime = Runtime::new().unwrap();
        let locks = Coordinator::new(Arc::new(MemoryProvider::new()));
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

#[test]
fn on_a_terminal_one_is_asked_first() {
    let service = Service::start();
    for (answer, code) in [("n\n", 1), ("\n", 1), ("yes\n", 0)] {
        let lock = service.hold();
        let ends = openpty(None, None).unwrap();
        let asked = command(&service.locks(&["break", "v1-delete_volume"]))
            .stdin(File::from(ends.slave))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut asked = asked.unwrap();
        let (mut terminal, mut question) = (File::from(ends.master), String::new());
        let mut stderr = asked.stderr.take().unwrap();
        let mut byte = [0];
        while !question.ends_with("[y/N] ") {
            stderr.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {question}"));
            question.push(char::from(byte[0]));
        }
        assert!(question.contains("request req-1"), "{question}");
        terminal.write_all(answer.as_bytes()).unwrap();
        let run = Run::from(asked.wait_with_output().unwrap());
        assert_eq!((run.code, lock.is_lost()), (Some(code), code == 0), "{answer:?}: {run:?}");
    }
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
