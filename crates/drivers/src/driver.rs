//! The driver trait.

use async_trait::async_trait;
use scoria_model::{Connector, Metadata, Snapshot, Volume};
use scoria_runtime::{CancellationToken, Deadline};
use serde_json::{Map, Value};

use crate::Error;

/// One piece of work: when to stop.
#[derive(Debug, Clone)]
pub struct Work {
    /// Cancelled when the operation is, or when its lock is lost: no new effect starts, children are killed.
    pub cancel: CancellationToken,
    /// By when it has to be done.
    pub deadline: Deadline,
    /// Highest fencing token of the locks held, where the lock service has one.
    pub token: Option<u64>,
}

impl Work {
    /// Work that nobody stops.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { cancel: CancellationToken::new(), deadline: Deadline::NEVER, token: None }
    }
}

/// Who a driver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverInfo {
    /// Short name: `nfs`, `local`, …
    pub name: &'static str,
    /// Prefix of its lock names: `<prefix>-<volume id>` (lock-map: `driver_prefix`).
    pub lock_prefix: &'static str,
    /// `storage_protocol` in its statistics.
    pub storage_protocol: &'static str,
    /// `driver_version`.
    pub version: &'static str,
    /// `vendor_name`.
    pub vendor: &'static str,
}

/// What a driver can do; callers ask, tests go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Several instances may serve one back end.
    pub active_active: bool,
    /// Snapshots are enabled.
    pub snapshots: bool,
    /// Volumes can grow while attached.
    pub extend_attached: bool,
}

/// What became of a volume, to be written into its row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeFacts {
    /// New `provider_location`.
    pub provider_location: Option<String>,
    /// Admin metadata to set (`format`, `base_format`); other keys stay.
    pub admin_metadata: Metadata,
}

/// What became of a snapshot, to be written into its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFacts {
    /// Admin metadata to set on the **volume**; other keys stay.
    pub volume_admin_metadata: Metadata,
    /// The file, by name, that is written to from now on; `None`: as before. Its format is in the admin metadata.
    pub active: Option<String>,
}

/// Files that a server merges while it has them open, by name (Nova's `delete_info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// With a target: the file whose data go into it. Without one: the file that the active one is to stand on, all between
    /// the two going into the active one; `None` is everything.
    pub file_to_merge: Option<String>,
    /// Where the data go; `None`: up into the active file.
    pub merge_target_file: Option<String>,
}

/// What a server needs to reach a volume: `{driver_volume_type, data, mount_point_base, …}`.
pub type ConnectionInfo = Map<String, Value>;

/// Capacity and features, for the scheduler. The manager adds `allocated_capacity_gb`, `filter_function` and the like.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendStats {
    /// `volume_backend_name`.
    pub backend_name: String,
    /// GiB.
    pub total_capacity_gb: f64,
    /// GiB.
    pub free_capacity_gb: f64,
    /// GiB promised to volumes.
    pub provisioned_capacity_gb: f64,
    /// Percent not to be used.
    pub reserved_percentage: u8,
    /// How many times the capacity may be promised.
    pub max_over_subscription_ratio: f64,
    /// Sparse volumes.
    pub thin_provisioning: bool,
    /// Further fields, as they go to the scheduler.
    pub extra: Map<String, Value>,
}

/// A storage back end. Every method may be run again with the same arguments after it was interrupted at any point: it
/// looks at what is already there. None of them leaves a half-made file under a final name.
#[async_trait]
pub trait VolumeDriver: Send + Sync + std::fmt::Debug + 'static {
    /// Who it is.
    fn info(&self) -> DriverInfo;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Checks the configuration and makes the back end ready (mounts shares). May be called again after a failure.
    /// `new_install` is true when the deployment has no volumes yet.
    async fn setup(&self, new_install: bool) -> Result<(), Error>;

    /// Capacity now; never walks the whole share.
    async fn stats(&self) -> Result<BackendStats, Error>;

    /// Whether helper commands run unprivileged (`nas_secure_file_operations`).
    fn secure_file_operations(&self) -> bool {
        false
    }

    /// Makes a blank volume.
    async fn create_volume(&self, work: &Work, volume: &Volume) -> Result<VolumeFacts, Error>;

    /// Makes a volume of `volume.size` with the content of a snapshot; `source` is the snapshot's volume.
    async fn create_volume_from_snapshot(
        &self,
        work: &Work,
        volume: &Volume,
        snapshot: &Snapshot,
        source: &Volume,
    ) -> Result<VolumeFacts, Error>;

    /// Makes a volume of `volume.size` with the content of another.
    async fn create_cloned_volume(&self, work: &Work, volume: &Volume, source: &Volume) -> Result<VolumeFacts, Error>;

    /// Removes a volume and everything of it. One that is not there is not an error.
    async fn delete_volume(&self, work: &Work, volume: &Volume) -> Result<(), Error>;

    /// Takes a snapshot; `volume` is the snapshot's volume. While that is attached, the snapshot is complete only when its server
    /// writes into [`SnapshotFacts::active`], which is the caller's to arrange.
    async fn create_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error>;

    /// Removes a snapshot. One that is not there is not an error. While the volume is attached, its server has to have done
    /// what [`AssistedSnapshots::merge_of`] says.
    async fn delete_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error>;

    /// Gives a volume the content of its latest snapshot again; the snapshot stays.
    async fn revert_to_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<(), Error>;

    /// The part of it that needs servers' help; `None` where snapshots of attached volumes are taken without.
    fn assisted_snapshots(&self) -> Option<&dyn AssistedSnapshots> {
        None
    }

    /// Grows a volume to `new_size` GiB.
    async fn extend_volume(&self, work: &Work, volume: &Volume, new_size: u64) -> Result<(), Error>;

    /// Whether a connector can be served.
    fn validate_connector(&self, connector: &Connector) -> Result<(), Error> {
        let _ = connector;
        Ok(())
    }

    /// Makes the volume reachable again after a restart (`in-use` volumes at start).
    async fn ensure_export(&self, volume: &Volume) -> Result<(), Error> {
        let _ = volume;
        Ok(())
    }

    /// What a server needs to reach the volume.
    async fn initialize_connection(
        &self,
        work: &Work,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<ConnectionInfo, Error>;

    /// A server no longer needs the volume. The answer says whether others share its export.
    async fn terminate_connection(&self, volume: &Volume, connector: &Connector, force: bool) -> Result<bool, Error> {
        let _ = (volume, connector, force);
        Ok(false)
    }

    /// Nobody needs the volume any more.
    async fn remove_export(&self, volume: &Volume) -> Result<(), Error> {
        let _ = volume;
        Ok(())
    }
}

/// Snapshots of volumes whose files a server has open: only the server can change what it writes to.
///
/// The order is such that the process may die anywhere: the new overlay is recorded before the server is asked to write into it. Until it does,
/// what lies below the overlay still changes, and the snapshot with it; nothing that the server writes is ever lost.
#[async_trait]
pub trait AssistedSnapshots: Send + Sync {
    /// Whether the server has begun to write into the overlay of this snapshot, by the locks that QEMU holds on the files it has open;
    /// `None` when none can be seen.
    async fn is_taken_up(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<Option<bool>, Error>;

    /// Takes back a snapshot whose overlay the server has not taken up, and will not.
    async fn withdraw_snapshot(
        &self,
        work: &Work,
        snapshot: &Snapshot,
        volume: &Volume,
    ) -> Result<SnapshotFacts, Error>;

    /// What the server has to merge before a snapshot can be removed; `None` when there is nothing, or it has done it.
    async fn merge_of(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<Option<Merge>, Error>;
}
