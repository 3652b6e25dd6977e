//! What the queued locks need of a lock service.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::lease::Lease;
use crate::{Error, Features, Health, Holder, Mode, Owner, WaitPolicy};

/// The session that everything of this process hangs on: when it ends, the service removes all our contenders.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Good until its deadline (with the margin taken off), put off by each confirmed beat.
    pub(crate) lease: Lease,
    /// Rises with each new session.
    pub(crate) generation: u64,
}

/// Somebody's wish for one lock: what a contender is made with and recognised by.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    /// New for each wish, 32 hexadecimal digits.
    pub(crate) id: String,
    /// How the lock is wanted.
    pub(crate) mode: Mode,
    /// For the list of holders.
    pub(crate) owner: Owner,
}

/// One place in the queue for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contender {
    /// What the service calls it: a node, a key.
    pub(crate) node: String,
    /// Its place: lower ones were there before.
    pub(crate) order: u64,
    /// A Python peer's is exclusive.
    pub(crate) mode: Mode,
}

/// Our own new place, and everybody's.
#[derive(Debug, Clone)]
pub(crate) struct Entered {
    /// Ours.
    pub(crate) own: Contender,
    /// Everybody's as of then, ours included, in order.
    pub(crate) queue: Vec<Contender>,
}

/// A lock service in which contenders for a lock queue up; the first has it.
///
/// Every method is one attempt in the given session. An error means that nobody knows whether the service did it;
/// [`super::QueuedProvider`] finds out. No method may be harmed by being dropped half-way.
#[async_trait]
pub(crate) trait QueueStore: Debug + Send + Sync + 'static {
    /// Scheme of its URL, for logs and metrics.
    fn kind(&self) -> &'static str;
    /// What this instance is called.
    fn instance(&self) -> &str;
    /// What it can do.
    fn features(&self) -> Features;
    /// How the connection is.
    fn health(&self) -> Health;
    /// The current session, waiting for one if one may.
    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error>;

    /// Queues up for `name` (complete, with the prefix) and lists the queue: one round trip where the lock was used before.
    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error>;
    /// Everybody in the queue, in order.
    async fn queue(&self, session: &Session, name: &str) -> Result<Vec<Contender>, Error>;
    /// Our own place, looked for by the ticket: after an answer that never came.
    async fn find(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error>;
    /// Resolves once the contender has gone, or may have gone.
    async fn gone(&self, session: &Session, name: &str, contender: &Contender) -> Result<(), Error>;
    /// Takes our own place out of the queue; false when it was no longer there. One round trip.
    async fn leave(&self, session: &Session, name: &str, own: &Contender) -> Result<bool, Error>;
    /// The fencing token of our own place, where the service has them.
    fn token(&self, own: &Contender) -> Option<u64>;

    /// Holders and waiters of every lock; names without the prefix.
    async fn list(&self) -> Result<Vec<Holder>, Error>;
    /// Removes the contender that has the lock, whosever it is; false when there was none.
    async fn break_lock(&self, name: &str) -> Result<bool, Error>;
    /// Ends the session and the connection.
    async fn close(&self);
}
