//! What the leased locks need of a lock service.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Error, Features, Health, Holder, Mode, Owner, Scope, WaitPolicy};

/// Somebody's wish for one lock: what a record is written with and recognised by.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Complete name, with the prefix.
    pub(crate) name: String,
    /// New for each wish, 32 hexadecimal digits: whoever finds it in a record knows that the record is this wish's.
    pub(crate) id: String,
    /// A store without shared mode only sees exclusive ones.
    pub(crate) mode: Mode,
    /// For the list of holders.
    pub(crate) owner: Owner,
}

/// A record that is this claim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Fencing token, where the service has them.
    pub(crate) token: Option<u64>,
    /// When the service may give the lock to somebody else, counted from when the request was *sent* (or from when the
    /// session it hangs on was last confirmed). The margin is taken off elsewhere.
    pub(crate) deadline: Instant,
}

/// The answer to one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// It is ours now.
    Taken(Taken),
    /// Somebody else has it, for at least so long unless it is given back, where that is known.
    Held(Option<Duration>),
}

/// A lock service that keeps one record per lock, which goes by itself after a time unless it is extended.
///
/// Every method is one attempt on the current connection. An error means that nobody knows whether the service did it;
/// [`super::LeasedProvider`] finds out. No method may be harmed by being dropped half-way.
#[async_trait]
pub(crate) trait LeaseStore: Debug + Send + Sync + 'static {
    /// Scheme of its URL, for logs and metrics.
    fn kind(&self) -> &'static str;
    /// What this instance is called.
    fn instance(&self) -> &str;
    /// How far its locks reach.
    fn scope(&self) -> Scope {
        Scope::Cluster
    }
    /// What it can do.
    fn features(&self) -> Features;
    /// How the connection is.
    fn health(&self) -> Health;
    /// Resolves when there is a connection, with an error when there is none and one may not wait any longer.
    async fn ready(&self, wait: WaitPolicy) -> Result<(), Error>;

    /// How long a record lives without being extended.
    fn time_to_live(&self) -> Duration;
    /// The longest a waiter goes without looking: what a release by a Python peer, or a missed notification, may cost.
    fn poll_interval(&self) -> Duration;

    /// Tries once to take the lock. One round trip.
    async fn take(&self, claim: &Claim) -> Result<Take, Error>;
    /// Extends all of them, in as few round trips as possible. For each its new deadline, or `None` when it is no longer ours.
    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error>;
    /// Whether the record is this claim's: after an answer that never came, and for [`crate::HeldLock::verify`].
    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error>;
    /// Removes the record if it is this claim's, and wakes waiters where the service can. False when it was not ours. One round trip.
    async fn give_back(&self, claim: &Claim) -> Result<bool, Error>;
    /// Wakes when the lock may have become free. Called once somebody has to wait; the subscription ends when the receiver is
    /// dropped. A store whose service cannot notify returns a receiver that never wakes.
    async fn watch(&self, name: &str) -> Result<watch::Receiver<()>, Error>;

    /// Holders and waiters, as far as [`Features::listing`] promises; names without the prefix.
    async fn list(&self) -> Result<Vec<Holder>, Error>;
    /// Removes the record of a lock whosever it is; false when there was none.
    async fn break_lock(&self, name: &str) -> Result<bool, Error>;
    /// Ends the connection.
    async fn close(&self);
}
