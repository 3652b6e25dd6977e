//! Tests of the manager in a small world: SQLite, locks and broker in the process, a directory as the share.

mod budgets;
mod laws;
mod operations;
pub(crate) mod script;
mod serving;
mod world;
