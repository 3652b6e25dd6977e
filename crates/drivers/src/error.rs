//! What can go wrong in a driver.

use std::fmt::Display;
use std::path::Path;

use scoria_model::{Fault, FaultClass};
use scoria_runtime::{CommandError, Unresponsive};

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

    /// A `VolumeDriverException`.
    pub(crate) fn driver(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, FaultClass::VolumeDriverException, message)
    }

    /// A volume in the wrong state or of the wrong kind.
    pub(crate) fn invalid_volume(reason: impl Display) -> Self {
        Self { kind: ErrorKind::Invalid, fault: Fault::invalid_volume(reason) }
    }

    /// A snapshot in the wrong state.
    pub(crate) fn invalid_snapshot(reason: impl Display) -> Self {
        Self { kind: ErrorKind::Invalid, fault: Fault::invalid_snapshot(reason) }
    }

    /// An option with a value it cannot have.
    pub(crate) fn option(name: &str, value: impl Display, remedy: &str) -> Self {
        let message = format!("Value \"{value}\" is not valid for configuration option \"{name}\": {remedy}");
        let fault = Fault::new(FaultClass::InvalidConfigurationValue, message);
        Self { kind: ErrorKind::Config, fault: fault.with("value", value.to_string()).with("option", name) }
    }

    /// A file call that failed.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::StaleNetworkFileHandle | Io::TimedOut | Io::NotConnected | Io::HostUnreachable => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Failed,
        };
        Self::driver(kind, format!("cannot {what} {}: {error}", path.display()))
    }
}

impl From<Unresponsive> for Error {
    fn from(error: Unresponsive) -> Self {
        Self::driver(ErrorKind::Unavailable, format!("share {error}; check its server and its mount"))
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        let full = ["No space left on device", "Disk quota exceeded"].iter().any(|text| error.stderr().contains(text));
        let kind = match &error {
            _ if full => ErrorKind::NoSpace,
            CommandError::Timeout { .. } | CommandError::Cancelled { .. } => ErrorKind::Cancelled,
            CommandError::NotFound { .. } => ErrorKind::Config,
            _ => ErrorKind::Failed,
        };
        Self::driver(kind, error.to_string())
    }
}
