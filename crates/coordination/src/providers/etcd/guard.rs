//! What keeps a request that was given up from taking effect later.

use std::sync::atomic::{AtomicU64, Ordering};

use super::endpoints::{Endpoints, Failure};
use super::wire::{Compare, KeyValue, Operation, Txn, put, written_at};

/// A key of the session that every request for a lock names together with the revision at which it was last written.
///
/// A request whose answer never came may still lie in a stalled connection or in a member that is stopped, and be carried out
/// long after somebody has looked and found nothing. So whoever looks writes this key again, in the same transaction: what was
/// sent before then names an old revision and can do nothing any more.
#[derive(Debug)]
pub(super) struct Guard {
    key: String,
    value: String,
    lease: i64,
    revision: AtomicU64,
    /// How many requests were given up, and how many of them are known to be harmless.
    given_up: AtomicU64,
    disarmed: AtomicU64,
}

/// A request that is under way. Dropped without [`Request::answered`] it was given up.
#[derive(Debug)]
pub(super) struct Request<'a> {
    guard: &'a Guard,
    answered: bool,
}

impl Guard {
    /// Writes the key for the first time, with the session's lease.
    pub(super) async fn make(endpoints: &Endpoints, key: String, value: &str, lease: i64) -> Result<Self, Failure> {
        let written = endpoints.txn(&[], &[put(&key, value, lease)], &[]).await?;
        Ok(Self {
            key,
            value: value.to_owned(),
            lease,
            revision: AtomicU64::new(written.revision()),
            given_up: AtomicU64::new(0),
            disarmed: AtomicU64::new(0),
        })
    }

    /// The key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Begins a request; what it has to compare.
    pub(super) fn request(&self) -> (Request<'_>, Compare) {
        let revision = self.revision.load(Ordering::SeqCst);
        (Request { guard: self, answered: false }, written_at(&self.key, revision))
    }

    /// Looks at what a request found that named an old revision: somebody has settled meanwhile, and it may be sent again.
    /// [`Failure::NoLease`] when the key is gone, and the session with it.
    pub(super) fn check(&self, found: &[KeyValue]) -> Result<(), Failure> {
        let found = found.first().ok_or(Failure::NoLease)?;
        self.revision.fetch_max(found.mod_revision, Ordering::SeqCst);
        Ok(())
    }

    /// Does `operations`, and sees to it that no request that was given up before takes effect after them.
    pub(super) async fn settle(
        &self,
        endpoints: &Endpoints,
        compare: &[Compare],
        mut operations: [Vec<Operation>; 2],
    ) -> Result<Txn, Failure> {
        let given_up = self.given_up.load(Ordering::SeqCst);
        let write = given_up > self.disarmed.load(Ordering::SeqCst);
        if write {
            // Last, so that the answers to the others stand where they always do.
            operations.iter_mut().for_each(|branch| branch.push(put(&self.key, self.value.as_str(), self.lease)));
        }
        let [success, failure] = operations;
        let txn = endpoints.txn(compare, &success, &failure).await?;
        if write {
            self.revision.fetch_max(txn.revision(), Ordering::SeqCst);
            self.disarmed.fetch_max(given_up, Ordering::SeqCst);
        }
        Ok(txn)
    }
}

impl Request<'_> {
    /// Its outcome is known.
    pub(super) fn answered<T>(mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        self.answered = !matches!(outcome, Err(Failure::Unknown(_)));
        outcome
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.guard.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}
