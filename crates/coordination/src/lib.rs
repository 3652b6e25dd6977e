//! Locks between the services of a cluster: named, waited for, and able to be lost.
//!
//! [`Coordinator`] is what operations use: it takes a sorted set of names on one [`Provider`], keeps the list of holders,
//! and hands out a [`LockSet`] whose loss can be awaited. A [`Provider`] is one lock service (`memory`, `file`, …).
//! Names and formats are Cinder's and tooz's to the byte, so that Python holders exclude us and we exclude them.
//!
//! What it is not: it knows no volume; names are made by those who know what they protect.

#[cfg(feature = "conformance")]
pub mod conformance;
mod coordinator;
mod error;
mod heart;
mod lease;
mod link;
mod lock_set;
pub mod metrics;
mod name;
mod options;
mod provider;
pub mod providers;
mod registry;
mod request;
#[cfg(test)]
mod simulation;
mod turns;
mod url;

pub use coordinator::Coordinator;
pub use error::Error;
pub use lock_set::LockSet;
pub use name::PREFIX;
pub use options::Options;
pub use provider::{Features, Health, HeldLock, Listing, Order, Provider, Scope};
pub use request::{Holder, LockRequest, Mode, Owner, WaitPolicy};
