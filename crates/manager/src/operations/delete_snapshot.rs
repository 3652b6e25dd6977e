//! `delete_snapshot`, also as part of a cascading `delete_volume`.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, LoadedSnapshot, QuotaRelease, SnapshotChange, WorkerClaim};
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType, Snapshot, SnapshotId, SnapshotStatus,
    Volume, VolumeId,
};
use serde_json::Value;

use super::create_snapshot::record_format;
use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

/// Statuses in which cinder-api asks for a deletion.
const ASKED: [SnapshotStatus; 2] = [SnapshotStatus::Deleting, SnapshotStatus::Unmanaging];

struct Delete<'a> {
    manager: &'a VolumeManager,
    loaded: LoadedSnapshot,
    volume: Volume,
    claim: WorkerClaim,
    unmanage: bool,
    volume_admin_metadata: Metadata,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let snapshot = args.snapshot("snapshot")?;
    let unmanage = args.flag("unmanage_only", false)?;
    args.done()?;
    delete(manager, job, &snapshot.id, &snapshot.volume_id, unmanage).await
}

/// Takes up a deletion whose process died and whose message does not come again.
pub(crate) async fn resume(manager: &Arc<VolumeManager>, job: &Job, snapshot: &Snapshot) -> Result<Value, Failure> {
    delete(manager, job, &snapshot.id, &snapshot.volume_id, false).await
}

async fn delete(
    manager: &Arc<VolumeManager>,
    job: &Job,
    id: &SnapshotId,
    volume_id: &VolumeId,
    unmanage: bool,
) -> Result<Value, Failure> {
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::delete_snapshot(id))
        .exclusive(locks::driver(manager.lock_prefix(), volume_id));
    let without_lock = async {
        let change = SnapshotChange::status(SnapshotStatus::ErrorDeleting);
        let expect = Expect { status: ASKED.to_vec(), worker: None };
        settled(manager.db.snapshot_update(id, &expect, &change).await?, &["error_deleting"])
    };
    let held = manager.hold_or(job, request, without_lock).await?;
    let outcome = delete_locked(manager, job, id, unmanage, &held).await;
    held.release().await;
    outcome
}

/// The deletion under locks that somebody already holds.
pub(super) async fn delete_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &SnapshotId,
    unmanage: bool,
    held: &Held,
) -> Result<Value, Failure> {
    held.check("load")?;
    let Some(loaded) = manager.db.snapshot_load(id).await? else {
        tracing::debug!(snapshot = %id, "already deleted");
        return Ok(Value::Null);
    };
    let snapshot = &loaded.snapshot;
    if !ASKED.contains(&snapshot.status) {
        return Err(Interruption::Superseded(snapshot.status.to_string()).into());
    }
    let volume = manager
        .db
        .volume_get(&snapshot.volume_id)
        .await?
        .ok_or_else(|| Fault::volume_not_found(&snapshot.volume_id))?;
    let status = snapshot.status.to_string();
    let claim = manager.claim(job, ResourceType::Snapshot, id.as_str(), &status, loaded.worker.as_ref()).await?;
    manager.notify_snapshot(&job.context, snapshot, &volume, "delete.start");
    let mut delete = Delete { manager, loaded, volume, claim, unmanage, volume_admin_metadata: Metadata::new() };
    let outcome = match bearable(&delete.claim) {
        Ok(()) => steps::run(&mut delete, &[&RemoveSnapshot, &RecordFormat, &Destroy], held).await,
        unbearable => unbearable,
    };
    match outcome {
        Ok(()) => {
            manager.notify_snapshot(&job.context, delete.snapshot(), &delete.volume, "delete.end");
            Ok(Value::Null)
        }
        Err(Failure::Fault(fault)) => delete.failed(job, fault, held).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Delete<'_> {
    fn snapshot(&self) -> &Snapshot {
        &self.loaded.snapshot
    }

    /// A snapshot that is busy goes back to `available`, and the caller hears nothing of it.
    async fn failed(&mut self, job: &Job, fault: Fault, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        let busy = fault.class == FaultClass::SnapshotIsBusy;
        let status = if busy { SnapshotStatus::Available } else { SnapshotStatus::ErrorDeleting };
        let change = SnapshotChange { status: Some(status.clone()), ..SnapshotChange::default() };
        let expect = Expect { status: ASKED.to_vec(), worker: Some(&self.claim) };
        let id = &self.snapshot().id;
        let swap = self.manager.db.snapshot_finish(id, &expect, &change, Some(&self.claim)).await?;
        settled(swap, &[status.as_str()])?;
        let detail = VolumeManager::detail_of(&fault, MessageDetail::SnapshotDeleteError);
        let action = MessageAction::SnapshotDelete;
        self.manager.tell_user(&job.context, ResourceType::Snapshot, id.as_str(), action, detail).await;
        if busy { Ok(Value::Null) } else { Err(fault.into()) }
    }

    fn quota(&self) -> Option<QuotaRelease> {
        let snapshot = self.snapshot();
        let project = snapshot.project_id.clone().filter(|_| snapshot.use_quota)?;
        let type_name = self.volume.volume_type.as_ref().map(|volume_type| volume_type.name.as_str());
        let without_gigabytes = self.manager.options.no_snapshot_gb_quota;
        Some(QuotaRelease::snapshot(&project, snapshot.volume_size, type_name, without_gigabytes))
    }
}

/// Has the driver take the snapshot out of the chain.
struct RemoveSnapshot;

#[async_trait]
impl<'a> Step<Delete<'a>> for RemoveSnapshot {
    fn name(&self) -> &'static str {
        "remove snapshot"
    }

    async fn run(&self, delete: &mut Delete<'a>, held: &Held) -> Result<(), Failure> {
        delete.manager.require_driver()?;
        if delete.unmanage {
            return Ok(());
        }
        let facts = delete.manager.driver.delete_snapshot(&held.work, delete.snapshot(), &delete.volume).await?;
        delete.volume_admin_metadata = facts.volume_admin_metadata;
        Ok(())
    }
}

/// With the last snapshot gone the volume's active file is its base again.
struct RecordFormat;

#[async_trait]
impl<'a> Step<Delete<'a>> for RecordFormat {
    fn name(&self) -> &'static str {
        "record format"
    }

    async fn run(&self, delete: &mut Delete<'a>, _held: &Held) -> Result<(), Failure> {
        let changed = delete.volume_admin_metadata.clone();
        record_format(delete.manager, &mut delete.volume, &changed).await
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
        if delete.loaded.snapshot.deleted {
            return Ok(());
        }
        let expect = Expect { status: ASKED.to_vec(), worker: Some(&delete.claim) };
        let (id, quota) = (&delete.loaded.snapshot.id, delete.quota());
        settled(
            delete.manager.db.snapshot_destroy(id, &expect, quota.as_ref(), Some(&delete.claim)).await?,
            &["deleted"],
        )?;
        let snapshot = &mut delete.loaded.snapshot;
        (snapshot.status, snapshot.deleted) = (SnapshotStatus::Deleted, true);
        Ok(())
    }
}
