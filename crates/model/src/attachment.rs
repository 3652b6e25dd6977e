//! Attachments of volumes to servers.

use serde_json::{Map, Value};

use crate::{AttachStatus, AttachmentId, Timestamp, VolumeId};

/// What a server says of itself when it attaches (`host`, `initiator`, `ip`, `mode`, …): free JSON.
pub type Connector = Map<String, Value>;

/// One row of `volume_attachment` (`cinder/objects/volume_attachment.py: VolumeAttachment`).
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The id.
    pub id: AttachmentId,
    /// The volume.
    pub volume_id: VolumeId,
    /// The server.
    pub instance_uuid: Option<String>,
    /// The host, when no server is named.
    pub attached_host: Option<String>,
    /// Device name in the server.
    pub mountpoint: Option<String>,
    /// When it became attached.
    pub attach_time: Option<Timestamp>,
    /// When it was detached.
    pub detach_time: Option<Timestamp>,
    /// Its state.
    pub attach_status: AttachStatus,
    /// `rw`, `ro`, or the text `null`.
    pub attach_mode: Option<String>,
    /// What the server needs to reach the volume, as cinder-api stored it.
    pub connection_info: Option<Map<String, Value>>,
    /// What the server said of itself.
    pub connector: Option<Connector>,
    /// Row's birth.
    pub created_at: Option<Timestamp>,
    /// Row's last change.
    pub updated_at: Option<Timestamp>,
    /// Whether it is soft-deleted.
    pub deleted: bool,
}

impl Attachment {
    /// A reserved attachment of a volume, as cinder-api makes it.
    #[must_use]
    pub fn new(id: AttachmentId, volume_id: VolumeId) -> Self {
        Self {
            id,
            volume_id,
            instance_uuid: None,
            attached_host: None,
            mountpoint: None,
            attach_time: None,
            detach_time: None,
            attach_status: AttachStatus::Reserved,
            attach_mode: None,
            connection_info: None,
            connector: None,
            created_at: None,
            updated_at: None,
            deleted: false,
        }
    }
}
