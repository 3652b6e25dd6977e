//! Snapshots, as the database has them.

use crate::{Metadata, SnapshotId, SnapshotStatus, Timestamp, VolumeId, VolumeTypeId};

/// One row of `snapshots` with its metadata (`cinder/objects/snapshot.py: Snapshot`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The id.
    pub id: SnapshotId,
    /// The volume it was taken of.
    pub volume_id: VolumeId,
    /// Whether it counts against quotas.
    pub use_quota: bool,
    /// Owner.
    pub user_id: Option<String>,
    /// Owner's project.
    pub project_id: Option<String>,
    /// Legacy consistency group snapshot.
    pub cgsnapshot_id: Option<String>,
    /// Group snapshot.
    pub group_snapshot_id: Option<String>,
    /// Status.
    pub status: SnapshotStatus,
    /// `0%` to `100%`.
    pub progress: Option<String>,
    /// Size of the volume when the snapshot was taken, GiB.
    pub volume_size: u64,
    /// Name given by the user.
    pub display_name: Option<String>,
    /// Description given by the user.
    pub display_description: Option<String>,
    /// Key in the key manager.
    pub encryption_key_id: Option<String>,
    /// Type of the volume.
    pub volume_type_id: Option<VolumeTypeId>,
    /// The driver's location.
    pub provider_location: Option<String>,
    /// The driver's id.
    pub provider_id: Option<String>,
    /// The driver's credentials.
    pub provider_auth: Option<String>,
    /// Row's birth.
    pub created_at: Option<Timestamp>,
    /// Row's last change.
    pub updated_at: Option<Timestamp>,
    /// Row's soft deletion.
    pub deleted_at: Option<Timestamp>,
    /// Whether it is soft-deleted.
    pub deleted: bool,
    /// The user's metadata.
    pub metadata: Metadata,
}

impl Snapshot {
    /// A snapshot in `creating`, as cinder-api makes it.
    #[must_use]
    pub fn new(id: SnapshotId, volume_id: VolumeId, volume_size: u64) -> Self {
        Self {
            id,
            volume_id,
            use_quota: true,
            user_id: None,
            project_id: None,
            cgsnapshot_id: None,
            group_snapshot_id: None,
            status: SnapshotStatus::Creating,
            progress: Some("0%".to_owned()),
            volume_size,
            display_name: None,
            display_description: None,
            encryption_key_id: None,
            volume_type_id: None,
            provider_location: None,
            provider_id: None,
            provider_auth: None,
            created_at: None,
            updated_at: None,
            deleted_at: None,
            deleted: false,
            metadata: Metadata::new(),
        }
    }
}
