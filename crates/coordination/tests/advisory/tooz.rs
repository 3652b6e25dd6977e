//! Beside real tooz processes.

use std::time::Duration;

use scoria_coordination::Error;
use scoria_runtime::Tasks;

use crate::locks::{SOON, once, soon, until};
use crate::peer::{Peer, python_tries};
use crate::peers::{count, ours};
use crate::{Server, coordinator};

/// With a name like Cinder's.
const NAME: &str = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11-delete_volume";

async fn suite(server: Server) {
    let url = server.url();
    let here = coordinator(&url).await;

    // Python holds and we stay out until it lets go.
    let mut python = Peer::python(&url, &["hold", NAME]);
    python.says(&["held"]);
    assert!(matches!(once(&here, NAME).await, Err(Error::Busy { .. })));
    let waiter = here.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, NAME).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    python.let_go();
    let held = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();

    // We hold and Python stays out until we let go.
    assert_eq!(python_tries(&url, NAME), "busy");
    let mut python = Peer::python(&url, &["hold", NAME]);
    python.says(&["waiting"]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    held.verify().await.unwrap();
    held.release().await.unwrap();
    python.says(&["held"]);
    assert!(matches!(once(&here, NAME).await, Err(Error::Busy { .. })));

    // A killed holder of either kind is no holder any more.
    python.kill();
    soon(&here, NAME).await.release().await.unwrap();
    let mut other = ours(&url, &["hold", NAME]);
    other.says(&["held"]);
    assert_eq!(python_tries(&url, NAME), "busy");
    other.kill();
    let mut python = Peer::python(&url, &["hold", NAME]);
    python.says(&["held"]);

    // An operator takes the lock away from Python.
    assert!(here.break_lock(NAME).await.unwrap());
    soon(&here, NAME).await.release().await.unwrap();
    drop(python);

    // All together.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let path = file.to_str().unwrap();
    let mut peers = Vec::new();
    for _ in 0..2 {
        peers.push(Peer::python(&url, &["count", NAME, path, "6"]));
        peers.push(ours(&url, &["count", NAME, path, "10"]));
    }
    count(here.clone(), NAME.to_owned(), file.clone(), 20).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (2 * 6 + 2 * 4 * 10 + 20).to_string());

    // A hundred locks of a killed process are free at once, and its connections are gone.
    let mut hundred = ours(&url, &["hundred", NAME.get(..20).unwrap()]);
    hundred.says(&["held"]);
    assert!(server.connections() >= 100);
    hundred.kill();
    for n in 0..100 {
        let name = format!("{}-{n}", NAME.get(..20).unwrap());
        soon(&here, &name).await.release().await.unwrap();
    }
    here.close().await;
    until("no connections", || server.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    suite(Server::mysql().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql() {
    suite(Server::postgres().await).await;
}
