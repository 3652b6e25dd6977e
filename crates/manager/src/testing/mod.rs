//! Tests of the manager in a small world: SQLite, locks and broker in the process, a directory as the share.

mod attached;
mod budgets;
mod clock;
mod connections;
mod deaths;
mod exports;
mod holding;
mod isolation;
mod laws;
mod log;
mod nova;
mod operations;
pub(crate) mod script;
mod serving;
mod takeover;
mod world;
