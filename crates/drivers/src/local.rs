//! The local driver: a directory of this host as the share, for stand-alone use and for tests.
//!
//! `provider_location` is the directory's path; `storage_protocol` and the connection's type are `local`, which os-brick's
//! `LocalConnector` takes with a `device_path`. Nothing is mounted, no command runs as root.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use nix::unistd::{AccessFlags, access};
use scoria_runtime::Executor;
use serde_json::json;

use crate::nfs::{name_template, reserved};
use crate::remotefs::core::{Core, Settings};
use crate::remotefs::inspect::Format;
use crate::remotefs::security::Security;
use crate::remotefs::shares::{Registry, Share};
use crate::remotefs::{Flavour, RemoteFsDriver};
use crate::{ConnectionInfo, DriverInfo, Error, ErrorKind};

/// The options of one local back end.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalOptions {
    /// Name told to the scheduler.
    pub backend_name: String,
    /// The directory, absolute; it must exist.
    pub directory: PathBuf,
    /// Blank volumes are sparse.
    pub sparsed_volumes: bool,
    /// New volumes are qcow2 files.
    pub qcow2_volumes: bool,
    /// Snapshots may be taken.
    pub snapshots: bool,
    /// Percent of the file system not to be used.
    pub reserved_percentage: u8,
    /// How many times its size may be promised.
    pub max_over_subscription_ratio: f64,
    /// How volume files are named.
    pub volume_name_template: String,
}

impl LocalOptions {
    /// Sparse raw volumes with snapshots in a directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            backend_name: "local".to_owned(),
            directory: directory.into(),
            sparsed_volumes: true,
            qcow2_volumes: false,
            snapshots: true,
            reserved_percentage: 0,
            max_over_subscription_ratio: 20.0,
            volume_name_template: "volume-%s".to_owned(),
        }
    }
}

/// The local driver.
pub type LocalDriver = RemoteFsDriver<Local>;

impl LocalDriver {
    /// A driver that has touched nothing yet.
    ///
    /// # Errors
    /// An option with a value it cannot have.
    pub fn new(options: LocalOptions, executor: Executor) -> Result<Self, Error> {
        let ratio = options.max_over_subscription_ratio;
        if !(ratio.is_finite() && ratio >= 1.0) {
            return Err(Error::option("max_over_subscription_ratio", ratio, "use a number of at least 1.0"));
        }
        if !options.directory.is_absolute() || options.directory.to_str().is_none() {
            let directory = options.directory.display();
            return Err(Error::option("directory", directory, "use an absolute path in UTF-8"));
        }
        let settings = Settings {
            backend_name: options.backend_name,
            sparsed: options.sparsed_volumes,
            qcow2: options.qcow2_volumes,
            snapshots: options.snapshots,
            reserved_percentage: reserved(options.reserved_percentage)?,
            max_over_subscription_ratio: ratio,
            volume_name_template: name_template(&options.volume_name_template)?,
        };
        let core = Core::new(settings, executor);
        core.set_security(Security { operations: true, permissions: true });
        Ok(Self::assemble(core, Local { directory: options.directory, registry: Registry::default() }))
    }
}

/// A directory as the share.
#[derive(Debug)]
pub struct Local {
    directory: PathBuf,
    registry: Registry,
}

impl Local {
    fn share(&self) -> Arc<Share> {
        self.registry.get(&self.directory.to_string_lossy(), &self.directory)
    }
}

#[async_trait]
impl Flavour for Local {
    fn info(&self) -> DriverInfo {
        DriverInfo {
            name: "local",
            lock_prefix: "local",
            storage_protocol: "local",
            version: env!("CARGO_PKG_VERSION"),
            vendor: "Scoria",
        }
    }

    async fn prepare(&self, _core: &Core, _new_install: bool) -> Result<(), Error> {
        let directory = self.directory.clone();
        let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        let usable = move || directory.is_dir() && access(&directory, all).is_ok();
        if self.share().pool.run(usable).await? {
            return Ok(());
        }
        Err(Error::option("directory", self.directory.display(), "make the directory and let this user write in it"))
    }

    async fn mounted(&self, _core: &Core) -> Result<Vec<Arc<Share>>, Error> {
        Ok(vec![self.share()])
    }

    async fn check_all(&self, _core: &Core) -> Result<(), Error> {
        Ok(())
    }

    async fn at(&self, _core: &Core, location: &str) -> Result<Arc<Share>, Error> {
        if self.directory.to_str() != Some(location) {
            let directory = self.directory.display();
            return Err(Error::invalid_volume(format!("it is in {location}, but this back end serves {directory}")));
        }
        Ok(self.share())
    }

    fn no_room(&self, size: u64) -> Error {
        let directory = self.directory.display();
        Error::driver(ErrorKind::NoSpace, format!("There is no room for a volume of {size}G in {directory}"))
    }

    fn connection(&self, share: &Share, file: &str, format: Format) -> ConnectionInfo {
        let path = share.root.join(file);
        let data = json!({ "device_path": path.to_string_lossy(), "name": file, "format": format.as_str() });
        let mut info = ConnectionInfo::new();
        info.insert("driver_volume_type".to_owned(), "local".into());
        info.insert("data".to_owned(), data);
        info
    }
}
