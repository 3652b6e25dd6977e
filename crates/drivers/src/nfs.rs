//! The NFS driver: shares of NFS servers, mounted here (contract: `cinder/volume/drivers/nfs.py: NfsDriver`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use scoria_model::FaultClass;
use scoria_runtime::{CancellationToken, Command, CommandError, Deadline, Executor, KeyedTurns};
use serde_json::{Value, json};

use crate::remotefs::core::{Core, Settings};
use crate::remotefs::inspect::Format;
use crate::remotefs::mount::{self, Mounter};
use crate::remotefs::names;
use crate::remotefs::security::{Security, Setting};
use crate::remotefs::shares::{self, Entry, Registry, Share};
use crate::remotefs::{Flavour, RemoteFsDriver};
use crate::{ConnectionInfo, DriverInfo, Error, ErrorKind};

/// How long a share that could not be mounted is left alone while others can be used.
const MOUNT_PAUSE: Duration = Duration::from_secs(60);

/// The options of one NFS back end, as they stand in its section.
#[derive(Debug, Clone, PartialEq)]
pub struct NfsOptions {
    /// Name told to the scheduler.
    pub volume_backend_name: Option<String>,
    /// File that lists the shares; not read when `nas_host` and `nas_share_path` are both set.
    pub nfs_shares_config: Option<PathBuf>,
    /// Blank volumes are sparse.
    pub nfs_sparsed_volumes: bool,
    /// New volumes are qcow2 files.
    pub nfs_qcow2_volumes: bool,
    /// Directory below which shares are mounted.
    pub nfs_mount_point_base: PathBuf,
    /// Value of `mount -o`.
    pub nfs_mount_options: Option<String>,
    /// How often mounting a share is tried.
    pub nfs_mount_attempts: u32,
    /// Snapshots may be taken.
    pub nfs_snapshot_support: bool,
    /// Host of the one share.
    pub nas_host: String,
    /// Path of the one share.
    pub nas_share_path: String,
    /// Value of `mount -o`, instead of `nfs_mount_options`.
    pub nas_mount_options: Option<String>,
    /// `auto`, `true` or `false`: commands never run as root.
    pub nas_secure_file_operations: String,
    /// `auto`, `true` or `false`: files are for owner and group only.
    pub nas_secure_file_permissions: String,
    /// Percent of a share not to be used.
    pub reserved_percentage: u8,
    /// A number of at least 1; `auto` is not possible with NFS.
    pub max_over_subscription_ratio: String,
    /// How volume files are named.
    pub volume_name_template: String,
}

impl Default for NfsOptions {
    /// The defaults of the contract, with the state path `/var/lib/cinder`.
    fn default() -> Self {
        Self {
            volume_backend_name: None,
            nfs_shares_config: Some(PathBuf::from("/etc/cinder/nfs_shares")),
            nfs_sparsed_volumes: true,
            nfs_qcow2_volumes: false,
            nfs_mount_point_base: PathBuf::from("/var/lib/cinder/mnt"),
            nfs_mount_options: None,
            nfs_mount_attempts: 3,
            nfs_snapshot_support: false,
            nas_host: String::new(),
            nas_share_path: String::new(),
            nas_mount_options: None,
            nas_secure_file_operations: "auto".to_owned(),
            nas_secure_file_permissions: "auto".to_owned(),
            reserved_percentage: 0,
            max_over_subscription_ratio: "20.0".to_owned(),
            volume_name_template: "volume-%s".to_owned(),
        }
    }
}

/// The NFS driver.
pub type NfsDriver = RemoteFsDriver<Nfs>;

impl NfsDriver {
    /// A driver that has touched nothing yet.
    ///
    /// # Errors
    /// An option with a value it cannot have.
    pub fn new(options: NfsOptions, executor: Executor) -> Result<Self, Error> {
        let settings = Settings {
            backend_name: options.volume_backend_name.clone().unwrap_or_else(|| "Generic_NFS".to_owned()),
            sparsed: options.nfs_sparsed_volumes,
            qcow2: options.nfs_qcow2_volumes,
            snapshots: options.nfs_snapshot_support,
            reserved_percentage: reserved(options.reserved_percentage)?,
            max_over_subscription_ratio: ratio(&options.max_over_subscription_ratio)?,
            volume_name_template: name_template(&options.volume_name_template)?,
        };
        let operations = Setting::parse("nas_secure_file_operations", &options.nas_secure_file_operations)?;
        let permissions = Setting::parse("nas_secure_file_permissions", &options.nas_secure_file_permissions)?;
        let is_single = !options.nas_host.is_empty() && !options.nas_share_path.is_empty();
        let single = is_single.then(|| format!("{}:{}", options.nas_host, options.nas_share_path));
        if let Some(address) = single.as_deref().filter(|address| !shares::is_address(address)) {
            return Err(Error::option("nas_share_path", address, "host and path make <host>:/<path>"));
        }
        let mounter = Mounter {
            options: options.nas_mount_options.clone().or_else(|| options.nfs_mount_options.clone()),
            attempts: options.nfs_mount_attempts,
        };
        let base = RwLock::new(options.nfs_mount_point_base.clone());
        let flavour = Nfs {
            options,
            single,
            mounter,
            operations,
            permissions,
            base,
            registry: Registry::default(),
            mounting: KeyedTurns::new(),
            tried: Mutex::default(),
        };
        Ok(Self::assemble(Core::new(settings, executor), flavour))
    }
}

pub(crate) fn reserved(percentage: u8) -> Result<u8, Error> {
    if percentage > 100 {
        return Err(Error::option("reserved_percentage", percentage, "use 0 to 100"));
    }
    Ok(percentage)
}

/// `volume_name_template`: a name in one directory.
pub(crate) fn name_template(template: &str) -> Result<String, Error> {
    if !template.contains("%s") || template.contains('/') || template.starts_with('.') {
        return Err(Error::option("volume_name_template", template, "use a file name with %s for the volume's id"));
    }
    Ok(template.to_owned())
}

fn ratio(value: &str) -> Result<f64, Error> {
    if value == "auto" {
        let message = "This driver does not support automatic max_over_subscription_ratio calculation. Please use a \
                       valid float value.";
        return Err(Error::driver(ErrorKind::Config, message));
    }
    match value.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 1.0 => Ok(ratio),
        _ => {
            let message = format!("max_over_subscription_ratio is \"{value}\", but must be a number of at least 1.0");
            Err(Error::new(ErrorKind::Config, FaultClass::InvalidParameterValue, message))
        }
    }
}

/// How shares of NFS servers come about.
#[derive(Debug)]
pub struct Nfs {
    options: NfsOptions,
    /// Address of the one share of `nas_host` and `nas_share_path`.
    single: Option<String>,
    mounter: Mounter,
    operations: Setting,
    permissions: Setting,
    /// Where shares are mounted, without symbolic links once prepared.
    base: RwLock<PathBuf>,
    registry: Registry,
    /// One mount of a share at a time.
    mounting: KeyedTurns,
    /// When mounting was last begun, of shares where it has not succeeded.
    tried: Mutex<HashMap<String, Instant>>,
}

impl Nfs {
    fn base(&self) -> PathBuf {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configured shares; the file is read each time, so that changes count at once.
    fn configured(&self) -> Result<Vec<Entry>, Error> {
        if let Some(address) = &self.single {
            // The mount options go into `-o` only: as further arguments, too, `mount` would refuse them.
            return Ok(vec![Entry { address: address.clone(), flags: None }]);
        }
        let path = self.shares_file()?;
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                nfs_error(ErrorKind::Config, format!("NFS config file at {} doesn't exist", path.display()))
            }
            _ => Error::io("read nfs_shares_config", path, &error),
        })?;
        Ok(shares::parse(&text))
    }

    fn shares_file(&self) -> Result<&Path, Error> {
        let path = self.options.nfs_shares_config.as_deref().filter(|path| !path.as_os_str().is_empty());
        path.ok_or_else(|| {
            nfs_error(ErrorKind::Config, "There's no NFS config file configured (nfs_shares_config)".to_owned())
        })
    }

    async fn mount(&self, core: &Core, entry: &Entry) -> Result<Arc<Share>, Error> {
        let point = names::mount_point(&self.base(), &entry.address);
        if mount::mounted_at(&point)?.is_none() {
            let _one_at_a_time = self.mounting.take(&entry.address).await;
            self.tried().insert(entry.address.clone(), Instant::now());
            self.mounter.ensure(&core.executor, entry, &point, !core.security().operations).await?;
            self.tried().remove(&entry.address);
        }
        Ok(self.registry.get(&entry.address, &point))
    }

    /// Whether a share is not mounted and was tried just now: a dead server must not hold up those who can do without it.
    fn is_put_off(&self, address: &str) -> bool {
        self.tried().get(address).is_some_and(|at| at.elapsed() < MOUNT_PAUSE)
    }

    fn tried(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_installed(&self, core: &Core) -> Result<(), Error> {
        // Without arguments it only prints how it is used, and ends with an error.
        let command = Command::new("mount.nfs").as_root(true).deadline(Deadline::after(Duration::from_secs(20)));
        match core.executor.run(&command, &CancellationToken::new()).await {
            Err(CommandError::NotFound { .. }) => {
                Err(nfs_error(ErrorKind::Config, "mount.nfs is not installed (Debian: nfs-common)".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn nfs_error(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, FaultClass::NfsException, message)
}

#[async_trait]
impl Flavour for Nfs {
    fn info(&self) -> DriverInfo {
        DriverInfo { name: "nfs", lock_prefix: "nfs", storage_protocol: "nfs", version: "1.4.0", vendor: "Open Source" }
    }

    async fn prepare(&self, core: &Core, new_install: bool) -> Result<(), Error> {
        if self.single.is_none() {
            self.configured()?;
        }
        let base = &self.options.nfs_mount_point_base;
        let real = std::fs::create_dir_all(base).and_then(|()| base.canonicalize());
        let real = real.map_err(|error| Error::io("use nfs_mount_point_base", base, &error))?;
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = real;
        self.check_installed(core).await?;
        // Until the settings are known, mounting runs as root.
        core.set_security(Security::default());
        let shares = self.mounted(core).await?;
        let Some(first) = shares.first() else { return Err(self.none_mounted()) };
        let (root, operations, permissions) = (first.root.clone(), self.operations, self.permissions);
        // Permissions first: they make the marker, by which operations then go.
        let settle = move || {
            let permissions = permissions.settle(&root, new_install);
            Security { permissions, operations: operations.settle(&root, new_install) }
        };
        let security = first.pool.run(settle).await?;
        if !security.operations {
            tracing::warn!("helper commands run as root: nas_secure_file_operations is off");
        }
        core.set_security(security);
        if security.operations && self.options.nfs_snapshot_support {
            let message = "Snapshots are not supported with nas_secure_file_operations enabled ('true' or 'auto'). Set \
                           nas_secure_file_operations to false, or nfs_snapshot_support to false.";
            return Err(Error::driver(ErrorKind::Config, message));
        }
        Ok(())
    }

    async fn mounted(&self, core: &Core) -> Result<Vec<Arc<Share>>, Error> {
        let entries = self.configured()?;
        let mut shares = Vec::new();
        let (put_off, now): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| self.is_put_off(&entry.address));
        for group in [now, put_off] {
            for entry in group {
                match self.mount(core, entry).await {
                    Ok(share) => shares.push(share),
                    Err(error) => tracing::error!(share = entry.address, %error, "share left out"),
                }
            }
            // Those put off are waited for only when there is nothing else.
            if !shares.is_empty() {
                break;
            }
        }
        if shares.is_empty() { Err(self.none_mounted()) } else { Ok(shares) }
    }

    async fn check_all(&self, core: &Core) -> Result<(), Error> {
        for entry in self.configured()? {
            if self.is_put_off(&entry.address) {
                return Err(nfs_error(ErrorKind::Unavailable, format!("share {} is not mounted", entry.address)));
            }
            self.mount(core, &entry).await?;
        }
        Ok(())
    }

    async fn at(&self, core: &Core, location: &str) -> Result<Arc<Share>, Error> {
        if !shares::is_address(location) {
            return Err(Error::invalid_volume(format!("provider_location {location:?} is not <host>:/<path>")));
        }
        // A share that was taken out of the configuration still has its volumes.
        let entry = self.configured().unwrap_or_default().into_iter().find(|entry| entry.address == location);
        self.mount(core, &entry.unwrap_or_else(|| Entry { address: location.to_owned(), flags: None })).await
    }

    fn no_room(&self, size: u64) -> Error {
        let message = format!("There is no share which can host {size}G");
        let mut error = Error::new(ErrorKind::NoSpace, FaultClass::NfsNoSuitableShareFound, message);
        error.fault = error.fault.with("volume_size", size);
        error
    }

    fn connection(&self, share: &Share, file: &str, format: Format) -> ConnectionInfo {
        let mut info = ConnectionInfo::new();
        let mut data = json!({ "export": share.address, "name": file, "format": format.as_str() });
        // Those who attach pass it on to `mount` word by word.
        let options = match &self.single {
            Some(address) if *address == share.address => {
                Some(self.options.nas_mount_options.as_ref().map(|options| format!("-o {options}")))
            }
            _ => {
                let entries = self.configured().unwrap_or_default();
                entries.into_iter().find(|entry| entry.address == share.address).map(|entry| entry.flags)
            }
        };
        if let (Some(options), Some(data)) = (options, data.as_object_mut()) {
            data.insert("options".to_owned(), options.map_or(Value::Null, Value::from));
        }
        info.insert("driver_volume_type".to_owned(), "nfs".into());
        info.insert("data".to_owned(), data);
        info.insert("mount_point_base".to_owned(), self.base().to_string_lossy().into_owned().into());
        info
    }
}

impl Nfs {
    fn none_mounted(&self) -> Error {
        Error::new(ErrorKind::Unavailable, FaultClass::NfsNoSharesMounted, "No mounted NFS shares found")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(change: impl FnOnce(&mut NfsOptions)) -> Result<NfsDriver, Error> {
        let mut options = NfsOptions::default();
        change(&mut options);
        NfsDriver::new(options, Executor::new(None, Duration::from_secs(5)))
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        let error = |change: fn(&mut NfsOptions)| driver(change).unwrap_err();
        let auto = error(|o| o.max_over_subscription_ratio = "auto".into());
        assert_eq!(auto.fault.class, FaultClass::VolumeDriverException);
        let low = error(|o| o.max_over_subscription_ratio = "0.5".into());
        assert_eq!(low.fault.class, FaultClass::InvalidParameterValue);
        assert!(error(|o| o.reserved_percentage = 101).to_string().contains("reserved_percentage"));
        assert!(
            error(|o| o.nas_secure_file_permissions = "x".into()).to_string().contains("nas_secure_file_permissions")
        );
        assert!(error(|o| o.volume_name_template = "../%s".into()).to_string().contains("volume_name_template"));
        let single = error(|o| (o.nas_host, o.nas_share_path) = ("host".into(), "no-slash".into()));
        assert_eq!(single.fault.class, FaultClass::InvalidConfigurationValue);
    }

    /// Peer defect 21: with `nas_host`, Python gives `mount` the options a second time, as a bare argument.
    #[test]
    fn defect_21_nas_mount_options_are_not_doubled() {
        let driver = driver(|options| {
            options.nas_host = "10.0.0.1".into();
            options.nas_share_path = "/vol1".into();
            options.nas_mount_options = Some("vers=3".into());
        });
        let driver = driver.unwrap();
        let nfs = driver.flavour();
        assert_eq!(nfs.configured().unwrap(), [Entry { address: "10.0.0.1:/vol1".into(), flags: None }]);
        assert_eq!(nfs.mounter.options.as_deref(), Some("vers=3"));
        let share = nfs.registry.get("10.0.0.1:/vol1", Path::new("/mnt/x"));
        let info = nfs.connection(&share, "volume-1", Format::Raw);
        assert_eq!(info["data"]["options"], "-o vers=3");
    }
}
