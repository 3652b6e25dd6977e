//! The front door over HTTP, with a stand-in for the volume service where one is needed.

#[path = "../common/mod.rs"]
mod common;

mod attachments;
mod callers;
mod failures;
mod lists;
mod snapshots;
mod volumes;
