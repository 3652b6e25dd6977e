//! Status words of volumes, snapshots and attachments, as they stand in the database
//! (`cinder/objects/fields.py`).

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* #[doc = concat!("`", $text, "`")] $variant,)*
            /// A word this release does not know; it is kept and written back as it came.
            Other(String),
        }

        impl $name {
            /// The word in the database and on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            /// Every known word.
            pub const KNOWN: &'static [&'static str] = &[$($text),*];
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Infallible;
            fn from_str(text: &str) -> Result<Self, Infallible> {
                Ok(Self::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

status! {
    /// A volume's status.
    VolumeStatus {
        Creating = "creating",
        Available = "available",
        Deleting = "deleting",
        Deleted = "deleted",
        Error = "error",
        ErrorDeleting = "error_deleting",
        ErrorManaging = "error_managing",
        ErrorManagingDeleting = "error_managing_deleting",
        ErrorUnmanaging = "error_unmanaging",
        Managing = "managing",
        Unmanaging = "unmanaging",
        Attaching = "attaching",
        InUse = "in-use",
        Detaching = "detaching",
        Maintenance = "maintenance",
        RestoringBackup = "restoring-backup",
        ErrorRestoring = "error_restoring",
        Reserved = "reserved",
        AwaitingTransfer = "awaiting-transfer",
        BackingUp = "backing-up",
        ErrorBackingUp = "error_backing-up",
        Extending = "extending",
        ErrorExtending = "error_extending",
        Downloading = "downloading",
        Uploading = "uploading",
        Retyping = "retyping",
        Reverting = "reverting",
        MigrationTargetCreating = "migration_target_creating",
    }
}

status! {
    /// A snapshot's status.
    SnapshotStatus {
        Creating = "creating",
        Available = "available",
        Deleting = "deleting",
        Deleted = "deleted",
        Updating = "updating",
        Error = "error",
        ErrorDeleting = "error_deleting",
        ErrorManaging = "error_managing",
        Unmanaging = "unmanaging",
        BackingUp = "backing-up",
        Restoring = "restoring",
    }
}

status! {
    /// The attach status of a volume or of one attachment.
    AttachStatus {
        Attached = "attached",
        Attaching = "attaching",
        Detached = "detached",
        Detaching = "detaching",
        ErrorAttaching = "error_attaching",
        ErrorDetaching = "error_detaching",
        Reserved = "reserved",
        Deleted = "deleted",
    }
}

impl VolumeStatus {
    /// Whether a `workers` row belongs to this status (`cinder/objects/volume.py: Volume._is_cleanable`).
    #[must_use]
    pub fn is_cleanable(&self) -> bool {
        matches!(self, Self::Creating | Self::Deleting | Self::Uploading | Self::Downloading)
    }
}

impl SnapshotStatus {
    /// Whether a `workers` row belongs to this status (`cinder/objects/snapshot.py: Snapshot._is_cleanable`).
    #[must_use]
    pub fn is_cleanable(&self) -> bool {
        matches!(self, Self::Creating)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_and_unknown_ones_are_kept() {
        for word in VolumeStatus::KNOWN {
            let status = VolumeStatus::from(*word);
            assert!(!matches!(status, VolumeStatus::Other(_)));
            assert_eq!(status.as_str(), *word);
        }
        assert_eq!(VolumeStatus::from("half-there").as_str(), "half-there");
    }
}
