//! Storage back ends behind one trait.
//!
//! A driver gets specs (rows as they stand) and returns facts: it never reads or writes the database, never sends a
//! message, never takes a distributed lock. Cross-cutting behaviour (metrics, faults for tests) is a layer around the trait.
//!
//! `remotefs` is what every driver on a mounted share has in common; `nfs` and `local` stand on it.

#[cfg(feature = "conformance")]
pub mod conformance;
mod driver;
mod error;
mod fault;
mod local;
mod nfs;
mod remotefs;

pub use driver::{
    AssistedSnapshots, BackendStats, Capabilities, ConnectionInfo, DriverInfo, Merge, SnapshotFacts, VolumeDriver,
    VolumeFacts, Work,
};
pub use error::{Error, ErrorKind};
pub use fault::Faults;
pub use local::{LocalDriver, LocalOptions};
pub use nfs::{NfsDriver, NfsOptions};
pub use remotefs::inspect::{Format, Inspection, inspect};
