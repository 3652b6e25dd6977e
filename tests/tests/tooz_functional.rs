//! tooz' own functional tests of locks, with one side replaced by Scoria, on every lock service that both have.
//!
//! tooz' package brings its tests along (`tooz/tests`). Those of `test_coordination.py: TestAPI` are written against any lock service:
//! all of them that have to do with locks are run here, unchanged, with real tooz on one side and Scoria on the other
//! (`tests/python/tooz_functional/`). Whatever locks a test asks for are tooz' and Scoria's by turns: where a test has two
//! coordinators, or two locks of one name, they are one of each. Each test is run twice, so that either side comes first; a test with a
//! single lock shows with Scoria first that Scoria's behaves as tooz' does.
//!
//! A test that neither side may skip is not skipped in silence: what tooz itself has no means for is expected to be skipped,
//! test by test ([`Service::skipped`]).
//!
//! **Not run**, because they cannot be:
//! * [`LEFT_OUT`], with the reason;
//! * `drivers/test_memcache.py`, `test_postgresql.py`, `test_etcd3gw.py` and half of `test_mysql.py`: they put a mock in the place of
//!   the Python client of the lock service and look at what tooz does to the mock. There is no second side;
//! * the rest of `test_mysql.py` and `TestAPI.test_connection_error_bad_host`: tooz fails to start without its lock service. Scoria
//!   starts and waits for it, on purpose;
//! * `drivers/test_file.py` and the rest of `TestAPI`: groups, members and leaders, which Cinder does not use and Scoria
//!   does not have;
//! * `test_kubernetes.py`, and `ipc://` as a lock service: not supported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, PythonPeer, Redis, ZooKeeper, repository};

/// The tests of tooz 9.1.0 that have to do with locks. Another release may bring others: they are not run unseen.
const TESTS: &[&str] = &[
    "test_acquire_twice_no_deadlock_releasing",
    "test_get_lock",
    "test_get_lock_concurrency_locking2",
    "test_get_lock_concurrency_locking_same_lock",
    "test_get_lock_concurrency_locking_two_lock_process",
    "test_get_lock_concurrency_locking_two_lock_thread1",
    "test_get_lock_concurrency_locking_two_lock_thread2",
    "test_get_lock_context_check_value",
    "test_get_lock_context_fails",
    "test_get_lock_locked_twice",
    EXCLUSIVE_THEN_SHARED,
    SHARED_THEN_EXCLUSIVE,
    "test_get_lock_multiple_coords",
    BROKEN,
    "test_get_lock_serial_locking_two_lock_process",
    "test_get_lock_twice_locked_one_released_two",
    "test_get_lock_twice_locked_twice",
    "test_get_multiple_locks_with_same_coord",
    SHARED,
    SHARED_TWICE,
    SHARED_BY_TWO,
    "test_heartbeat_lock_not_acquired",
    "test_lock_context_manager_acquire_argument",
    "test_lock_context_manager_acquire_argument_release_within",
    "test_lock_context_manager_acquire_argument_return_value",
    "test_lock_context_manager_acquire_argument_timeout",
    "test_lock_context_manager_acquire_no_argument",
];

const BROKEN: &str = "test_get_lock_release_broken";
const SHARED: &str = "test_get_shared_lock";
const SHARED_TWICE: &str = "test_get_shared_lock_locking_same_lock_twice";
const SHARED_BY_TWO: &str = "test_get_shared_lock_locking_two_lock";
const SHARED_THEN_EXCLUSIVE: &str = "test_get_lock_locking_shared_and_exclusive";
const EXCLUSIVE_THEN_SHARED: &str = "test_get_lock_locking_exclusive_and_shared";

/// tooz has a shared mode with `file://` only, and only among the threads of one process: between processes a shared holder
/// excludes a shared one, tooz' own processes too. A reader of tooz' and one of Scoria's exclude each other for ever.
const LEFT_OUT: &[&str] = &[SHARED_BY_TWO];

/// All tests of one service and order.
const LIMIT: Duration = Duration::from_secs(500);

/// Whose lock comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Tooz,
    Scoria,
}

/// What each side can do with a lock service beside plain locks.
#[derive(Debug, Clone, Copy)]
struct Service {
    /// tooz can break a lock.
    breaks: bool,
    /// tooz has a shared mode.
    tooz_shares: bool,
    /// Scoria has a shared mode.
    scoria_shares: bool,
}

impl Service {
    /// The tests that one of the sides has no means for.
    fn skipped(self, first: First) -> BTreeSet<&'static str> {
        let (first, second) = match first {
            First::Tooz => (self.tooz_shares, self.scoria_shares),
            First::Scoria => (self.scoria_shares, self.tooz_shares),
        };
        let mut skipped = BTreeSet::new();
        if !self.breaks {
            skipped.insert(BROKEN);
        }
        if !first {
            skipped.extend([SHARED, SHARED_TWICE, SHARED_THEN_EXCLUSIVE]);
        }
        if !second {
            skipped.insert(EXCLUSIVE_THEN_SHARED);
        }
        skipped
    }

    /// Runs tooz' tests with either side first.
    async fn passes(self, url: &str) {
        let python = PythonPeer::find().unwrap();
        let script = repository().join("tests/python/tooz_functional/run.py");
        let peer = env!("CARGO_BIN_EXE_lock-peer");
        for first in [First::Tooz, First::Scoria] {
            let word = if first == First::Tooz { "tooz" } else { "scoria" };
            let arguments = [&[peer, url, word], LEFT_OUT].concat();
            let outcomes = python.run(&script, &arguments, LIMIT).await.unwrap();
            let outcomes: BTreeMap<String, (String, String)> = serde_json::from_value(outcomes).unwrap();
            assert!(outcomes.keys().eq(TESTS), "tooz has other tests than these: {:#?}", outcomes.keys());
            let skipped = self.skipped(first);
            for (test, (outcome, why)) in outcomes {
                let expected = match test.as_str() {
                    left_out if LEFT_OUT.contains(&left_out) => "left out",
                    skip if skipped.contains(skip) => "skipped",
                    _ => "passed",
                };
                assert_eq!(outcome, expected, "{url}, {first:?} first: {test}: {why}");
            }
        }
    }
}

/// Nothing but locks that one has alone.
const PLAIN: Service = Service { breaks: false, tooz_shares: false, scoria_shares: false };

#[tokio::test]
async fn file() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service { tooz_shares: true, scoria_shares: true, ..PLAIN };
    service.passes(&format!("file://{}", directory.path().display())).await;
}

#[tokio::test]
async fn zookeeper() {
    let server = ZooKeeper::start().await.unwrap();
    Service { scoria_shares: true, ..PLAIN }.passes(&server.url()).await;
}

#[tokio::test]
async fn redis() {
    let server = Redis::start().await.unwrap();
    Service { breaks: true, ..PLAIN }.passes(&server.url()).await;
}

#[tokio::test]
async fn etcd() {
    let server = Etcd::start().await.unwrap();
    Service { breaks: true, ..PLAIN }.passes(&server.tooz_url()).await;
}

#[tokio::test]
async fn memcached() {
    let server = Memcached::start().await.unwrap();
    Service { breaks: true, ..PLAIN }.passes(&server.url()).await;
}

#[tokio::test]
async fn mysql() {
    let server = MariaDb::shared().await.unwrap();
    PLAIN.passes(&without_dialect(&server.url())).await;
}

#[tokio::test]
async fn postgresql() {
    let server = Postgres::shared().await.unwrap();
    PLAIN.passes(&without_dialect(&server.url())).await;
}

/// SQLAlchemy's URL as one for locks.
fn without_dialect(url: &str) -> String {
    let (dialect, rest) = url.split_once("://").unwrap();
    let scheme = dialect.split('+').next().unwrap();
    format!("{scheme}://{}", rest.split('?').next().unwrap())
}
