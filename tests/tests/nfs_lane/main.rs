//! Real NFS mounts of several hosts, inside user-mode Linux: who dies or is cut off, and what his locks do to the others. (The
//! drivers' suite on such mounts is in `real_nfs.rs`.)
//!
//! A test runs its own program again inside a guest, for the same test; the environment tells it which part it has there.

mod fence;
mod lock_files;
mod network;
#[path = "../../../crates/coordination/tests/common/peer.rs"]
mod peer;
