//! A lock service whose leases can be over without anybody having been told: what a process finds that was stopped for
//! longer than its locks live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Error, Features, Health, HeldLock, Holder, Mode, Owner, Provider, Scope, WaitPolicy};
use scoria_runtime::CancellationToken;

/// Locks in memory with leases that end when a test says so.
#[derive(Debug, Clone)]
pub(crate) struct ClockedProvider {
    locks: Arc<MemoryProvider>,
    /// Rises when all leases are over.
    time: Arc<AtomicU64>,
}

#[derive(Debug)]
struct ClockedLock {
    lock: Box<dyn HeldLock>,
    taken: u64,
    time: Arc<AtomicU64>,
}

impl ClockedProvider {
    pub(crate) fn new(locks: Arc<MemoryProvider>) -> Self {
        Self { locks, time: Arc::default() }
    }

    /// Whatever is held now is over by the clock; no token is cancelled.
    pub(crate) fn leases_are_over(&self) {
        self.time.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for ClockedProvider {
    fn kind(&self) -> &'static str {
        self.locks.kind()
    }
    fn instance(&self) -> &str {
        self.locks.instance()
    }
    fn scope(&self) -> Scope {
        self.locks.scope()
    }
    fn features(&self) -> Features {
        self.locks.features()
    }
    fn health(&self) -> Health {
        self.locks.health()
    }
    async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        let lock = self.locks.acquire(name, mode, owner, wait).await?;
        Ok(Box::new(ClockedLock { lock, taken: self.time.load(Ordering::SeqCst), time: self.time.clone() }))
    }
    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        self.locks.holders().await
    }
    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        self.locks.break_lock(name).await
    }
    async fn close(&self) {
        self.locks.close().await;
    }
}

#[async_trait]
impl HeldLock for ClockedLock {
    fn token(&self) -> Option<u64> {
        self.lock.token()
    }
    fn lost(&self) -> CancellationToken {
        self.lock.lost()
    }
    fn is_lost(&self) -> bool {
        self.taken < self.time.load(Ordering::SeqCst)
    }
    async fn verify(&self) -> Result<(), Error> {
        self.lock.verify().await
    }
    async fn release(self: Box<Self>) -> Result<(), Error> {
        self.lock.release().await
    }
}
