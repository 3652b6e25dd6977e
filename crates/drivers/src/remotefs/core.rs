//! What every operation of a driver on shares needs: options, commands, the security settings found at setup.

use std::sync::{PoisonError, RwLock};

use scoria_model::Volume;
use scoria_runtime::Executor;

use super::inspect::Format;
use super::security::Security;
use crate::fault::Faults;
use crate::{Error, ErrorKind};

/// The options that all drivers on shares have.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `volume_backend_name`.
    pub(crate) backend_name: String,
    /// Blank volumes take no room until they are written.
    pub(crate) sparsed: bool,
    /// New volumes are qcow2 files.
    pub(crate) qcow2: bool,
    /// Snapshots may be taken.
    pub(crate) snapshots: bool,
    /// Percent of a share not to be used.
    pub(crate) reserved_percentage: u8,
    /// How many times a share's size may be promised.
    pub(crate) max_over_subscription_ratio: f64,
    /// `volume_name_template`.
    pub(crate) volume_name_template: String,
}

/// Options, commands, security settings.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) executor: Executor,
    pub(crate) faults: Faults,
    security: RwLock<Security>,
}

impl Core {
    pub(crate) fn new(settings: Settings, executor: Executor) -> Self {
        Self { settings, executor, faults: Faults::default(), security: RwLock::default() }
    }

    pub(crate) fn security(&self) -> Security {
        *self.security.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_security(&self, security: Security) {
        *self.security.write().unwrap_or_else(PoisonError::into_inner) = security;
    }

    /// Format of new volumes.
    pub(crate) fn format(&self) -> Format {
        if self.settings.qcow2 { Format::Qcow2 } else { Format::Raw }
    }

    /// A volume's file name.
    pub(crate) fn name(&self, volume: &Volume) -> String {
        volume.name(&self.settings.volume_name_template)
    }

    /// Encrypted volumes are not served yet.
    ///
    /// # Errors
    /// `VolumeDriverException` when the volume is one.
    pub(crate) fn refuse_encrypted(volume: &Volume) -> Result<(), Error> {
        match &volume.encryption_key_id {
            None => Ok(()),
            Some(_) => Err(Error::driver(
                ErrorKind::Unsupported,
                format!("Volume {} is encrypted: encrypted volumes are not supported yet.", volume.id),
            )),
        }
    }
}
