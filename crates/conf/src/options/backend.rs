//! Back ends: `[backend_defaults]` and each section of `enabled_backends`.

use std::path::PathBuf;

use super::DefaultOptions;
use super::spec::{BACKEND_DEFAULTS, BOOL, INT, OptionGroup, STR, choice, int, options};
use crate::error::Error;
use crate::from_value::FromValue;
use crate::resolve::{Reader, Resolver};
use crate::types::Value;

options! {
    /// The options of one back end: from its section, else from `[backend_defaults]`, else the default
    /// (`cinder/volume/driver.py: volume_opts`, `cinder/volume/drivers/{remotefs,nfs}.py`).
    pub struct BackendOptions in BACKEND_DEFAULTS => {
        /// The driver: `cinder.volume.drivers.nfs.NfsDriver` or `nfs`; `local` for a directory of this node.
        volume_driver: Driver = STR.default("cinder.volume.drivers.lvm.LVMVolumeDriver");
        /// The name that volume types ask for.
        volume_backend_name: Option<String> = STR;
        /// Stands for `[DEFAULT] host` in the name of this back end's service. Only the back end's own section counts.
        backend_host: Option<String> = STR.own_section_only();
        /// The availability zone of this back end. Unset: `[DEFAULT] storage_availability_zone`.
        backend_availability_zone: Option<String> = STR;
        /// Per cent of the capacity that are kept free.
        reserved_percentage: u32 = int(0, 100).default("0");
        /// How many times the capacity may be promised to thin volumes: a number from 1 on, or `auto`.
        max_over_subscription_ratio: OverSubscription = STR.default("20.0");
        /// A JSON object that is added to the reported capabilities.
        extra_capabilities: String = STR.default("{}");
        /// An expression that tells the scheduler whether the back end takes a volume.
        filter_function: Option<String> = STR;
        /// An expression that tells the scheduler how well the back end suits, 0 to 100.
        goodness_function: Option<String> = STR;
        /// Whether connections tell that blocks can be discarded.
        report_discard_supported: bool = BOOL.default("false");
        /// Bytes a second that copying data may use; 0: `[DEFAULT] volume_copy_bps_limit`.
        volume_copy_bps_limit: u64 = INT.default("0");
        /// The block size of `dd` where `qemu-img` is missing.
        volume_dd_blocksize: String = STR.default("1M");
        /// How many files may be read or written at a time on the share.
        backend_native_threads_pool_size: usize = int(20, i64::MAX).default("20");
        /// The file that lists the shares, one in a line: `HOST:/PATH -o OPTIONS`. Not read when `nas_host` and
        /// `nas_share_path` are set.
        nfs_shares_config: PathBuf = STR.default("/etc/cinder/nfs_shares");
        /// The directory below which shares are mounted.
        nfs_mount_point_base: PathBuf = STR.default("$state_path/mnt");
        /// The `-o` options of mounts.
        nfs_mount_options: Option<String> = STR;
        /// How many times a mount is tried.
        nfs_mount_attempts: u32 = INT.default("3");
        /// Whether volumes are sparse files; else they are written in full when created.
        nfs_sparsed_volumes: bool = BOOL.default("true");
        /// Whether volumes are qcow2 files.
        nfs_qcow2_volumes: bool = BOOL.default("false");
        /// Whether snapshots are possible, and with them clones. The `local` driver reads it as well.
        nfs_snapshot_support: bool = BOOL.default("false");
        /// The server of the one share, in place of a shares file.
        nas_host: String = STR.default("");
        /// The path of the one share on its server.
        nas_share_path: String = STR.default("");
        /// The `-o` options of that share's mount; they replace `nfs_mount_options`.
        nas_mount_options: Option<String> = STR;
        /// Whether files are handled without root: `true`, `false`, or `auto` to decide by what is on the share.
        nas_secure_file_operations: SecureMode = STR.default("auto");
        /// Whether files are closed to other users: `true`, `false`, or `auto` to decide by what is on the share.
        nas_secure_file_permissions: SecureMode = STR.default("auto");
        /// Whether volumes on the one share are thin.
        nas_volume_prov_type: String = choice(&["thin", "thick"]).default("thin");
        /// Whether images are kept as volumes, to clone from.
        image_volume_cache_enabled: bool = BOOL.default("false");
        /// How many of them are kept; 0: any number.
        image_volume_cache_max_count: u32 = INT.default("0");
        /// How many GiB of them are kept; 0: any number.
        image_volume_cache_max_size_gb: u32 = INT.default("0");
        /// Whether an upload makes a volume that the image service points to.
        image_upload_use_cinder_backend: bool = BOOL.default("false");
        /// Whether that volume belongs to the internal project.
        image_upload_use_internal_tenant: bool = BOOL.default("false");
        /// The directory of the `local` driver.
        local_path: PathBuf = STR.default("$state_path/volumes-local").since("Scoria 0.1.0");
    }
}

/// What serves a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Files on NFS shares.
    Nfs,
    /// Files in a directory of this node.
    Local,
}

impl FromValue for Driver {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        match String::from_value(value)?.as_str() {
            "cinder.volume.drivers.nfs.NfsDriver" | "nfs" => Ok(Self::Nfs),
            "local" | "scoria.local" => Ok(Self::Local),
            _ => Err("is not one of Scoria's drivers, which are 'cinder.volume.drivers.nfs.NfsDriver' (or 'nfs') \
                      and 'local' (or 'scoria.local'); set one of them, or serve this back end with Cinder"
                .to_owned()),
        }
    }
}

/// How many times the capacity may be promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OverSubscription {
    /// The driver computes it.
    Auto,
    /// So many times, 1 or more.
    Ratio(f64),
}

/// The forms that `cinder/volume/driver.py` allows by a regular expression: `auto`, or digits with at most one point.
impl FromValue for OverSubscription {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        let text = String::from_value(value)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse() {
            Ok(ratio) if plain && ratio >= 1.0 => Ok(Self::Ratio(ratio)),
            _ => Err("must be 'auto' or a number from 1 on".to_owned()),
        }
    }
}

/// Whether to be strict with files (`nas_secure_file_operations`, `nas_secure_file_permissions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureMode {
    /// Decided by what is on the share.
    Auto,
    /// Strict.
    True,
    /// Not strict.
    False,
}

impl FromValue for SecureMode {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        match String::from_value(value)?.to_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::True),
            "false" => Ok(Self::False),
            _ => Err("must be 'auto', 'true' or 'false'".to_owned()),
        }
    }
}

/// A back end to serve.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its section's name in `enabled_backends`: part of its service's name.
    pub name: String,
    /// The node's part of its service's name: the section's own `backend_host`, else `[DEFAULT] host`
    /// (`cinder/cmd/volume.py: _launch_service`).
    pub host: String,
    /// Its driver.
    pub driver: Driver,
    /// Its options.
    pub options: BackendOptions,
}

impl Backend {
    pub(crate) fn read(name: &str, resolver: &Resolver, default: &DefaultOptions) -> Result<Self, Error> {
        let mut options = BackendOptions::read(&Reader::new(resolver, Some(name)))?;
        // The few that fall back to `[DEFAULT]` (`BaseVD.get_filter_function`, `get_goodness_function`, `set_throttle`).
        let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        options.filter_function = non_empty(&options.filter_function).or_else(|| non_empty(&default.filter_function));
        options.goodness_function =
            non_empty(&options.goodness_function).or_else(|| non_empty(&default.goodness_function));
        if options.volume_copy_bps_limit == 0 {
            options.volume_copy_bps_limit = default.volume_copy_bps_limit;
        }
        let host = non_empty(&options.backend_host).unwrap_or_else(|| default.host.clone());
        Ok(Self { name: name.to_owned(), host, driver: options.volume_driver, options })
    }
}
