//! Finding what an address names, and Cinder's errors when it is not there.

use scoria_model::{Attachment, AttachmentId, Fault, ResourceType, Snapshot, Volume, VolumeStatus, VolumeType};
use serde::Deserialize;

use super::FrontDoor;
use super::errors::{ApiResult, volume_type_name_not_found, volume_type_not_found};

/// The id in an address; the project beside it is the caller's, and read there.
#[derive(Debug, Deserialize)]
pub(crate) struct IdPath {
    pub(crate) id: String,
}

impl FrontDoor {
    /// The volume with what is joined to it. Every caller is an administrator and sees all projects.
    pub(crate) async fn volume(&self, id: &str) -> ApiResult<Volume> {
        let found = match id.parse() {
            Ok(id) => self.database.volume_get(&id).await?,
            Err(_) => None,
        };
        Ok(found.ok_or_else(|| Fault::volume_not_found(id))?)
    }

    /// The snapshot.
    pub(crate) async fn snapshot(&self, id: &str) -> ApiResult<Snapshot> {
        let found = match id.parse() {
            Ok(id) => self.database.snapshot_get(&id).await?,
            Err(_) => None,
        };
        Ok(found.ok_or_else(|| Fault::snapshot_not_found(id))?)
    }

    /// The attachment.
    pub(crate) async fn attachment(&self, id: &str) -> ApiResult<Attachment> {
        let found = match id.parse::<AttachmentId>() {
            Ok(id) => self.database.attachment_get(&id).await?,
            Err(_) => None,
        };
        Ok(found.ok_or_else(|| Fault::attachment_not_found(id))?)
    }

    /// The volume type with this id.
    pub(crate) async fn volume_type(&self, id: &str) -> ApiResult<VolumeType> {
        let found = match id.parse() {
            Ok(id) => self.database.volume_type_get(&id).await?,
            Err(_) => None,
        };
        Ok(found.ok_or_else(|| volume_type_not_found(id))?)
    }

    /// The volume type with this id or else this name (`VolumeType.get_by_name_or_id`).
    pub(crate) async fn volume_type_by_any(&self, id_or_name: &str) -> ApiResult<VolumeType> {
        if uuid::Uuid::parse_str(id_or_name).is_ok()
            && let Ok(id) = id_or_name.parse()
            && let Some(found) = self.database.volume_type_get(&id).await?
        {
            return Ok(found);
        }
        let found = self.database.volume_type_by_name(id_or_name).await?;
        Ok(found.ok_or_else(|| volume_type_name_not_found(id_or_name))?)
    }

    /// Says in the database that somebody is about to work on the volume, before the message says it: a message that gets
    /// lost is found by this.
    pub(crate) async fn worker_for_volume(&self, volume: &Volume) -> ApiResult<()> {
        if volume.status.is_cleanable() {
            let (kind, status) = (ResourceType::Volume, volume.status.as_str());
            self.database.worker_create_unclaimed(kind, volume.id.as_str(), status).await?;
        }
        Ok(())
    }

    /// Takes that word back after the message could not be sent. False: somebody is at work already, so it got through after
    /// all.
    pub(crate) async fn forget_work(&self, kind: ResourceType, id: &str) -> ApiResult<bool> {
        loop {
            match self.database.worker_get(kind, id).await? {
                None => return Ok(true),
                Some(worker) if worker.service_id.is_some() => return Ok(false),
                Some(worker) if self.database.worker_remove(&worker).await? => return Ok(true),
                // It changed under us: taken by somebody, or gone with the work before this one. Which, the next look tells.
                Some(_) => {}
            }
        }
    }

    /// As [`FrontDoor::worker_for_volume`], for a snapshot.
    pub(crate) async fn worker_for_snapshot(&self, snapshot: &Snapshot) -> ApiResult<()> {
        if snapshot.status.is_cleanable() {
            let (kind, status) = (ResourceType::Snapshot, snapshot.status.as_str());
            self.database.worker_create_unclaimed(kind, snapshot.id.as_str(), status).await?;
        }
        Ok(())
    }
}

/// `a or b or c` (`cinder/utils.py: build_or_str`).
pub(crate) fn or(statuses: &[VolumeStatus]) -> String {
    statuses.iter().map(VolumeStatus::as_str).collect::<Vec<_>>().join(" or ")
}
