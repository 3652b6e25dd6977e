//! Looks after what is held, on a thread of its own that no busy executor can starve.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use super::worker::start_thread;
use crate::{Error, Scope};

/// A network file system that is silent for longer may have given our locks to others: servers free the locks of a client
/// that they have not heard of for a lease, which is at least 10 s in practice and 90 s by default.
const SILENCE: Duration = Duration::from_secs(8);

/// The longest time between two looks at a network file system: with [`SILENCE`] it makes 10 s from the last answer to the loss.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(2);

/// Starts the watch; it ends within a heartbeat of the last lock and the provider being dropped.
pub(super) fn start(shared: &Arc<Shared>, scope: Scope, heartbeat: Duration) -> Result<(), Error> {
    let heartbeat = beat(scope, heartbeat);
    let shared = Arc::downgrade(shared);
    start_thread("lock-watch", move || while round(&shared, scope, heartbeat, SILENCE).is_some() {})
}

/// The time between two looks. What is too long for a network file system is shortened, not refused: Python services read the
/// same option, for which it is a good value.
fn beat(scope: Scope, heartbeat: Duration) -> Duration {
    if scope == Scope::Cluster && heartbeat > LONGEST_HEARTBEAT {
        tracing::warn!(
            "[coordination] heartbeat = {}: file:// on a shared file system looks at its locks every {} s all the same; with more, \
             a lock could be somebody else's before its loss is noticed",
            heartbeat.as_secs_f64(),
            LONGEST_HEARTBEAT.as_secs()
        );
        return LONGEST_HEARTBEAT;
    }
    heartbeat.max(Duration::from_millis(10))
}

/// One heartbeat: has every lock file that is held looked at. `None` when there is nothing left to watch.
fn round(shared: &Weak<Shared>, scope: Scope, heartbeat: Duration, silence: Duration) -> Option<()> {
    std::thread::sleep(heartbeat);
    let (answer, answered) = channel();
    let asked = Instant::now();
    shared.upgrade()?.worker.submit(move |table| drop(answer.send(table.check())));
    let mut told = false;
    loop {
        // Not a heartbeat later than at the end of the silence.
        let left = silence.saturating_sub(asked.elapsed());
        match answered.recv_timeout(if told { heartbeat } else { left.min(heartbeat) }) {
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
    use crate::providers::courtesy::Courtesy;

    use super::*;

    /// A directory whose thread is stuck for `stuck`, watched for one round.
    fn stuck(scope: Scope, stuck: Duration) -> (Arc<Shared>, CancellationToken) {
        let directory = tempfile::tempdir().unwrap();
        let table = Table::new(directory.path().to_owned(), String::new(), false);
        let worker = Worker::start(directory.path().to_owned(), table).unwrap();
        let shared = Arc::new(Shared {
            worker,
            down: Mutex::default(),
            all: Mutex::default(),
            courtesy: Courtesy::new(Duration::ZERO, None),
        });
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
    fn on_a_shared_file_system_a_long_heartbeat_does_not_put_off_the_loss() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(beat(Scope::Cluster, minute), LONGEST_HEARTBEAT);
        assert!(LONGEST_HEARTBEAT + SILENCE <= second * 10, "docs/locks.md tells how long a server's lease has to be");
        assert_eq!(beat(Scope::Cluster, second), second);
        assert_eq!(beat(Scope::Node, minute), minute, "a local kernel gives nothing away");
        assert_eq!(beat(Scope::Cluster, Duration::ZERO), Duration::from_millis(10));
    }

    #[test]
    fn a_dead_thread_loses_everything() {
        let directory = tempfile::tempdir().unwrap();
        let table = Table::new(directory.path().to_owned(), String::new(), false);
        let worker = Worker::start(directory.path().to_owned(), table).unwrap();
        let shared = Arc::new(Shared {
            worker,
            down: Mutex::default(),
            all: Mutex::default(),
            courtesy: Courtesy::new(Duration::ZERO, None),
        });
        let held = shared.all().child_token();
        shared.worker.submit(|_| panic!("for the test"));
        assert!(round(&Arc::downgrade(&shared), Scope::Node, Duration::from_millis(10), SILENCE).is_none());
        assert!(held.is_cancelled());
    }
}
