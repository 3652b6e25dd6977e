//! Who helper commands run as, and who may read what they make (contract: remotefs-nfs §4).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::disk::Access;
use crate::Error;

const INDICATOR: &str = ".cinderSecureEnvIndicator";
const INDICATOR_TEXT: &str = "Detector file for Cinder secure environment usage.\nDo not delete this file.\n";

/// The settings in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Security {
    /// Commands never run as root.
    pub(crate) operations: bool,
    /// Files are for owner and group only.
    pub(crate) permissions: bool,
}

impl Security {
    pub(crate) fn access(self) -> Access {
        if self.permissions { Access::Group } else { Access::Everyone }
    }
}

/// `nas_secure_file_operations` and `nas_secure_file_permissions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Auto,
    True,
    False,
}

impl Setting {
    pub(crate) fn parse(option: &str, value: &str) -> Result<Self, Error> {
        match value.to_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::True),
            "false" => Ok(Self::False),
            _ => Err(Error::option(option, value, "use auto, true or false")),
        }
    }

    /// What `auto` means on this mount: a marker file says so; a new deployment makes the marker. It blocks.
    pub(crate) fn settle(self, mount: &Path, new_install: bool) -> bool {
        let indicator = mount.join(INDICATOR);
        match self {
            Self::True => true,
            Self::False => false,
            Self::Auto if indicator.is_file() => true,
            Self::Auto if !new_install => false,
            Self::Auto => match make_indicator(&indicator) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(path = %indicator.display(), %error, "cannot make the secure environment marker");
                    error.kind() != io::ErrorKind::PermissionDenied
                }
            },
        }
    }
}

fn make_indicator(path: &Path) -> io::Result<()> {
    std::fs::write(path, INDICATOR_TEXT)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_true_on_a_new_install_and_wherever_the_marker_is() {
        let mount = tempfile::tempdir().unwrap();
        let auto = Setting::parse("nas_secure_file_operations", "AUTO").unwrap();
        assert!(!auto.settle(mount.path(), false));
        assert!(auto.settle(mount.path(), true));
        assert!(auto.settle(mount.path(), false), "the marker stays");
        let marker = mount.path().join(INDICATOR);
        assert_eq!(std::fs::read_to_string(&marker).unwrap(), INDICATOR_TEXT);
        assert_eq!(marker.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!Setting::False.settle(mount.path(), true) && Setting::True.settle(mount.path(), false));
        let error = Setting::parse("nas_secure_file_operations", "maybe").unwrap_err();
        assert!(error.to_string().contains("nas_secure_file_operations"), "{error}");
    }
}
