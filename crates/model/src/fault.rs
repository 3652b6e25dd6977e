//! Errors as the Python client knows them.
//!
//! A reply's failure names a Python class, a message and constructor arguments; the client rebuilds the exception from
//! them and cinder-api turns it into an HTTP answer. A class it does not know becomes an HTTP 500, so every fault that
//! leaves the service is one of [`FaultClass`].

use std::fmt;

use serde_json::{Map, Value};

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $module:literal, $code:literal;)*) => {
        /// The Python exception classes that we raise.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultClass {
            $($(#[$doc])* #[doc = concat!("`", $module, ".", stringify!($variant), "`")] $variant,)*
        }

        impl FaultClass {
            /// Class name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// Python module.
            #[must_use]
            pub fn module(self) -> &'static str {
                match self { $(Self::$variant => $module,)* }
            }

            /// HTTP status that the API answers with.
            #[must_use]
            pub fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The class of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $(stringify!($variant) => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

classes! {
    VolumeNotFound = "cinder.exception", 404;
    SnapshotNotFound = "cinder.exception", 404;
    VolumeAttachmentNotFound = "cinder.exception", 404;
    VolumeTypeNotFound = "cinder.exception", 404;
    ServiceNotFound = "cinder.exception", 404;
    NotFound = "cinder.exception", 404;
    Invalid = "cinder.exception", 400;
    InvalidInput = "cinder.exception", 400;
    InvalidVolume = "cinder.exception", 400;
    InvalidSnapshot = "cinder.exception", 400;
    InvalidUUID = "cinder.exception", 400;
    InvalidVolumeAttachMode = "cinder.exception", 400;
    InvalidVolumeType = "cinder.exception", 400;
    InvalidConfigurationValue = "cinder.exception", 400;
    InvalidParameterValue = "cinder.exception", 400;
    VolumeAttached = "cinder.exception", 400;
    VolumeIsBusy = "cinder.exception", 500;
    SnapshotIsBusy = "cinder.exception", 500;
    VolumeBackendAPIException = "cinder.exception", 500;
    VolumeDriverException = "cinder.exception", 500;
    DriverNotInitialized = "cinder.exception", 500;
    ExportFailure = "cinder.exception", 400;
    RemoveExportException = "cinder.exception", 500;
    ExtendVolumeError = "cinder.exception", 500;
    MetadataCopyFailure = "cinder.exception", 400;
    MetadataUpdateFailure = "cinder.exception", 400;
    CleanableInUse = "cinder.exception", 400;
    OverQuota = "cinder.exception", 500;
    VolumeLimitExceeded = "cinder.exception", 413;
    VolumeSizeExceedsAvailableQuota = "cinder.exception", 413;
    SnapshotLimitExceeded = "cinder.exception", 413;
    RemoteFSException = "cinder.exception", 500;
    RemoteFSInvalidBackingFile = "cinder.exception", 500;
    RemoteFSConcurrentRequest = "cinder.exception", 500;
    NfsException = "cinder.exception", 500;
    NfsNoSharesMounted = "cinder.exception", 500;
    NfsNoSuitableShareFound = "cinder.exception", 500;
    CinderException = "cinder.exception", 500;
    NotImplementedError = "builtins", 501;
    TypeError = "builtins", 500;
    ValueError = "builtins", 500;
    UnsupportedVersion = "oslo_messaging.rpc.dispatcher", 500;
    NoSuchMethod = "oslo_messaging.rpc.dispatcher", 500;
    IncompatibleObjectVersion = "oslo_versionedobjects.exception", 500;
}

/// One error for a caller: class, message, and the keyword arguments its constructor takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Class.
    pub class: FaultClass,
    /// Message, safe to show to a user.
    pub message: String,
    /// Constructor's keyword arguments (`code` is added on the wire).
    pub kwargs: Map<String, Value>,
}

impl Fault {
    /// A fault with a message of its own.
    #[must_use]
    pub fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), kwargs: Map::new() }
    }

    /// Adds one keyword argument.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.kwargs.insert(key.to_owned(), value.into());
        self
    }

    /// The volume is gone.
    #[must_use]
    pub fn volume_not_found(id: impl fmt::Display) -> Self {
        Self::new(FaultClass::VolumeNotFound, format!("Volume {id} could not be found."))
            .with("volume_id", id.to_string())
    }

    /// The snapshot is gone.
    #[must_use]
    pub fn snapshot_not_found(id: impl fmt::Display) -> Self {
        Self::new(FaultClass::SnapshotNotFound, format!("Snapshot {id} could not be found."))
            .with("snapshot_id", id.to_string())
    }

    /// The attachment is gone.
    #[must_use]
    pub fn attachment_not_found(id: impl fmt::Display) -> Self {
        let message = format!("Volume attachment could not be found with filter: attachment_id = {id}.");
        Self::new(FaultClass::VolumeAttachmentNotFound, message).with("filter", format!("attachment_id = {id}"))
    }

    /// The volume is not in a state or of a kind for this.
    #[must_use]
    pub fn invalid_volume(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::InvalidVolume, format!("Invalid volume: {reason}")).with("reason", reason.to_string())
    }

    /// The snapshot is not in a state for this.
    #[must_use]
    pub fn invalid_snapshot(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::InvalidSnapshot, format!("Invalid snapshot: {reason}")).with("reason", reason.to_string())
    }

    /// The request itself is wrong.
    #[must_use]
    pub fn invalid_input(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::InvalidInput, format!("Invalid input received: {reason}"))
            .with("reason", reason.to_string())
    }

    /// The volume is attached.
    #[must_use]
    pub fn volume_attached(id: impl fmt::Display) -> Self {
        Self::new(FaultClass::VolumeAttached, format!("Volume {id} is still attached, detach volume first."))
            .with("volume_id", id.to_string())
    }

    /// The driver or what is behind it failed.
    #[must_use]
    pub fn backend(data: impl fmt::Display) -> Self {
        let message = format!("Bad or unexpected response from the storage volume backend API: {data}");
        Self::new(FaultClass::VolumeBackendAPIException, message).with("data", data.to_string())
    }

    /// The driver is not set up.
    #[must_use]
    pub fn driver_not_initialized() -> Self {
        Self::new(FaultClass::DriverNotInitialized, "Volume driver not ready.")
    }

    /// A method the dispatcher does not have.
    #[must_use]
    pub fn no_such_method(method: &str) -> Self {
        Self::new(FaultClass::NoSuchMethod, format!("Endpoint does not support RPC method {method}"))
    }

    /// A version the dispatcher does not have.
    #[must_use]
    pub fn unsupported_version(version: &str, method: &str) -> Self {
        let message = format!("Endpoint does not support RPC version {version}. Attempted method: {method}");
        Self::new(FaultClass::UnsupportedVersion, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
