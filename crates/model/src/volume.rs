//! Volumes and volume types, as the database has them.

use std::collections::BTreeMap;

use crate::{AttachStatus, Attachment, GroupId, Host, SnapshotId, Timestamp, VolumeId, VolumeStatus, VolumeTypeId};

/// Key and value pairs; the order is the keys'.
pub type Metadata = BTreeMap<String, String>;

/// One row of `volumes` with what is joined to it (`cinder/objects/volume.py: Volume`).
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// The id.
    pub id: VolumeId,
    /// The id under which its files go when it is not the volume's own (after a migration): `_name_id`.
    pub name_id: Option<String>,
    /// Whether it counts against quotas; false for temporary and internal volumes.
    pub use_quota: bool,
    /// Owner.
    pub user_id: Option<String>,
    /// Owner's project.
    pub project_id: Option<String>,
    /// The snapshot it was made from.
    pub snapshot_id: Option<SnapshotId>,
    /// The volume it was cloned from.
    pub source_volid: Option<VolumeId>,
    /// The cluster that serves it (`cluster@backend#pool`).
    pub cluster_name: Option<String>,
    /// The host that serves it (`host@backend#pool`).
    pub host: Option<String>,
    /// Size in GiB.
    pub size: u64,
    /// Availability zone.
    pub availability_zone: Option<String>,
    /// Status.
    pub status: VolumeStatus,
    /// The status to go back to after some operations.
    pub previous_status: Option<VolumeStatus>,
    /// Whether it is attached.
    pub attach_status: AttachStatus,
    /// State of a migration, free text.
    pub migration_status: Option<String>,
    /// When the scheduler chose a host.
    pub scheduled_at: Option<Timestamp>,
    /// When it became available for the first time.
    pub launched_at: Option<Timestamp>,
    /// When its deletion was asked for.
    pub terminated_at: Option<Timestamp>,
    /// Name given by the user.
    pub display_name: Option<String>,
    /// Description given by the user.
    pub display_description: Option<String>,
    /// The driver's id.
    pub provider_id: Option<String>,
    /// The driver's location: for NFS the share's address.
    pub provider_location: Option<String>,
    /// The driver's credentials.
    pub provider_auth: Option<String>,
    /// The driver's geometry.
    pub provider_geometry: Option<String>,
    /// Type; never null in this schema.
    pub volume_type_id: Option<VolumeTypeId>,
    /// Key in the key manager.
    pub encryption_key_id: Option<String>,
    /// Legacy consistency group.
    pub consistencygroup_id: Option<String>,
    /// Group.
    pub group_id: Option<GroupId>,
    /// Whether an image is on it.
    pub bootable: bool,
    /// Whether several servers may attach it.
    pub multiattach: bool,
    /// Replication state.
    pub replication_status: Option<String>,
    /// Replication detail.
    pub replication_extended_status: Option<String>,
    /// The driver's replication data.
    pub replication_driver_data: Option<String>,
    /// The service that made it.
    pub service_uuid: Option<String>,
    /// Whether targets are shared between volumes; `None` for NVMe.
    pub shared_targets: Option<bool>,
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
    /// The service's metadata (`format`, `base_format`, `readonly`, `attached_mode`, …).
    pub admin_metadata: Metadata,
    /// The image's properties, on a bootable volume.
    pub glance_metadata: Metadata,
    /// The live attachments.
    pub attachments: Vec<Attachment>,
    /// The type with its extra specs, where it was joined.
    pub volume_type: Option<VolumeType>,
}

impl Volume {
    /// A blank volume in `creating`, as cinder-api makes it; owner, host and the rest are for the caller to fill.
    #[must_use]
    pub fn new(id: VolumeId, size: u64) -> Self {
        Self {
            id,
            name_id: None,
            use_quota: true,
            user_id: None,
            project_id: None,
            snapshot_id: None,
            source_volid: None,
            cluster_name: None,
            host: None,
            size,
            availability_zone: None,
            status: VolumeStatus::Creating,
            previous_status: None,
            attach_status: AttachStatus::Detached,
            migration_status: None,
            scheduled_at: None,
            launched_at: None,
            terminated_at: None,
            display_name: None,
            display_description: None,
            provider_id: None,
            provider_location: None,
            provider_auth: None,
            provider_geometry: None,
            volume_type_id: None,
            encryption_key_id: None,
            consistencygroup_id: None,
            group_id: None,
            bootable: false,
            multiattach: false,
            replication_status: None,
            replication_extended_status: None,
            replication_driver_data: None,
            service_uuid: None,
            shared_targets: Some(true),
            created_at: None,
            updated_at: None,
            deleted_at: None,
            deleted: false,
            metadata: Metadata::new(),
            admin_metadata: Metadata::new(),
            glance_metadata: Metadata::new(),
            attachments: Vec::new(),
            volume_type: None,
        }
    }

    /// The id its files are named after: `_name_id` or the id.
    #[must_use]
    pub fn file_id(&self) -> &str {
        self.name_id.as_deref().unwrap_or(self.id.as_str())
    }

    /// `volume_name_template % name_id`.
    #[must_use]
    pub fn name(&self, template: &str) -> String {
        template.replacen("%s", self.file_id(), 1)
    }

    /// Where its requests go: the cluster if it has one, else the host (`service_topic_queue`).
    #[must_use]
    pub fn service_topic_queue(&self) -> Option<&str> {
        self.cluster_name.as_deref().filter(|name| !name.is_empty()).or(self.host.as_deref())
    }

    /// The host, parsed.
    #[must_use]
    pub fn parsed_host(&self) -> Option<Host> {
        self.host.as_deref().and_then(|host| host.parse().ok())
    }
}

/// One row of `volume_types` with its extra specs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeType {
    /// The id.
    pub id: VolumeTypeId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Extra specs.
    pub extra_specs: Metadata,
    /// Id of its QoS specs.
    pub qos_specs_id: Option<String>,
    /// Row's birth.
    pub created_at: Option<Timestamp>,
    /// Row's last change.
    pub updated_at: Option<Timestamp>,
}

/// QoS specs of a type (`quality_of_service_specs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosSpecs {
    /// The root row's id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `back-end`, `front-end` or `both`.
    pub consumer: String,
    /// The specs, without `consumer`.
    pub specs: Metadata,
}
