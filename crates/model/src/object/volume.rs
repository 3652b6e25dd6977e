//! Volumes as objects (`cinder/objects/volume.py: Volume`).

use serde_json::Value;

use super::{Datum, Object, time};
use crate::{AttachStatus, Attachment, Fault, Volume, VolumeType};

/// Reads a `Volume` object. What the sender did not set reads as null; `id` and `status` must be there.
///
/// # Errors
/// As [`Object::decode`]; `ValueError` when id or status are missing or no id.
pub fn decode_volume(value: &Value) -> Result<Volume, Fault> {
    Volume::try_from(&Object::decode_as("Volume", value)?)
}

/// Writes a `Volume` object with every field that a row has.
#[must_use]
pub fn encode_volume(volume: &Volume) -> Value {
    Object::from(volume).encode()
}

impl TryFrom<&Object> for Volume {
    type Error = Fault;
    fn try_from(object: &Object) -> Result<Self, Fault> {
        let attachments = object.elements("volume_attachment").iter().map(Attachment::try_from);
        Ok(Self {
            id: object.required("id", object.id("id")?)?,
            name_id: object.text("_name_id"),
            use_quota: object.flag("use_quota", true),
            user_id: object.text("user_id"),
            project_id: object.text("project_id"),
            snapshot_id: object.id("snapshot_id")?,
            source_volid: object.id("source_volid")?,
            cluster_name: object.text("cluster_name"),
            host: object.text("host"),
            size: object.size("size")?,
            availability_zone: object.text("availability_zone"),
            status: object.required("status", object.word("status"))?,
            previous_status: object.word("previous_status"),
            attach_status: object.word("attach_status").unwrap_or(AttachStatus::Detached),
            migration_status: object.text("migration_status"),
            scheduled_at: object.time("scheduled_at"),
            launched_at: object.time("launched_at"),
            terminated_at: object.time("terminated_at"),
            display_name: object.text("display_name"),
            display_description: object.text("display_description"),
            provider_id: object.text("provider_id"),
            provider_location: object.text("provider_location"),
            provider_auth: object.text("provider_auth"),
            provider_geometry: object.text("provider_geometry"),
            volume_type_id: object.id("volume_type_id")?,
            encryption_key_id: object.text("encryption_key_id"),
            consistencygroup_id: object.text("consistencygroup_id"),
            group_id: object.id("group_id")?,
            bootable: object.flag("bootable", false),
            multiattach: object.flag("multiattach", false),
            replication_status: object.text("replication_status"),
            replication_extended_status: object.text("replication_extended_status"),
            replication_driver_data: object.text("replication_driver_data"),
            service_uuid: object.text("service_uuid"),
            shared_targets: object.plain("shared_targets").and_then(Value::as_bool),
            created_at: object.time("created_at"),
            updated_at: object.time("updated_at"),
            deleted_at: object.time("deleted_at"),
            deleted: object.flag("deleted", false),
            metadata: object.texts("metadata"),
            admin_metadata: object.texts("admin_metadata"),
            glance_metadata: object.texts("glance_metadata"),
            attachments: attachments.collect::<Result<_, _>>()?,
            volume_type: object.object("volume_type").map(VolumeType::try_from).transpose()?,
        })
    }
}

impl From<&Volume> for Object {
    fn from(volume: &Volume) -> Self {
        let attachments: Vec<Self> = volume.attachments.iter().map(Self::from).collect();
        let mut object = Self::new("Volume")
            .with("id", volume.id.as_str())
            .with("_name_id", volume.name_id.clone())
            .with("ec2_id", Value::Null)
            .with("use_quota", volume.use_quota)
            .with("user_id", volume.user_id.clone())
            .with("project_id", volume.project_id.clone())
            .with("snapshot_id", volume.snapshot_id.as_ref().map(|id| id.as_str()))
            .with("source_volid", volume.source_volid.as_ref().map(|id| id.as_str()))
            .with("cluster_name", volume.cluster_name.clone())
            .with("host", volume.host.clone())
            .with("size", volume.size)
            .with("availability_zone", volume.availability_zone.clone())
            .with("status", volume.status.as_str())
            .with("previous_status", volume.previous_status.as_ref().map(|status| status.as_str()))
            .with("attach_status", volume.attach_status.as_str())
            .with("migration_status", volume.migration_status.clone())
            .with("scheduled_at", time(volume.scheduled_at))
            .with("launched_at", time(volume.launched_at))
            .with("terminated_at", time(volume.terminated_at))
            .with("display_name", volume.display_name.clone())
            .with("display_description", volume.display_description.clone())
            .with("provider_id", volume.provider_id.clone())
            .with("provider_location", volume.provider_location.clone())
            .with("provider_auth", volume.provider_auth.clone())
            .with("provider_geometry", volume.provider_geometry.clone())
            .with("volume_type_id", volume.volume_type_id.as_ref().map(|id| id.as_str()))
            .with("encryption_key_id", volume.encryption_key_id.clone())
            .with("consistencygroup_id", volume.consistencygroup_id.clone())
            .with("group_id", volume.group_id.as_ref().map(|id| id.as_str()))
            .with("bootable", volume.bootable)
            .with("multiattach", volume.multiattach)
            .with("replication_status", volume.replication_status.clone())
            .with("replication_extended_status", volume.replication_extended_status.clone())
            .with("replication_driver_data", volume.replication_driver_data.clone())
            .with("service_uuid", volume.service_uuid.clone())
            .with("shared_targets", volume.shared_targets)
            .with("created_at", time(volume.created_at))
            .with("updated_at", time(volume.updated_at))
            .with("deleted_at", time(volume.deleted_at))
            .with("deleted", volume.deleted)
            .with("metadata", super::texts(&volume.metadata))
            .with("admin_metadata", super::texts(&volume.admin_metadata))
            .with("glance_metadata", super::texts(&volume.glance_metadata))
            .with("volume_attachment", Self::new("VolumeAttachmentList").with("objects", Datum::Objects(attachments)));
        // Not set rather than null: whoever needs the type then loads it.
        if let Some(volume_type) = &volume.volume_type {
            object = object.with("volume_type", Self::from(volume_type));
        }
        object
    }
}
