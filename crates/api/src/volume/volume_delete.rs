//! Deleting volumes (`cinder/volume/api.py: API.delete`).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use scoria_db::{Expect, QuotaRelease, SnapshotChange, Swap, VolumeChange};
use scoria_model::{AttachStatus, Fault, ResourceType, Snapshot, SnapshotStatus, Timestamp, Volume, VolumeStatus};

use super::FrontDoor;
use super::errors::{ApiError, ApiResult};
use super::lookup::{IdPath, or};
use super::request::Caller;

/// Statuses in which a volume may be deleted without force.
const DELETABLE: [VolumeStatus; 5] = [
    VolumeStatus::Available,
    VolumeStatus::Error,
    VolumeStatus::ErrorRestoring,
    VolumeStatus::ErrorExtending,
    VolumeStatus::ErrorManaging,
];

/// How far a deletion may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its snapshots too.
    pub(crate) cascade: bool,
    /// In whatever status it is.
    pub(crate) force: bool,
}

/// `DELETE /volumes/{id}?cascade=…&force=…`; force came with 3.23.
pub(crate) async fn delete(State(door): State<Arc<FrontDoor>>, caller: Caller, Path(path): Path<IdPath>) -> ApiResult {
    let mut query = caller.query();
    let cascade = query.take_flag("cascade")?;
    let force = caller.version.has(23) && query.take_flag("force")?;
    let volume = door.volume(&path.id).await?;
    door.delete_volume(&caller, volume, Extent { cascade, force }).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

impl FrontDoor {
    /// Sets the volume to `deleting` and tells the volume service.
    ///
    /// The status goes first, the conditions that span tables are looked at again after it: whoever makes a snapshot or an
    /// attachment does it the other way round (row first, then a look at the volume's status), so of two that meet at least
    /// one sees the other.
    pub(crate) async fn delete_volume(&self, caller: &Caller, volume: Volume, extent: Extent) -> ApiResult<()> {
        if volume.host.is_none() {
            return self.delete_homeless(&volume, caller).await;
        }
        self.check_deletable(&volume, extent).await?;
        let status = match volume.status {
            VolumeStatus::ErrorManaging => VolumeStatus::ErrorManagingDeleting,
            _ => VolumeStatus::Deleting,
        };
        let before = volume.status.clone();
        let expect = Expect { status: expected(&volume, extent), worker: None };
        let change = VolumeChange {
            status: Some(status.clone()),
            terminated_at: Some(Some(Timestamp::now())),
            ..VolumeChange::default()
        };
        match self.database.volume_update(&volume.id, &expect, &change).await? {
            Swap::Done => {}
            Swap::Gone => return Err(Fault::volume_not_found(&volume.id).into()),
            Swap::Unexpected { .. } | Swap::Replaced => return Err(refused(extent)),
        }
        let volume = Volume { status, ..volume };
        let mut taken = Vec::new();
        if let Err(error) = self.finish_delete(caller, &volume, extent, &mut taken).await {
            self.restore(&volume, before, taken).await;
            return Err(error);
        }
        Ok(())
    }

    /// A volume that no service ever had is nowhere: its row goes at once, whatever its status.
    async fn delete_homeless(&self, volume: &Volume, caller: &Caller) -> ApiResult<()> {
        let Some(loaded) = self.database.volume_load(&volume.id).await? else {
            return Err(Fault::volume_not_found(&volume.id).into());
        };
        let project = volume.project_id.as_deref().unwrap_or(&caller.project);
        let of_type = volume.volume_type.as_ref().map(|of_type| of_type.name.as_str());
        let release = QuotaRelease::volume(project, volume.size, of_type);
        let release = Some(&release).filter(|_| volume.use_quota && volume.status != VolumeStatus::ErrorManaging);
        self.database.volume_destroy(&loaded, &Expect::any(), release, None).await?;
        self.forget_work(ResourceType::Volume, volume.id.as_str()).await?;
        Ok(())
    }

    /// What comes after the volume's status; the snapshots that go with it are added to `taken` as they were.
    async fn finish_delete(
        &self,
        caller: &Caller,
        volume: &Volume,
        extent: Extent,
        taken: &mut Vec<Snapshot>,
    ) -> ApiResult<()> {
        let now = self.volume(volume.id.as_str()).await?;
        self.check_deletable(&Volume { status: VolumeStatus::Available, ..now }, extent).await?;
        if extent.cascade {
            for snapshot in self.database.snapshots_of_volume(&volume.id).await? {
                self.delete_with_volume(&snapshot).await?;
                taken.push(snapshot);
            }
        }
        self.worker_for_volume(volume).await?;
        Ok(self.rpc.delete_volume(&caller.context, volume, false, extent.cascade).await?)
    }

    /// Conditions on the volume and on what hangs on it.
    async fn check_deletable(&self, volume: &Volume, extent: Extent) -> ApiResult<()> {
        let migrating = !matches!(volume.migration_status.as_deref(), None | Some("deleting" | "error" | "success"));
        let grouped = volume.group_id.is_some() || volume.consistencygroup_id.is_some();
        let wrong_status = !extent.force && !DELETABLE.contains(&volume.status);
        if migrating || grouped || wrong_status || volume.attach_status == AttachStatus::Attached {
            return Err(refused(extent));
        }
        let snapshots = self.database.snapshots_of_volume(&volume.id).await?;
        let deletable = |snapshot: &Snapshot| {
            let known = [SnapshotStatus::Available, SnapshotStatus::Error, SnapshotStatus::Deleting];
            snapshot.cgsnapshot_id.is_none()
                && snapshot.group_snapshot_id.is_none()
                && (extent.force || known.contains(&snapshot.status))
        };
        if extent.cascade { snapshots.iter().all(deletable) } else { snapshots.is_empty() }
            .then_some(())
            .ok_or_else(|| refused(extent))
    }

    async fn delete_with_volume(&self, snapshot: &Snapshot) -> ApiResult<()> {
        let change = SnapshotChange { status: Some(SnapshotStatus::Deleting), ..SnapshotChange::default() };
        let expect = Expect::status(snapshot.status.clone());
        match self.database.snapshot_update(&snapshot.id, &expect, &change).await? {
            Swap::Done | Swap::Gone => Ok(()),
            Swap::Unexpected { .. } | Swap::Replaced => Err(Fault::invalid_volume("Failed to update snapshot.").into()),
        }
    }

    /// Takes the statuses back after something stood in the way, and with them the word that there is work to do.
    async fn restore(&self, volume: &Volume, before: VolumeStatus, snapshots: Vec<Snapshot>) {
        if let Err(error) = self.try_restore(volume, before, snapshots).await {
            tracing::error!(%error, volume = %volume.id, "a refused deletion could not be taken back");
        }
    }

    async fn try_restore(&self, volume: &Volume, before: VolumeStatus, snapshots: Vec<Snapshot>) -> ApiResult<()> {
        if !self.forget_work(ResourceType::Volume, volume.id.as_str()).await? {
            return Ok(());
        }
        for snapshot in snapshots {
            let back = SnapshotChange { status: Some(snapshot.status), ..SnapshotChange::default() };
            let expect = Expect::status(SnapshotStatus::Deleting);
            self.database.snapshot_update(&snapshot.id, &expect, &back).await?;
        }
        let terminated_at = Some(volume.terminated_at);
        let back = VolumeChange { terminated_at, ..VolumeChange::status(before) };
        self.database.volume_update(&volume.id, &Expect::status(volume.status.clone()), &back).await?;
        Ok(())
    }
}

fn expected(volume: &Volume, extent: Extent) -> Vec<VolumeStatus> {
    if extent.force { vec![volume.status.clone()] } else { DELETABLE.to_vec() }
}

fn refused(extent: Extent) -> ApiError {
    let status = if extent.force { String::new() } else { format!("status must be {} and", or(&DELETABLE)) };
    Fault::invalid_volume(format_args!(
        "Volume {status} must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be \
         disassociated from snapshots after volume transfer."
    ))
    .into()
}
