//! Ids, one type per kind of resource, so that mixing two kinds does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An id that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not a {kind} id: 1 to 36 letters, digits, '-' or '_' are allowed")]
pub struct IdError {
    kind: &'static str,
    value: String,
}

/// Ids become parts of lock names and file names, so only characters that are harmless in both are let in.
/// Cinder writes lower-case uuid4 text, but promises no more than a string of 36 characters.
fn check(kind: &'static str, value: &str) -> Result<(), IdError> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=36).contains(&value.len()) && value.chars().all(harmless) {
        return Ok(());
    }
    Err(IdError { kind, value: value.chars().take(64).collect() })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new random id (uuid4 text).
            #[must_use]
            pub fn random() -> Self {
                Self(uuid::Uuid::new_v4().to_string())
            }

            /// The id as it stands in the database and on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                check($kind, value)?;
                Ok(Self(value.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                check($kind, &value)?;
                Ok(Self(value))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(/// A volume.
    VolumeId, "volume");
id!(/// A snapshot.
    SnapshotId, "snapshot");
id!(/// An attachment of a volume.
    AttachmentId, "attachment");
id!(/// A volume type.
    VolumeTypeId, "volume type");
id!(/// A group of volumes.
    GroupId, "group");
id!(/// A user message.
    UserMessageId, "message");
id!(/// One RPC message (`_unique_id`, `_msg_id`: uuid4 hex).
    MessageId, "RPC message");

impl MessageId {
    /// A new random message id, in the form the wire has: 32 hex digits without dashes.
    #[must_use]
    pub fn random_hex() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_directory_or_its_lock_name() {
        for bad in ["", "../x", "a/b", "a b", "a\0b", "ä", &"x".repeat(37)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?}");
        }
        let id: VolumeId = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11".parse().unwrap();
        assert_eq!(id.as_str(), "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11");
    }
}
