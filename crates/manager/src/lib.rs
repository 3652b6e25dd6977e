//! The operations of the volume service: what `cinder/volume/manager.py: VolumeManager` does, one file each.
//!
//! A request comes in through [`VolumeManager::serve`], waits for its turn and its locks, runs as a short list of
//! idempotent steps against rows that are only ever compared and swapped, and is acknowledged when its outcome is
//! durable. What interrupts it (a lost lock, a drain, an unreachable database) leaves a state that any other instance,
//! or this one after a restart, picks up.
//!
//! What it is not: it speaks to lock service, broker, database and storage only through their crates' own words.

mod args;
mod capacity;
mod deaths;
mod failure;
mod held;
mod isolation;
mod locks;
mod manager;
mod metrics;
mod notify;
mod operations;
mod options;
mod recovery;
mod reports;
mod running;
mod serve;
mod start;
mod steps;
mod sweep;
#[cfg(test)]
mod testing;

pub use failure::{Failure, Interruption};
pub use isolation::Access;
pub use manager::{Parts, VolumeManager};
pub use metrics::describe as describe_metrics;
pub use operations::{METHODS, NOT_YET};
pub use options::{LogControl, Options};
pub use running::{Running, RunningOperation};
