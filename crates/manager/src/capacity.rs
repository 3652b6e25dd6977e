//! GiB allocated to volumes by pool, as reported to the scheduler.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counts what this service has made and removed since it counted its rows at start
/// (`cinder/volume/manager.py: VolumeManager._update_allocated_capacity`).
#[derive(Debug, Default)]
pub(crate) struct Allocated(Mutex<BTreeMap<String, i64>>);

impl Allocated {
    /// Adds `gib`, which may be negative, to a pool; it never falls below zero.
    pub(crate) fn add(&self, pool: &str, gib: i64) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allocated = pools.entry(pool.to_owned()).or_default();
        *allocated = (*allocated + gib).max(0);
    }

    /// Sets all pools anew, after the rows were counted.
    pub(crate) fn set(&self, pools: BTreeMap<String, i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// GiB in all pools.
    pub(crate) fn total(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}
