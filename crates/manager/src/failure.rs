//! How an operation ends when it does not end well.

use scoria_model::Fault;

/// Why an operation stopped.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// It failed: its steps were undone, the rows say so, the caller is told.
    Fault(Fault),
    /// It was interrupted: nothing was undone, whoever picks it up goes on from what is there.
    Interrupted(Interruption),
}

/// What interrupted an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// A lock is, or may be, no longer ours.
    #[error("a lock was lost")]
    LockLost,
    /// The process is to stop.
    #[error("shutting down")]
    Draining,
    /// Somebody else took the work over: its row is no longer ours.
    #[error("taken over by another instance")]
    Replaced,
    /// The row is no longer in a state that this request is about.
    #[error("superseded: the resource is '{0}'")]
    Superseded(String),
    /// Lock service, database or broker cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}

impl Interruption {
    /// Whether the request is to be tried again, by anyone.
    #[must_use]
    pub fn comes_again(&self) -> bool {
        !matches!(self, Self::Replaced | Self::Superseded(_))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "{}: {}", fault.class.name(), fault.message),
            Self::Interrupted(interruption) => write!(f, "interrupted: {interruption}"),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Interruption> for Failure {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

impl From<scoria_drivers::Error> for Failure {
    /// A cancelled driver call was cancelled by us: the operation itself says why at its next check.
    fn from(error: scoria_drivers::Error) -> Self {
        match error.kind {
            scoria_drivers::ErrorKind::Cancelled => Self::Interrupted(Interruption::LockLost),
            _ => Self::Fault(error.fault),
        }
    }
}

impl From<scoria_db::Error> for Failure {
    /// What the database cannot answer now is asked again later; what it will never answer is a fault.
    fn from(error: scoria_db::Error) -> Self {
        if error.is_retryable() {
            return Self::Interrupted(Interruption::Unavailable(error.to_string()));
        }
        Self::Fault(Fault::new(scoria_model::FaultClass::CinderException, error.to_string()))
    }
}

impl From<scoria_coordination::Error> for Failure {
    fn from(error: scoria_coordination::Error) -> Self {
        use scoria_coordination::Error;
        match error {
            Error::Lost { .. } => Self::Interrupted(Interruption::LockLost),
            Error::Closed => Self::Interrupted(Interruption::Draining),
            Error::Unavailable(_) => Self::Interrupted(Interruption::Unavailable(error.to_string())),
            Error::Busy { .. } | Error::Config(_) | Error::Unsupported(_) | Error::Name { .. } => {
                Self::Fault(Fault::new(scoria_model::FaultClass::CinderException, error.to_string()))
            }
        }
    }
}
