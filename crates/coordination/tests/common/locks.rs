//! What the tests on etcd, memcached and Redis share: our own instances, and what a process of ours does as a peer.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use scoria_coordination::{Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, WaitPolicy, providers};
use scoria_runtime::{Deadline, Tasks};

use super::peer::CHILD;

/// Long enough for anything that is to happen by itself, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// An instance that may not be connected yet.
pub(crate) async fn unconnected(url: &str) -> Coordinator {
    let options = Options { max_reconnect_backoff: Duration::from_millis(500), ..Options::default() };
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

/// What a peer of ours does: `hold NAME` until a line comes, `hold-many NUMBER`, or `count NAME FILE ROUNDS` with four tasks.
/// Without the variable there is nothing to do.
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
        // Processes are not always served in order: let the others come in.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
