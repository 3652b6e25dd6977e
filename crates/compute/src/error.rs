//! What can go wrong between Nova and us.

/// Why Nova did not take something on. None contains a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An option has a value that it cannot have.
    #[error("[nova] {0}")]
    Config(String),
    /// It was certainly not done: Nova or Keystone was not reached, or refused it.
    #[error("{0}")]
    NotDone(String),
    /// Nobody knows: it was sent, and the answer did not come or does not tell.
    #[error("{0}")]
    Unknown(String),
}
