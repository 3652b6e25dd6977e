//! What can go wrong with locks.

/// An error of the lock service.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Somebody else holds it and there was no (more) time to wait.
    #[error("lock '{name}' is held{by}")]
    Busy {
        /// Name without prefix.
        name: String,
        /// ` by …`, or empty.
        by: String,
    },
    /// It was ours and is no longer.
    #[error("lock '{name}' was lost: {reason}")]
    Lost {
        /// Name without prefix.
        name: String,
        /// How it was noticed.
        reason: String,
    },
    /// The service cannot be reached or does not answer.
    #[error("lock service unavailable: {0}")]
    Unavailable(String),
    /// The URL or an option of it is wrong.
    #[error("[coordination] backend_url: {0}")]
    Config(String),
    /// The lock service has no means for it.
    #[error("{0}")]
    Unsupported(String),
    /// A name that cannot be a lock name.
    #[error("'{name}' cannot be a lock name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The coordinator was closed.
    #[error("shutting down")]
    Closed,
}

impl Error {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable(_))
    }
}
