//! A table of locks: what the lock service `database://` needs of the database.
//!
//! A lock is a row that is somebody's until a time on the database's clock. This trait is the seam between two crates that
//! do not know each other: the database implements it, the lock service uses it, the daemon hands it over.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

/// Why a call did nothing, or nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockTableError {
    /// The database cannot be reached or does not answer: what was asked may have been done.
    #[error("{0}")]
    Unavailable(String),
    /// The database refused, and nothing was done: the table is not there, for example. With the remedy.
    #[error("{0}")]
    Refused(String),
}

/// A wish for one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWish {
    /// Complete name: ASCII, at most 255 characters.
    pub name: String,
    /// Which wish it is: new for each, at most 36 characters, none of them a blank. The row is ours as long as it has this.
    pub claim: String,
    /// For the list of holders, cut where it is too long: which instance, on which host.
    pub instance: String,
    /// Host of the instance.
    pub host: Option<String>,
    /// Operation that asks.
    pub operation: String,
    /// Request of the operation.
    pub request_id: Option<String>,
    /// Resource that the operation is about.
    pub resource: Option<String>,
}

/// The answer to a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockAnswer {
    /// It is ours.
    Ours(LockLease),
    /// It is somebody else's: the lease of the latest holder, where it is known, if it is neither given back nor extended.
    Held(Option<LockLease>),
}

/// What a holder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockLease {
    /// Fencing token: higher than that of every holder of this name before.
    pub token: u64,
    /// How long it stays the holder's, counted from some time after the question was sent.
    pub remaining: Duration,
}

/// A line of the list of holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRow {
    /// As it was asked for.
    pub wish: LockWish,
    /// Fencing token.
    pub token: u64,
    /// How long it has been held.
    pub since: Duration,
}

/// An eye on one lock for one claim; dropping it ends the watch.
#[async_trait]
pub trait LockWatch: Debug + Send {
    /// Resolves when the lock may have become free, or with a fencing token when it was handed on to the claim: that may have been
    /// long ago, and be over. May be called again.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn freed(&mut self) -> Result<Option<u64>, LockTableError>;
}

/// Locks in a table. Each method is one attempt; none is harmed by being dropped half-way, and what it asked for may happen all
/// the same.
///
/// Every time is the database's: a row's end is computed and compared there.
#[async_trait]
pub trait LockTable: Debug + Send + Sync + 'static {
    /// Whether only processes of one machine can reach the database.
    fn is_local(&self) -> bool;

    /// Whether those who wait stand in line: whoever gives a lock back hands it on to the first, who is told. Otherwise they have to
    /// look.
    fn hands_on(&self) -> bool;

    /// The longest that a lock is free before somebody who watches it is told; nothing, where it is handed on.
    fn wakes_within(&self) -> Duration;

    /// Whether the table is there and can be used.
    ///
    /// # Errors
    /// [`LockTableError::Refused`] with the command that makes it.
    async fn check(&self) -> Result<(), LockTableError>;

    /// Takes the lock if it is nobody's, or if whoever had it has let its time pass. One round trip when it is free.
    ///
    /// Who `waits` stands in line from then on where locks are handed on, for as long as it lives or three seconds, whichever is
    /// shorter, and keeps its place by asking again before. It is handed a lease of `time_to_live`.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn take(&self, wish: &LockWish, time_to_live: Duration, waits: bool) -> Result<LockAnswer, LockTableError>;

    /// Gives all of them so much more time, counted from now, in one statement; for each whether it is still ours.
    /// The arguments are names with their claims.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn extend(&self, held: &[(&str, &str)], time_to_live: Duration) -> Result<Vec<bool>, LockTableError>;

    /// The row, if it is this claim's.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn find(&self, name: &str, claim: &str) -> Result<Option<LockLease>, LockTableError>;

    /// Frees the lock or hands it on if it is this claim's, in one round trip; otherwise takes the claim out of the line. Whether it
    /// was this claim's.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn give_back(&self, name: &str, claim: &str) -> Result<bool, LockTableError>;

    /// Begins to watch a lock for a claim that waits: from when this resolves, it is told.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn watch(&self, name: &str, claim: &str) -> Result<Box<dyn LockWatch>, LockTableError>;

    /// Everybody who holds a lock.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn list(&self) -> Result<Vec<LockRow>, LockTableError>;

    /// Frees a lock or hands it on, whosever it is; false when it was nobody's.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn break_lock(&self, name: &str) -> Result<bool, LockTableError>;

    /// Removes rows of locks that nobody has held for long. To be called now and then.
    ///
    /// # Errors
    /// See [`LockTableError`].
    async fn sweep(&self) -> Result<(), LockTableError>;

    /// The connections have gone silent: lets go of them. The next call makes new ones.
    fn renew(&self);

    /// Closes the connections.
    async fn close(&self);
}
