//! Our own waiters that stand in line, by claim.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::providers::leased::{Looks, Taken};

/// Who stands in line, what it has seen, and what it was handed.
#[derive(Debug)]
pub(super) struct Waiting {
    by_claim: Mutex<HashMap<String, Looks>>,
    time_to_live: Duration,
}

impl Waiting {
    /// What they are handed is theirs for so long.
    pub(super) fn new(time_to_live: Duration) -> Self {
        Self { by_claim: Mutex::default(), time_to_live }
    }

    fn by_claim(&self) -> MutexGuard<'_, HashMap<String, Looks>> {
        self.by_claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From its next look on the claim stands in line.
    pub(super) fn wait(&self, claim: &str) {
        self.by_claim().entry(claim.to_owned()).or_default();
    }

    /// The claim is about to look; whether it waits.
    pub(super) fn looks(&self, claim: &str, sent: Instant) -> bool {
        self.by_claim().get_mut(claim).map(|looks| looks.looks(sent)).is_some()
    }

    /// When it asked then, somebody else had the lock with this token.
    pub(super) fn looked(&self, claim: &str, sent: Instant, token: u64) {
        if let Some(looks) = self.by_claim().get_mut(claim) {
            looks.looked(sent, token);
        }
    }

    /// It has been told something: that it was handed the lock with this token, or that it has to look.
    pub(super) fn told(&self, claim: &str, token: Option<u64>) {
        if let Some(looks) = self.by_claim().get_mut(claim) {
            looks.told(token, self.time_to_live);
        }
    }

    /// The lock, if it was the claim's when it was told so last.
    pub(super) fn handed_on(&self, claim: &str) -> Option<Taken> {
        self.by_claim().get(claim)?.handed_on()
    }

    /// It waits no longer.
    pub(super) fn forget(&self, claim: &str) {
        self.by_claim().remove(claim);
    }
}
