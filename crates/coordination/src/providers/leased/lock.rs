//! A lock that is held.

use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::{CancellationToken, Deadline};
use tokio::time::Instant;

use crate::lease::Lease;
use crate::name::bare;
use crate::{Error, HeldLock, WaitPolicy};

use super::keeper::AGAIN;
use super::wish::{Footprint, Trace};

/// The longest that a release is waited for; then it goes on in the background.
const RELEASE: Duration = Duration::from_secs(5);

/// A lock that is held; given back in the background when it is dropped.
#[derive(Debug)]
pub(super) struct LeasedLock {
    footprint: Footprint,
    lease: Lease,
    token: Option<u64>,
}

impl LeasedLock {
    pub(super) fn new(footprint: Footprint, lease: Lease, token: Option<u64>) -> Self {
        Self { footprint, lease, token }
    }

    fn lost_error(&self) -> Error {
        let name = bare(&self.footprint.claim.name).to_owned();
        Error::Lost { name, reason: self.lease.reason().to_owned() }
    }

    fn gone(&self) -> Error {
        self.lease.lose("its record is gone or somebody else's");
        self.lost_error()
    }

    /// Gives it back, again and again while nobody answers. An answer that it was not there is a loss only at the first try: it
    /// may have been the first one that did it.
    async fn give_back(&mut self) -> Result<(), Error> {
        let Footprint { keeper, claim, trace, .. } = &mut self.footprint;
        let deadline = self.lease.deadline().min(Instant::now() + RELEASE);
        let mut again = AGAIN;
        loop {
            let before = std::mem::replace(trace, Trace::Unknown);
            let outcome = keeper.ask(keeper.store.give_back(claim)).await;
            match outcome {
                Ok(ours) => {
                    *trace = Trace::Nothing;
                    return if ours || before == Trace::Unknown { Ok(()) } else { Err(self.gone()) };
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(again).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let _down = keeper.store.ready(WaitPolicy::Until(Deadline::after(left))).await;
            again *= 2;
        }
    }
}

#[async_trait]
impl HeldLock for LeasedLock {
    fn token(&self) -> Option<u64> {
        self.token
    }

    fn lost(&self) -> CancellationToken {
        self.lease.lost()
    }

    fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    async fn verify(&self) -> Result<(), Error> {
        if self.lease.is_lost() {
            return Err(self.lost_error());
        }
        let keeper = &self.footprint.keeper;
        let found = keeper.ask(keeper.store.find(&self.footprint.claim)).await?;
        if found.is_none() {
            return Err(self.gone());
        }
        if self.lease.is_lost() { Err(self.lost_error()) } else { Ok(()) }
    }

    async fn release(mut self: Box<Self>) -> Result<(), Error> {
        self.footprint.keeper.forget(self.footprint.serial);
        if self.lease.is_lost() {
            return Err(self.lost_error());
        }
        self.give_back().await
    }
}

impl Drop for LeasedLock {
    fn drop(&mut self) {
        self.footprint.courtesy.released(&self.footprint.claim.name);
    }
}
