//! What the queued locks need of a lock service.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::lease::Lease;
use crate::{Error, Features, Health, Holder, Mode, Owner, WaitPolicy};

/// The session that everything of this process hangs on: when it ends, the service removes all our contenders.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Good until its deadline (with the margin taken off), put off by each confirmed beat. The store cares for the beats and
    /// for [`Lease::expired`]; once the lease is lost it abandons the session: nothing keeps that alive at the service any
    /// more, and what hangs on it goes with it.
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

impl Ticket {
    /// A new wish.
    pub(crate) fn new(mode: Mode, owner: &Owner) -> Self {
        Self { id: uuid::Uuid::new_v4().simple().to_string(), mode, owner: owner.clone() }
    }
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
    /// Its fencing token, where the service has them; only known of our own places, or where it costs nothing.
    pub(crate) token: Option<u64>,
}

/// Our own new place, and everybody's.
#[derive(Debug, Clone)]
pub(crate) struct Entered {
    /// Ours.
    pub(crate) own: Contender,
    /// Everybody's as of then, ours included, in order.
    pub(crate) queue: Vec<Contender>,
}

/// What is known of a contender whose end was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is no longer there, and never will be again.
    Surely,
    /// It may have gone: only a look at the queue tells.
    Perhaps,
}

/// A lock service in which contenders for a lock queue up; the first has it.
///
/// Every method is one attempt in the given session, with a time limit of the store's own, and may be dropped half-way.
/// [`Error::Unavailable`] means that nobody knows whether the service did it; [`super::QueuedProvider`] finds out. Any other
/// error means that it was not done and that trying again is of no use: it goes to whoever asked.
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
    /// Whether answers come in on the thread for beats, because the service wants requests and beats on one connection: whoever waits
    /// for one then waits there, and no other thread has to be woken in between. Otherwise the callers' executor has the connection.
    fn answers_on_heart(&self) -> bool {
        false
    }
    /// The current session, waiting for one if one may.
    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error>;

    /// Queues up for `name` (complete, with the prefix) and tells the queue: one round trip for a new name and for one that is in use
    /// here. Called once per ticket.
    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error>;
    /// Everybody in the queue, in order.
    async fn queue(&self, session: &Session, name: &str) -> Result<Vec<Contender>, Error>;
    /// Our own place, looked for by the ticket: after an answer that never came. `None` is final: an [`QueueStore::enter`] that
    /// was not answered and is not found takes no effect later either.
    async fn find(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error>;
    /// Resolves once the contender has gone, or may have gone; at once when it is not there. Also called for our own place, to
    /// notice that it was taken away. In one session whoever asked first is told first of what happened first.
    async fn gone(&self, session: &Session, name: &str, contender: &Contender) -> Result<Gone, Error>;
    /// Takes our own place out of the queue; false when it was no longer there. One round trip.
    async fn leave(&self, session: &Session, name: &str, own: &Contender) -> Result<bool, Error>;

    /// Holders and waiters of every lock; names without the prefix.
    async fn list(&self) -> Result<Vec<Holder>, Error>;
    /// Removes whoever has the lock ([`super::have_it`]), a Python peer included; false when there was none.
    async fn break_lock(&self, name: &str) -> Result<bool, Error>;
    /// Ends the session (its lease is lost then) and the connection.
    async fn close(&self);
}
