//! Looks after what is held, on a thread of its own that no busy executor can starve.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use crate::{Error, Scope};

/// A network file system that is silent for longer may have given our locks to others: servers free the locks of a client
/// that they have not heard of for a lease, which is at least 10 s in practice and 90 s by default.
const SILENCE: Duration = Duration::from_secs(8);

/// Starts the watch; it ends within a heartbeat of the last lock and the provider being dropped.
pub(super) fn start(shared: &Arc<Shared>, scope: Scope, heartbeat: Duration) -> Result<(), Error> {
    let heartbeat = heartbeat.max(Duration::from_millis(10));
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("lock-watch".to_owned())
        .spawn(move || while round(&shared, scope, heartbeat, SILENCE).is_some() {})
        .map_err(|error| Error::Unavailable(format!("no thread to watch the lock files: {error}")))?;
    Ok(())
}

/// One heartbeat: has every lock file that is held looked at. `None` when there is nothing left to watch.
fn round(shared: &Weak<Shared>, scope: Scope, heartbeat: Duration, silence: Duration) -> Option<()> {
    std::thread::sleep(heartbeat);
    let (answer, answered) = channel();
    let asked = Instant::now();
    shared.upgrade()?.worker.submit(move |table| drop(answer.send(table.check())));
    let mut told = false;
    loop {
        match answered.recv_timeout(heartbeat) {
            Ok(down) => {
                shared.upgrade()?.set_down(down);
                return Some(());
            }
            Err(RecvTimeoutError::Timeout) if asked.elapsed() >= silence && !told => {
                told = true;
                let shared = shared.upgrade()?;
                let reason = shared.worker.silent(asked.elapsed());
                tracing::error!("{reason}");
                shared.set_down(Some(reason));
                // A local kernel keeps its locks however slow its disk is; a server forgets.
                if scope == Scope::Cluster {
                    shared.lose_all();
                }
            }
            // Everything may be gone while the thread of the directory is stuck.
            Err(RecvTimeoutError::Timeout) => drop(shared.upgrade()?),
            Err(RecvTimeoutError::Disconnected) => {
                let shared = shared.upgrade()?;
                shared.set_down(Some(super::worker::ENDED.to_owned()));
                shared.lose_all();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use scoria_runtime::CancellationToken;

    use super::super::table::Table;
    use super::super::worker::Worker;
    use super::*;

    /// A directory whose thread is stuck for `stuck`, watched for one round.
    fn stuck(scope: Scope, stuck: Duration) -> (Arc<Shared>, CancellationToken) {
        let directory = tempfile::tempdir().unwrap();
        let table = Table::new(directory.path().to_owned(), String::new(), false);
        let worker = Worker::start(directory.path().to_owned(), table).unwrap();
        let shared = Arc::new(Shared { worker, down: Mutex::default(), all: Mutex::default() });
        let held = shared.all().child_token();
        shared.worker.submit(move |_| std::thread::sleep(stuck));
        let watched = Arc::downgrade(&shared);
        let watcher = std::thread::spawn(move || {
            round(&watched, scope, Duration::from_millis(10), Duration::from_millis(50));
        });
        std::thread::sleep(Duration::from_millis(150));
        assert!(shared.down.lock().unwrap().as_ref().unwrap().contains("has not answered"));
        watcher.join().unwrap();
        assert_eq!(*shared.down.lock().unwrap(), None, "it is up again once it answers");
        (shared, held)
    }

    #[test]
    fn a_silent_server_may_have_given_our_locks_away_and_a_slow_disk_has_not() {
        let (shared, lost) = stuck(Scope::Cluster, Duration::from_millis(300));
        assert!(lost.is_cancelled());
        assert!(!shared.all().is_cancelled(), "locks taken afterwards count");
        let (_shared, lost) = stuck(Scope::Node, Duration::from_millis(300));
        assert!(!lost.is_cancelled());
    }

    #[test]
    fn a_dead_thread_loses_everything() {
        let directory = tempfile::tempdir().unwrap();
        let table = Table::new(directory.path().to_owned(), String::new(), false);
        let worker = Worker::start(directory.path().to_owned(), table).unwrap();
        let shared = Arc::new(Shared { worker, down: Mutex::default(), all: Mutex::default() });
        let held = shared.all().child_token();
        shared.worker.submit(|_| panic!("for the test"));
        assert!(round(&Arc::downgrade(&shared), Scope::Node, Duration::from_millis(10), SILENCE).is_none());
        assert!(held.is_cancelled());
    }
}
