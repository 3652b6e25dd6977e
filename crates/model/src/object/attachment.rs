//! Attachments as objects (`cinder/objects/volume_attachment.py: VolumeAttachment`).

use serde_json::Value;

use super::{Object, time};
use crate::{AttachStatus, Attachment, Fault};

/// Reads a `VolumeAttachment` object; `id` and `volume_id` must be there.
///
/// # Errors
/// As [`Object::decode`]; `ValueError` when one of the ids is missing or none.
pub fn decode_attachment(value: &Value) -> Result<Attachment, Fault> {
    Attachment::try_from(&Object::decode_as("VolumeAttachment", value)?)
}

/// Writes a `VolumeAttachment` object, without its volume.
#[must_use]
pub fn encode_attachment(attachment: &Attachment) -> Value {
    Object::from(attachment).encode()
}

impl TryFrom<&Object> for Attachment {
    type Error = Fault;
    fn try_from(object: &Object) -> Result<Self, Fault> {
        Ok(Self {
            id: object.required("id", object.id("id")?)?,
            volume_id: object.required("volume_id", object.id("volume_id")?)?,
            instance_uuid: object.text("instance_uuid"),
            attached_host: object.text("attached_host"),
            mountpoint: object.text("mountpoint"),
            attach_time: object.time("attach_time"),
            detach_time: object.time("detach_time"),
            attach_status: object.word("attach_status").unwrap_or(AttachStatus::Reserved),
            attach_mode: object.text("attach_mode"),
            connection_info: object.map("connection_info"),
            connector: object.map("connector"),
            created_at: object.time("created_at"),
            updated_at: object.time("updated_at"),
            deleted: object.flag("deleted", false),
        })
    }
}

impl From<&Attachment> for Object {
    fn from(attachment: &Attachment) -> Self {
        Self::new("VolumeAttachment")
            .with("id", attachment.id.as_str())
            .with("volume_id", attachment.volume_id.as_str())
            .with("instance_uuid", attachment.instance_uuid.clone())
            .with("attached_host", attachment.attached_host.clone())
            .with("mountpoint", attachment.mountpoint.clone())
            .with("attach_time", time(attachment.attach_time))
            .with("detach_time", time(attachment.detach_time))
            .with("attach_status", attachment.attach_status.as_str())
            .with("attach_mode", attachment.attach_mode.clone())
            .with("connection_info", attachment.connection_info.clone().map(Value::Object))
            .with("connector", attachment.connector.clone().map(Value::Object))
            .with("created_at", time(attachment.created_at))
            .with("updated_at", time(attachment.updated_at))
            .with("deleted_at", time(None))
            .with("deleted", attachment.deleted)
    }
}
