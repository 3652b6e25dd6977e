//! The options of `[coordination]` beside the URL.

use std::time::Duration;

/// How a coordinator behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What this instance is called in lists of holders; also the member id where a service has one. One per process:
    /// forked Python back ends share theirs, which confuses some services.
    pub instance: String,
    /// How often what is held is confirmed. Default 1 s.
    pub heartbeat: Duration,
    /// First wait before a broken connection is tried again. Default 0.1 s.
    pub initial_reconnect_backoff: Duration,
    /// Longest wait before a broken connection is tried again. Default 60 s.
    pub max_reconnect_backoff: Duration,
    /// A set held longer than this is warned of, then again after twice that, and so on. Default 60 s.
    pub warn_held_after: Duration,
    /// `file://` only: no Python process takes locks in this directory, so lock files may be removed when they are
    /// released. Default false: see [`crate::providers::FileProvider`].
    pub exclusive_directory: bool,
    /// `database://` only: the table, which the database of the service implements. Default none.
    pub lock_table: Option<std::sync::Arc<dyn scoria_model::LockTable>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance: format!("{}{}", crate::PREFIX, uuid::Uuid::new_v4()),
            heartbeat: Duration::from_secs(1),
            initial_reconnect_backoff: Duration::from_millis(100),
            max_reconnect_backoff: Duration::from_secs(60),
            warn_held_after: Duration::from_secs(60),
            exclusive_directory: false,
            lock_table: None,
        }
    }
}
