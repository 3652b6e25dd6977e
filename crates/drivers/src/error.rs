//! What can go wrong in a driver.

use scoria_model::{Fault, FaultClass};

/// What the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be served on this volume or snapshot in its state.
    Invalid,
    /// There is no room.
    NoSpace,
    /// The volume or snapshot is in use just now.
    Busy,
    /// The back end cannot be reached; trying again may help.
    Unavailable,
    /// The back end cannot do this.
    Unsupported,
    /// The operation was cancelled, its lock lost or its deadline passed.
    Cancelled,
    /// The configuration is wrong.
    Config,
    /// Anything else.
    Failed,
}

/// An error of a driver: a kind for the operation, a fault for the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{fault}")]
pub struct Error {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// What the Python client knows it as.
    pub fault: Fault,
}

impl Error {
    /// An error with a class of its own.
    #[must_use]
    pub fn new(kind: ErrorKind, class: FaultClass, message: impl Into<String>) -> Self {
        Self { kind, fault: Fault::new(class, message) }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unavailable)
    }
}
