//! Locks that were taken together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use scoria_runtime::{CancellationToken, Tasks};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::registry::{Registered, Registry};
use crate::{Error, HeldLock, Owner};

/// Locks taken together. [`LockSet::release`] gives them back and waits for it; dropping gives them back in the background.
#[derive(Debug)]
pub struct LockSet {
    locks: Vec<Taken>,
    lost: CancellationToken,
    _relays: Vec<Pin<Box<WaitForCancellationFutureOwned>>>,
    watcher: Option<JoinHandle<()>>,
}

/// One lock of the set. The lock goes before its line in the list of holders.
#[derive(Debug)]
struct Taken {
    name: String,
    lock: Box<dyn HeldLock>,
    entry: Registered,
}

impl LockSet {
    pub(crate) fn empty() -> Self {
        Self { locks: Vec::new(), lost: CancellationToken::new(), _relays: Vec::new(), watcher: None }
    }

    pub(crate) fn push(&mut self, name: String, lock: Box<dyn HeldLock>, entry: Registered) {
        self.locks.push(Taken { name, lock, entry });
    }

    /// Resolves with the name of the first lock that is lost.
    pub(crate) async fn first_lost(&self) -> &str {
        let mut losses: FuturesUnordered<_> = self
            .locks
            .iter()
            .map(|taken| async move {
                taken.lock.lost().cancelled_owned().await;
                taken.name.as_str()
            })
            .collect();
        match losses.next().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Starts to listen for losses and to warn when the set is held for long. Called once, when the set is complete.
    pub(crate) fn watched(
        mut self,
        tasks: &Tasks,
        registry: &Arc<Registry>,
        owner: Arc<Owner>,
        warn: Duration,
    ) -> Self {
        match self.locks.as_slice() {
            [only] => self.lost = only.lock.lost(),
            several => self._relays = several.iter().map(|taken| relay(taken.lock.lost(), &self.lost)).collect(),
        }
        if !self.locks.is_empty() {
            let watch = Watch {
                registry: registry.clone(),
                names: self.names().collect::<Vec<_>>().join(", "),
                locks: self.locks.iter().map(|taken| (taken.entry.id(), taken.lock.lost())).collect(),
                owner,
                stop: tasks.stop_token(),
            };
            self.watcher = Some(tasks.spawn("lock-set", watch.run(warn)));
        }
        self
    }

    /// The names, sorted, without the prefix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.locks.iter().map(|taken| taken.name.as_str())
    }

    /// The highest fencing token of the set, where the service has tokens.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        self.locks.iter().filter_map(|taken| taken.lock.token()).max()
    }

    /// Cancelled once any of the locks is or may be lost: perhaps early, never late. It stays uncancelled after a release.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Whether any of the locks is or may be lost, by the clock: to be asked before every effect. A process that was stopped
    /// for longer than its locks live knows it before any timer has fired.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.locks.iter().any(|taken| taken.lock.is_lost())
    }

    /// Asks the lock service whether all of them are still ours.
    ///
    /// # Errors
    /// [`Error::Lost`] when one is not, [`Error::Unavailable`] when that cannot be known.
    pub async fn verify(&self) -> Result<(), Error> {
        for taken in &self.locks {
            if let Err(error) = taken.lock.verify().await {
                if matches!(error, Error::Lost { .. }) {
                    self.lost.cancel();
                    taken.entry.lost(&error);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives all of them back, last taken first.
    ///
    /// # Errors
    /// [`Error::Lost`] when one was no longer ours; the others are given back all the same.
    pub async fn release(mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(Taken { lock, entry, .. }) = self.locks.pop() {
            if let Err(error) = lock.release().await {
                if matches!(error, Error::Lost { .. }) {
                    entry.lost(&error);
                }
                result = result.and(Err(error));
            }
        }
        result
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        while self.locks.pop().is_some() {}
    }
}

/// Cancels the token of a set from within the call that cancels a lock's: a task in between could come too late for
/// somebody who looks between two effects.
struct Relay(CancellationToken);

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

/// Relays for as long as the result lives.
fn relay(from: CancellationToken, to: &CancellationToken) -> Pin<Box<WaitForCancellationFutureOwned>> {
    let mut waiting = Box::pin(from.cancelled_owned());
    let waker = Waker::from(Arc::new(Relay(to.clone())));
    if waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        to.cancel();
    }
    waiting
}

/// What the task beside a set looks after: the log and the metrics.
struct Watch {
    registry: Arc<Registry>,
    names: String,
    locks: Vec<(u64, CancellationToken)>,
    owner: Arc<Owner>,
    stop: CancellationToken,
}

impl Watch {
    async fn run(self, mut warn: Duration) {
        let since = Instant::now();
        let mut losses: FuturesUnordered<_> = self
            .locks
            .iter()
            .map(|(id, lost)| async move {
                lost.cancelled().await;
                *id
            })
            .collect();
        loop {
            tokio::select! {
                biased;
                Some(id) = losses.next() => {
                    self.registry.lost(id, None);
                }
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep_until(since + warn) => {
                    tracing::warn!(
                        locks = self.names,
                        operation = self.owner.operation,
                        request_id = self.owner.request_id,
                        resource = self.owner.resource,
                        held_seconds = warn.as_secs_f64(),
                        "locks are held for long"
                    );
                    warn = warn.saturating_mul(2);
                }
            }
        }
    }
}
