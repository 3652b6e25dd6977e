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
/// Counter: how often the connection to the lock service had to be made anew; label [`BACKEND`] only.
pub const RECONNECTS_TOTAL: &str = "scoria_lock_reconnects_total";

/// Label: the kind of lock service.
pub const BACKEND: &str = "backend";
/// Label: `shared` or `exclusive`.
pub const MODE: &str = "mode";

/// Labels of one lock.
pub(crate) fn labels(backend: &'static str, mode: Mode) -> [(&'static str, &'static str); 2] {
    [(BACKEND, backend), (MODE, mode.as_str())]
}
