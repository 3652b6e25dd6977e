//! Snapshots as objects (`cinder/objects/snapshot.py: Snapshot`).

use serde_json::Value;

use super::{Object, time};
use crate::{Fault, Snapshot};

/// Reads a `Snapshot` object; `id`, `volume_id` and `status` must be there.
///
/// # Errors
/// As [`Object::decode`]; `ValueError` when one of these is missing or no id.
pub fn decode_snapshot(value: &Value) -> Result<Snapshot, Fault> {
    Snapshot::try_from(&Object::decode_as("Snapshot", value)?)
}

/// Writes a `Snapshot` object with every field that a row has, without its volume.
#[must_use]
pub fn encode_snapshot(snapshot: &Snapshot) -> Value {
    Object::from(snapshot).encode()
}

impl TryFrom<&Object> for Snapshot {
    type Error = Fault;
    fn try_from(object: &Object) -> Result<Self, Fault> {
        Ok(Self {
            id: object.required("id", object.id("id")?)?,
            volume_id: object.required("volume_id", object.id("volume_id")?)?,
            use_quota: object.flag("use_quota", true),
            user_id: object.text("user_id"),
            project_id: object.text("project_id"),
            cgsnapshot_id: object.text("cgsnapshot_id"),
            group_snapshot_id: object.text("group_snapshot_id"),
            status: object.required("status", object.word("status"))?,
            progress: object.text("progress"),
            volume_size: object.size("volume_size")?,
            display_name: object.text("display_name"),
            display_description: object.text("display_description"),
            encryption_key_id: object.text("encryption_key_id"),
            volume_type_id: object.id("volume_type_id")?,
            provider_location: object.text("provider_location"),
            provider_id: object.text("provider_id"),
            provider_auth: object.text("provider_auth"),
            created_at: object.time("created_at"),
            updated_at: object.time("updated_at"),
            deleted_at: object.time("deleted_at"),
            deleted: object.flag("deleted", false),
            metadata: object.texts("metadata"),
        })
    }
}

impl From<&Snapshot> for Object {
    fn from(snapshot: &Snapshot) -> Self {
        Self::new("Snapshot")
            .with("id", snapshot.id.as_str())
            .with("volume_id", snapshot.volume_id.as_str())
            .with("use_quota", snapshot.use_quota)
            .with("user_id", snapshot.user_id.clone())
            .with("project_id", snapshot.project_id.clone())
            .with("cgsnapshot_id", snapshot.cgsnapshot_id.clone())
            .with("group_snapshot_id", snapshot.group_snapshot_id.clone())
            .with("status", snapshot.status.as_str())
            .with("progress", snapshot.progress.clone())
            .with("volume_size", snapshot.volume_size)
            .with("display_name", snapshot.display_name.clone())
            .with("display_description", snapshot.display_description.clone())
            .with("encryption_key_id", snapshot.encryption_key_id.clone())
            .with("volume_type_id", snapshot.volume_type_id.as_ref().map(|id| id.as_str()))
            .with("provider_location", snapshot.provider_location.clone())
            .with("provider_id", snapshot.provider_id.clone())
            .with("provider_auth", snapshot.provider_auth.clone())
            .with("created_at", time(snapshot.created_at))
            .with("updated_at", time(snapshot.updated_at))
            .with("deleted_at", time(snapshot.deleted_at))
            .with("deleted", snapshot.deleted)
            .with("metadata", super::texts(&snapshot.metadata))
    }
}
