//! What can be asked for, a file per subject.

pub(crate) mod config;
pub(crate) mod db;
mod guard;
pub(crate) mod locks;
mod locks_at;
mod locks_break;
mod locks_run;
pub(crate) mod operations;
pub(crate) mod service;
pub(crate) mod snapshot;
mod terminal;
pub(crate) mod volume;

/// Column of a time.
fn time(at: Option<scoria_model::Timestamp>) -> Option<String> {
    at.map(scoria_model::Timestamp::to_iso_micros)
}
