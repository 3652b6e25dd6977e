//! The names of the metrics of locks. Each has the labels [`BACKEND`] (`memory`, `file`, …) and [`MODE`].

use crate::Mode;

/// Histogram: seconds from asking for a lock to having it.
pub const WAIT_SECONDS: &str = "scoria_lock_wait_seconds";
/// Histogram: seconds from having a lock to having given it back.
pub const HELD_SECONDS: &str = "scoria_lock_held_seconds";
/// Gauge: locks held now.
pub const HELD: &str = "scoria_locks_held";
/// Counter: locks that were lost while held.
pub const LOST_TOTAL: &str = "scoria_locks_lost_total";
/// Counter: how often a connection to the lock service was made anew after it had been lost; label [`BACKEND`] only.
pub const RECONNECTS_TOTAL: &str = "scoria_lock_reconnects_total";

/// Label: the kind of lock service.
pub const BACKEND: &str = "backend";
/// Label: `shared` or `exclusive`.
pub const MODE: &str = "mode";

/// Registers help texts with the recorder.
pub fn describe() {
    let seconds = ::metrics::Unit::Seconds;
    ::metrics::describe_histogram!(WAIT_SECONDS, seconds, "From asking for a lock to having it, by backend and mode");
    ::metrics::describe_histogram!(HELD_SECONDS, seconds, "From having a lock to giving it back, by backend and mode");
    ::metrics::describe_gauge!(HELD, "Locks held now, by backend and mode");
    ::metrics::describe_counter!(LOST_TOTAL, "Locks that were lost while held, by backend and mode");
    ::metrics::describe_counter!(RECONNECTS_TOTAL, "Connections to the lock service made anew, by backend");
}

/// Counts a connection that was made anew.
pub(crate) fn reconnected(backend: &'static str) {
    ::metrics::counter!(RECONNECTS_TOTAL, BACKEND => backend).increment(1);
}

/// Labels of one lock.
pub(crate) fn labels(backend: &'static str, mode: Mode) -> [(&'static str, &'static str); 2] {
    [(BACKEND, backend), (MODE, mode.as_str())]
}
