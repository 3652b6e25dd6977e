//! What a volume was asked to be, as the scheduler hands it on (`cinder/objects/request_spec.py: RequestSpec`).

use serde_json::Value;

use super::Object;
use crate::{Fault, SnapshotId, Volume, VolumeId};

/// A request for a volume. The fields that the volume service reads; everything else travels on unchanged when the request
/// is sent back to the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSpec {
    /// Make it from this snapshot.
    pub snapshot_id: Option<SnapshotId>,
    /// Make it from this volume.
    pub source_volid: Option<VolumeId>,
    /// Make it from this image.
    pub image_id: Option<String>,
    /// Make it from this backup.
    pub backup_id: Option<String>,
    /// The volume.
    pub volume_id: Option<VolumeId>,
    /// The volume must be on this back end (`host@backend#pool`, or a cluster's).
    pub resource_backend: Option<String>,
    /// Everything as it came.
    raw: Object,
}

impl RequestSpec {
    /// Reads a `RequestSpec` object.
    ///
    /// # Errors
    /// As [`Object::decode`]; `ValueError` when one of its ids is none.
    pub fn from_object(value: &Value) -> Result<Self, Fault> {
        let raw = Object::decode_as("RequestSpec", value)?;
        Ok(Self {
            snapshot_id: raw.id("snapshot_id")?,
            source_volid: raw.id("source_volid")?,
            image_id: raw.text("image_id"),
            backup_id: raw.text("backup_id"),
            volume_id: raw.id("volume_id")?,
            resource_backend: raw.text("resource_backend"),
            raw,
        })
    }

    /// The request for a volume of our own making, as cinder-api writes it
    /// (`cinder/volume/flows/api/create_volume.py: VolumeCastTask`).
    #[must_use]
    pub fn for_volume(volume: &Volume) -> Self {
        let properties = Object::new("VolumeProperties")
            .with("attach_status", volume.attach_status.as_str())
            .with("availability_zone", volume.availability_zone.clone())
            .with("display_description", volume.display_description.clone())
            .with("display_name", volume.display_name.clone())
            .with("encryption_key_id", volume.encryption_key_id.clone())
            .with("metadata", super::texts(&volume.metadata))
            .with("multiattach", volume.multiattach)
            .with("project_id", volume.project_id.clone())
            .with("replication_status", volume.replication_status.clone())
            .with("size", volume.size)
            .with("snapshot_id", volume.snapshot_id.as_ref().map(|id| id.as_str()))
            .with("source_volid", volume.source_volid.as_ref().map(|id| id.as_str()))
            .with("status", volume.status.as_str())
            .with("user_id", volume.user_id.clone())
            .with("volume_type_id", volume.volume_type_id.as_ref().map(|id| id.as_str()))
            .all_changed();
        let mut raw = Object::new("RequestSpec")
            .with("consistencygroup_id", volume.consistencygroup_id.clone())
            .with("group_id", volume.group_id.as_ref().map(|id| id.as_str()))
            .with("cgsnapshot_id", Value::Null)
            .with("image_id", Value::Null)
            .with("backup_id", Value::Null)
            .with("snapshot_id", volume.snapshot_id.as_ref().map(|id| id.as_str()))
            .with("source_volid", volume.source_volid.as_ref().map(|id| id.as_str()))
            .with("volume_id", volume.id.as_str())
            .with("volume", Object::from(volume))
            .with("volume_properties", properties)
            .with("availability_zones", volume.availability_zone.iter().cloned().collect::<Vec<_>>());
        if let Some(volume_type) = &volume.volume_type {
            raw = raw.with("volume_type", Object::from(volume_type));
        }
        Self {
            snapshot_id: volume.snapshot_id.clone(),
            source_volid: volume.source_volid.clone(),
            image_id: None,
            backup_id: None,
            volume_id: Some(volume.id.clone()),
            resource_backend: None,
            raw: raw.all_changed(),
        }
    }

    /// The same request for this volume.
    #[must_use]
    pub fn with_volume_id(&self, id: &VolumeId) -> Self {
        Self { volume_id: Some(id.clone()), ..self.clone() }
    }

    /// The volume as it was when the request was made.
    ///
    /// # Errors
    /// `ValueError` when it has no id or no status.
    pub fn volume(&self) -> Result<Option<Volume>, Fault> {
        self.raw.object("volume").map(Volume::try_from).transpose()
    }

    /// What the user asked for (a `VolumeProperties`).
    #[must_use]
    pub fn volume_properties(&self) -> Option<&Object> {
        self.raw.object("volume_properties")
    }

    /// Everything as it came.
    #[must_use]
    pub fn raw(&self) -> &Object {
        &self.raw
    }

    /// Writes a `RequestSpec` object: what came, with the public fields where they differ from it.
    #[must_use]
    pub fn to_object(&self) -> Value {
        let mut raw = self.raw.clone();
        let fields = [
            ("snapshot_id", self.snapshot_id.as_ref().map(ToString::to_string)),
            ("source_volid", self.source_volid.as_ref().map(ToString::to_string)),
            ("image_id", self.image_id.clone()),
            ("backup_id", self.backup_id.clone()),
            ("volume_id", self.volume_id.as_ref().map(ToString::to_string)),
            ("resource_backend", self.resource_backend.clone()),
        ];
        for (field, value) in fields {
            if raw.text(field) != value {
                raw.change(field, value);
            }
        }
        raw.encode()
    }
}

impl Default for RequestSpec {
    /// Nothing asked for: what a request without a specification (a migration's) amounts to.
    fn default() -> Self {
        Self {
            snapshot_id: None,
            source_volid: None,
            image_id: None,
            backup_id: None,
            volume_id: None,
            resource_backend: None,
            raw: Object::new("RequestSpec"),
        }
    }
}
