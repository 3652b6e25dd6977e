//! One lock service.

use async_trait::async_trait;
use scoria_runtime::CancellationToken;

use crate::{Error, Holder, Mode, Owner, WaitPolicy};

/// How far a lock reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every process of one machine.
    Node,
    /// Every process that names the same service.
    Cluster,
}

/// Whom a lock service can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Only what this process itself holds and waits for.
    Own,
    /// Every holder, but only our own waiters.
    Holders,
    /// Every holder and every waiter.
    All,
}

/// Who is served in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Waiters of one instance among themselves. Those of several instances, and of Python peers, are served in any order.
    Own,
    /// Waiters of all Scoria instances.
    All,
}

/// What a lock service can do; callers ask, tests and the documentation go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// It hands out monotonic fencing tokens.
    pub token: bool,
    /// Among whom waiters are served in order of arrival.
    pub order: Order,
    /// It has shared mode among our own instances.
    pub shared: bool,
    /// Whom it can name.
    pub listing: Listing,
}

/// How the connection to the service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Locks can be had.
    Up,
    /// They cannot; why, for an operator.
    Down(String),
}

/// A lock service. Names come complete, with the `cinder-` prefix.
#[async_trait]
pub trait Provider: Send + Sync + std::fmt::Debug + 'static {
    /// Scheme of its URL: `memory`, `file`, …
    fn kind(&self) -> &'static str;
    /// What this instance is called in the lists of holders.
    fn instance(&self) -> &str;
    /// How far its locks reach.
    fn scope(&self) -> Scope;
    /// What it can do.
    fn features(&self) -> Features;
    /// How the connection is.
    fn health(&self) -> Health;

    /// Takes one lock. Dropping the future withdraws the attempt: nothing stays behind.
    ///
    /// # Errors
    /// [`Error::Busy`] when it may not or no longer wait, [`Error::Unavailable`] when the service cannot be reached.
    async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error>;

    /// Who holds and who waits, as far as the service tells, ours and others'.
    ///
    /// # Errors
    /// When the service cannot be reached.
    async fn holders(&self) -> Result<Vec<Holder>, Error>;

    /// Takes a lock away from whoever holds it, a Python peer included, so that others can have it. False when nobody held it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where only the end of the holder frees a lock, [`Error::Unavailable`].
    async fn break_lock(&self, name: &str) -> Result<bool, Error>;

    /// Gives back what is still held and ends the connection.
    async fn close(&self);
}

/// One lock that is held. Dropping it without [`HeldLock::release`] gives it back in the background.
#[async_trait]
pub trait HeldLock: Send + Sync + std::fmt::Debug {
    /// Fencing token, where the service has one.
    fn token(&self) -> Option<u64>;
    /// Cancelled once the lock is or may be lost: perhaps early, never late.
    fn lost(&self) -> CancellationToken;
    /// Whether it is or may be lost, by the clock and not by a timer: what a process that was stopped has to ask first.
    fn is_lost(&self) -> bool {
        self.lost().is_cancelled()
    }
    /// Asks the service whether the lock is still ours.
    ///
    /// # Errors
    /// [`Error::Lost`] when it is not, [`Error::Unavailable`] when that cannot be known.
    async fn verify(&self) -> Result<(), Error>;
    /// Gives it back and waits until that is done.
    ///
    /// # Errors
    /// [`Error::Lost`] when it was no longer ours.
    async fn release(self: Box<Self>) -> Result<(), Error>;
}
