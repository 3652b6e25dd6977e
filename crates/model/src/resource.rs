//! Work in progress (`workers`) and messages for users (`messages`).

use crate::Timestamp;

/// The kind of resource a worker row or a user message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// A volume.
    Volume,
    /// A snapshot.
    Snapshot,
}

impl ResourceType {
    /// Class name in `workers.resource_type`.
    #[must_use]
    pub fn worker_type(self) -> &'static str {
        match self {
            Self::Volume => "Volume",
            Self::Snapshot => "Snapshot",
        }
    }

    /// Word in `messages.resource_type` and in event ids (`cinder/message/message_field.py: Resource`).
    #[must_use]
    pub fn message_type(self) -> &'static str {
        match self {
            Self::Volume => "VOLUME",
            Self::Snapshot => "VOLUME_SNAPSHOT",
        }
    }
}

/// One row of `workers`: somebody is at work on a resource (`cinder/objects/cleanable.py`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The id.
    pub id: i64,
    /// `Volume`, `Snapshot`, …
    pub resource_type: String,
    /// The resource.
    pub resource_id: String,
    /// The resource's status while the work goes on.
    pub status: String,
    /// Who is at work; `None` until somebody has taken it.
    pub service_id: Option<i64>,
    /// Counts every change of hands: whoever holds an older number was replaced and may write nothing.
    pub race_preventer: i64,
    /// Row's birth.
    pub created_at: Option<Timestamp>,
    /// Last change, as read.
    pub updated_at: Option<Timestamp>,
}

/// What was being done when a user message was written (`cinder/message/message_field.py: Action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the contract's own words")]
pub enum MessageAction {
    ScheduleAllocateVolume = 1,
    AttachVolume = 2,
    CopyVolumeToImage = 3,
    UpdateAttachment = 4,
    CopyImageToVolume = 5,
    UnmanageVolume = 6,
    ExtendVolume = 7,
    CreateVolumeFromBackend = 8,
    SnapshotCreate = 9,
    SnapshotDelete = 10,
    SnapshotUpdate = 11,
    SnapshotMetadataUpdate = 12,
}

/// What went wrong (`cinder/message/message_field.py: Detail`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the contract's own words")]
pub enum MessageDetail {
    UnknownError = 1,
    DriverNotInitialized = 2,
    NoBackendAvailable = 3,
    AttachModeInvalid = 5,
    QuotaExceeded = 6,
    NotifyComputeServiceFailed = 9,
    DriverFailedExtend = 10,
    DriverFailedCreate = 12,
    SnapshotCreateError = 13,
    SnapshotUpdateMetadataFailed = 14,
    SnapshotIsBusy = 15,
    SnapshotDeleteError = 16,
    AttachError = 21,
    DetachError = 22,
}

/// A message for the user who asked, to be read through the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserMessage {
    /// Owner's project.
    pub project_id: String,
    /// The request.
    pub request_id: Option<String>,
    /// Kind of resource.
    pub resource_type: ResourceType,
    /// The resource.
    pub resource_id: String,
    /// What was being done.
    pub action: MessageAction,
    /// What went wrong.
    pub detail: MessageDetail,
    /// Seconds until the message may be reaped (`message_ttl`).
    pub ttl: i64,
}

impl UserMessage {
    /// `VOLUME_<resource>_<action>_<detail>`, e.g. `VOLUME_VOLUME_001_002`.
    #[must_use]
    pub fn event_id(&self) -> String {
        format!("VOLUME_{}_{}_{}", self.resource_type.message_type(), self.action_id(), self.detail_id())
    }

    /// Three digits.
    #[must_use]
    pub fn action_id(&self) -> String {
        format!("{:03}", self.action as u16)
    }

    /// Three digits.
    #[must_use]
    pub fn detail_id(&self) -> String {
        format!("{:03}", self.detail as u16)
    }
}
