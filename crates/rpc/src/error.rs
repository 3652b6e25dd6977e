//! What can go wrong with messages.

use scoria_model::Fault;

/// An error of the transport or of the peer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached (now).
    #[error("message broker unavailable: {0}")]
    Unavailable(String),
    /// No answer came in time.
    #[error("no reply to {method} within {seconds} s")]
    Timeout {
        /// Method called.
        method: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The peer answered with an exception.
    #[error("{0}")]
    Remote(#[from] Fault),
    /// The peer answered with an exception of a class we do not know.
    #[error("remote error: {class}: {message}")]
    RemoteUnknown {
        /// Class name.
        class: String,
        /// Message.
        message: String,
    },
    /// The transport URL or an option is wrong.
    #[error("transport_url: {0}")]
    Config(String),
    /// The transport was closed.
    #[error("shutting down")]
    Closed,
}

impl Error {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout { .. })
    }
}
