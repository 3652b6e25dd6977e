//! What the leased locks need of a lock service.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Error, Features, Health, Holder, Owner, Scope, WaitPolicy};

/// Somebody's wish for one lock: what a record is written with and recognised by.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Complete name, with the prefix.
    pub(crate) name: String,
    /// New for each wish, 32 hexadecimal digits: whoever finds it in a record knows that the record is this wish's.
    pub(crate) id: String,
    /// For the list of holders.
    pub(crate) owner: Owner,
    /// Since when it is wished for.
    pub(crate) since: Instant,
}

/// A record that is this claim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Fencing token, where the service has them.
    pub(crate) token: Option<u64>,
    /// When the service may give the lock to somebody else, counted from when the request was *sent* (or from when the
    /// session it hangs on was last confirmed). The engine takes off a margin.
    pub(crate) deadline: Instant,
}

/// The answer to one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// It is ours now, or was already: by an earlier request of the same claim whose answer was lost.
    Taken(Taken),
    /// Somebody else has it (or is to have it next). When to look again if nothing wakes us before, where the service knows
    /// better than [`LeaseStore::poll_interval`]: the rest of the record's life, the polling of a holder that wakes nobody.
    Held(Option<Duration>),
}

/// A lock service that keeps one record per lock, which goes by itself after a time unless it is extended.
///
/// Every method is one attempt on the current connection. An error ([`Error::Unavailable`]) means that nobody knows whether the
/// service did it; [`super::LeasedProvider`] finds out. Any other kind of error means that it was refused and not done. No
/// method may be harmed by being dropped half-way; one that takes longer than a third of the time to live is.
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
    /// The longest a waiter goes without looking: what a missed notification may cost.
    fn poll_interval(&self) -> Duration;
    /// Whether the service itself has a queue, in which every waiter gets its turn, and lets polling peers in. Where it does
    /// not, only one waiter of each instance talks to it, and the engine makes room for others: see [`crate::providers::courtesy`].
    fn keeps_order(&self) -> bool {
        false
    }
    /// Whether a waiter stands in line at the service: whoever gives a lock back lets in the first, and nobody has to make room for
    /// others. Where the service does not keep order among all waiters, one of each instance does.
    fn lines_up(&self) -> bool {
        self.keeps_order()
    }
    /// The longest that a lock is free before a waiter of Scoria is woken: nothing, where the service tells it.
    fn wakes_within(&self) -> Duration {
        Duration::ZERO
    }
    /// How often Python peers look whether a lock has become free; `None` when there can be none.
    fn peers_poll(&self) -> Option<Duration> {
        None
    }
    /// Whether the fencing tokens of a lock count its holders: the next one's is higher by one.
    fn counts_holders(&self) -> bool {
        false
    }
    /// Whether waiters of other instances have left word that they wait. For a service where a lock that is free does not tell that
    /// others have had it meanwhile. One round trip.
    async fn others_wait(&self, _name: &str) -> Result<bool, Error> {
        Ok(false)
    }
    /// Resolves when whatever is held has to be looked at at once, by [`LeaseStore::extend`]: a new connection may lead to a server
    /// that knows nothing of it, or the server is known to have forgotten it. What happened since the last call counts.
    async fn suspect(&self) {
        std::future::pending().await
    }

    /// Tries once to take the lock. One round trip.
    async fn take(&self, claim: &Claim) -> Result<Take, Error>;
    /// Extends all of them, in as few round trips as possible. For each, in the same order, its new deadline, or `None` when it
    /// is no longer ours. Also asked without a connection: a service that forgets with it says so at once.
    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error>;
    /// Whether the record is this claim's: after an answer that never came, and for [`crate::HeldLock::verify`].
    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error>;
    /// Removes the record if it is this claim's, and wakes waiters where the service can; takes the claim out of the queue if it
    /// stands in one. False when the record was not ours. One round trip.
    async fn give_back(&self, claim: &Claim) -> Result<bool, Error>;
    /// Wakes when the lock may have become free for this claim. Called once somebody has to wait, and before the next try: from here
    /// on the claim may stand in line at the service. The subscription ends when the receiver is dropped; the sender's end
    /// means that notifications were lost. A store whose service cannot notify returns a receiver that never wakes.
    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error>;
    /// What a wake-up has brought: the lock itself, where whoever gives it back hands it on. Its deadline counts from when a request
    /// of the waiter was sent after which it must have been given.
    fn handed_on(&self, _claim: &Claim) -> Option<Taken> {
        None
    }

    /// Holders and waiters, as far as [`Features::listing`] promises; names without the prefix.
    async fn list(&self) -> Result<Vec<Holder>, Error>;
    /// Removes the record of a lock whosever it is; false when there was none.
    async fn break_lock(&self, name: &str) -> Result<bool, Error>;
    /// Before the end: resolves when no request is under way that may be carried out after one that is sent now. Where all of them go
    /// over one connection none ever is.
    async fn settled(&self) {}
    /// Ends the connection.
    async fn close(&self);
}
