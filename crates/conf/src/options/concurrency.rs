//! `[oslo_concurrency]`.

use std::path::PathBuf;

use super::spec::{BOOL, STR, options};

options! {
    /// `[oslo_concurrency]` (`oslo_concurrency/lockutils.py`).
    pub struct ConcurrencyOptions in "oslo_concurrency" => {
        /// The directory of the lock files that other services on this node share. The environment variable `OSLO_LOCK_PATH` is its default.
        lock_path: Option<PathBuf> = STR;
        /// Whether lock files are not used at all.
        disable_process_locking: bool = BOOL.default("false");
    }
}
