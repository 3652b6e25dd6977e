//! `delete_volume`: the volume alone, with its snapshots (`cascade`), or only from the books (`unmanage_only`).

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, Loaded, QuotaRelease, VolumeChange, WorkerClaim};
use scoria_model::{AttachStatus, Fault, FaultClass, ResourceType, SnapshotStatus, Volume, VolumeId, VolumeStatus};
use serde_json::Value;

use super::delete_snapshot;
use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

/// Statuses in which cinder-api asks for a deletion.
const ASKED: [VolumeStatus; 3] =
    [VolumeStatus::Deleting, VolumeStatus::Unmanaging, VolumeStatus::ErrorManagingDeleting];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct How {
    unmanage: bool,
    cascade: bool,
}

struct Delete<'a> {
    manager: &'a VolumeManager,
    job: &'a Job,
    loaded: Loaded,
    claim: WorkerClaim,
    how: How,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let volume = args.volume("volume")?;
    let how = How { unmanage: args.flag("unmanage_only", false)?, cascade: args.flag("cascade", false)? };
    args.done()?;
    delete(manager, job, &volume.id, how).await
}

/// Takes up a deletion whose process died and whose message does not come again (`_do_cleanup`: with cascade).
pub(crate) async fn resume(manager: &Arc<VolumeManager>, job: &Job, volume: &Volume) -> Result<Value, Failure> {
    delete(manager, job, &volume.id, How { unmanage: false, cascade: true }).await
}

async fn delete(manager: &Arc<VolumeManager>, job: &Job, id: &VolumeId, how: How) -> Result<Value, Failure> {
    let mut request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::delete_volume(id))
        .exclusive(locks::driver(manager.lock_prefix(), id));
    if how.cascade {
        for snapshot in manager.db.snapshots_of_volume(id).await? {
            request = request.exclusive(locks::delete_snapshot(&snapshot.id));
        }
    }
    let without_lock = async {
        let change = VolumeChange::status(VolumeStatus::ErrorDeleting);
        let expect = Expect { status: ASKED.to_vec(), worker: None };
        settled(manager.db.volume_update(id, &expect, &change).await?, &["error_deleting"])
    };
    let held = manager.hold_or(job, request, without_lock).await?;
    let outcome = delete_locked(manager, job, id, how, &held).await;
    held.release().await;
    outcome
}

async fn delete_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    how: How,
    held: &Held,
) -> Result<Value, Failure> {
    held.check("load")?;
    let Some(loaded) = manager.db.volume_load(id).await? else {
        tracing::debug!(volume = %id, "already deleted");
        return Ok(Value::Null);
    };
    let volume = &loaded.volume;
    if !ASKED.contains(&volume.status) {
        return Err(Interruption::Superseded(volume.status.to_string()).into());
    }
    if volume.attach_status == AttachStatus::Attached {
        return Err(Fault::volume_attached(id).into());
    }
    if !manager.is_ours(volume) {
        let message = format!("Invalid Volume: Volume {id} is not local to {}.", manager.name());
        return Err(Fault::new(FaultClass::Invalid, message).into());
    }
    if how.unmanage && how.cascade {
        return Err(
            Fault::new(FaultClass::Invalid, "Unmanage and cascade delete options are mutually exclusive.").into()
        );
    }
    let status = volume.status.to_string();
    let claim = manager.claim(job, ResourceType::Volume, id.as_str(), &status, loaded.worker.as_ref()).await?;
    let (event, size, pool) =
        (if how.unmanage { "unmanage" } else { "delete" }, volume.size, manager.pool_of(volume.host.as_deref()));
    manager.notify_volume(&job.context, volume, &format!("{event}.start"));
    let mut delete = Delete { manager, job, loaded, claim, how };
    let outcome = match bearable(&delete.claim) {
        Ok(()) => steps::run(&mut delete, &[&DeleteSnapshots, &RemoveExport, &RemoveVolume, &Destroy], held).await,
        unbearable => unbearable,
    };
    match outcome {
        Ok(()) => {
            manager.notify_volume(&job.context, &delete.loaded.volume, &format!("{event}.end"));
            manager.allocated.add(&pool, -i64::try_from(size).unwrap_or(i64::MAX));
            manager.report_wanted.notify_one();
            Ok(Value::Null)
        }
        Err(Failure::Fault(fault)) => delete.failed(fault, held).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Delete<'_> {
    /// A volume that is busy goes back to `available`, and the caller hears nothing of it (lifecycle.md §6).
    async fn failed(&mut self, fault: Fault, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        let busy = fault.class == FaultClass::VolumeIsBusy;
        let status = match (busy, self.how.unmanage) {
            (true, _) => VolumeStatus::Available,
            (false, true) => VolumeStatus::ErrorUnmanaging,
            (false, false) => VolumeStatus::ErrorDeleting,
        };
        let change = VolumeChange::status(status.clone());
        let expect = Expect { status: ASKED.to_vec(), worker: Some(&self.claim) };
        let id = &self.loaded.volume.id;
        settled(self.manager.db.volume_finish(id, &expect, &change, Some(&self.claim)).await?, &[status.as_str()])?;
        if busy { Ok(Value::Null) } else { Err(fault.into()) }
    }

    fn quota(&self) -> Option<QuotaRelease> {
        let volume = &self.loaded.volume;
        let counted = volume.use_quota && volume.status != VolumeStatus::ErrorManagingDeleting;
        let project = volume.project_id.clone().filter(|_| counted)?;
        let type_name = volume.volume_type.as_ref().map(|volume_type| volume_type.name.as_str());
        Some(QuotaRelease::volume(&project, volume.size, type_name))
    }
}

/// Deletes the snapshots first, when asked to.
struct DeleteSnapshots;

#[async_trait]
impl<'a> Step<Delete<'a>> for DeleteSnapshots {
    fn name(&self) -> &'static str {
        "delete snapshots"
    }

    async fn run(&self, delete: &mut Delete<'a>, held: &Held) -> Result<(), Failure> {
        if !delete.loaded.has_snapshots || delete.how.unmanage {
            return Ok(());
        }
        let id = delete.loaded.volume.id.clone();
        let snapshots = delete.manager.db.snapshots_of_volume(&id).await?;
        if !delete.how.cascade {
            let message = format!("Volume {id} still has {} snapshots.", snapshots.len());
            return Err(Fault::invalid_volume(message).into());
        }
        if let Some(other) = snapshots.iter().find(|snapshot| snapshot.status != SnapshotStatus::Deleting) {
            let message = format!(
                "Snapshot {} was found in state {} rather than 'deleting' during cascade delete.",
                other.id, other.status
            );
            return Err(Fault::invalid_snapshot(message).into());
        }
        for snapshot in snapshots {
            delete_snapshot::delete_locked(delete.manager, delete.job, &snapshot.id, false, held).await?;
        }
        // The driver wrote the volume's format while it removed its last snapshot.
        if let Some(loaded) = delete.manager.db.volume_load(&id).await? {
            delete.loaded = loaded;
        }
        Ok(())
    }
}

/// Nobody needs to reach it any more.
struct RemoveExport;

#[async_trait]
impl<'a> Step<Delete<'a>> for RemoveExport {
    fn name(&self) -> &'static str {
        "remove export"
    }

    async fn run(&self, delete: &mut Delete<'a>, _held: &Held) -> Result<(), Failure> {
        delete.manager.require_driver()?;
        Ok(delete.manager.driver.remove_export(&delete.loaded.volume).await?)
    }
}

/// Removes the data; a volume that is only unmanaged keeps it.
struct RemoveVolume;

#[async_trait]
impl<'a> Step<Delete<'a>> for RemoveVolume {
    fn name(&self) -> &'static str {
        "remove volume"
    }

    async fn run(&self, delete: &mut Delete<'a>, held: &Held) -> Result<(), Failure> {
        if delete.how.unmanage {
            return Ok(());
        }
        Ok(delete.manager.driver.delete_volume(&held.work, &delete.loaded.volume).await?)
    }
}

/// Row, quota and workers row, in one transaction.
struct Destroy;

#[async_trait]
impl<'a> Step<Delete<'a>> for Destroy {
    fn name(&self) -> &'static str {
        "destroy"
    }

    async fn run(&self, delete: &mut Delete<'a>, _held: &Held) -> Result<(), Failure> {
        if delete.loaded.volume.status == VolumeStatus::Deleted {
            return Ok(());
        }
        let expect = Expect { status: ASKED.to_vec(), worker: Some(&delete.claim) };
        let quota = delete.quota();
        let swap =
            delete.manager.db.volume_destroy(&delete.loaded, &expect, quota.as_ref(), Some(&delete.claim)).await?;
        settled(swap, &["deleted"])?;
        delete.loaded.volume.status = VolumeStatus::Deleted;
        Ok(())
    }
}
