//! Locks between the services of a cluster: named, waited for, and able to be lost.
//!
//! [`Coordinator`] is what operations use: it takes a sorted set of names on one [`Provider`], keeps the list of holders,
//! and hands out a [`LockSet`] whose loss can be awaited. A [`Provider`] is one lock service (`memory`, `file`, …).
//! Names and formats are Cinder's and tooz's to the byte, so that Python holders exclude us and we exclude them.
//!
//! What it is not: it knows no volume; names are made by those who know what they protect.

mod coordinator;
mod error;
mod provider;
pub mod providers;
mod request;

pub use coordinator::{Coordinator, LockSet};
pub use error::Error;
pub use provider::{Features, Health, HeldLock, Provider, Scope};
pub use request::{Holder, LockRequest, Mode, Owner, WaitPolicy};

/// Cinder's prefix of every lock name (`cinder/coordination.py: COORDINATOR`).
pub const PREFIX: &str = "cinder-";
