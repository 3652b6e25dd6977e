//! `delete_snapshot`, also as part of a cascading `delete_volume`.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, LoadedSnapshot, QuotaRelease, SnapshotChange, WorkerClaim};
use scoria_drivers::SnapshotFacts;
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, ResourceType, Snapshot, SnapshotId, SnapshotStatus, Volume,
    VolumeId,
};
use serde_json::Value;

use super::assistance::{self, Assistance, Outcome};
use super::create_snapshot::record_active_file;
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
    job: &'a Job,
    loaded: LoadedSnapshot,
    volume: Volume,
    claim: WorkerClaim,
    unmanage: bool,
    /// The server of an attached volume never wrote into the snapshot's overlay.
    is_unused: bool,
    facts: SnapshotFacts,
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
    let mut delete =
        Delete { manager, job, loaded, volume, claim, unmanage, is_unused: false, facts: SnapshotFacts::default() };
    let outcome = match bearable(&delete.claim) {
        Ok(()) => steps::run(&mut delete, &[&MergeInServer, &RemoveSnapshot, &RecordActiveFile, &Destroy], held).await,
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

    /// As the operation found it, or as nova-compute has reported a failure, which the files may know better.
    fn expected(&self) -> Expect<'_, SnapshotStatus> {
        Expect { status: [ASKED.as_slice(), &[SnapshotStatus::ErrorDeleting]].concat(), worker: Some(&self.claim) }
    }

    /// A snapshot that is busy goes back to `available`, and the caller hears nothing of it.
    async fn failed(&mut self, job: &Job, fault: Fault, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        let busy = fault.class == FaultClass::SnapshotIsBusy;
        let status = if busy { SnapshotStatus::Available } else { SnapshotStatus::ErrorDeleting };
        let progress = Some(Some("100%".to_owned()));
        let change = SnapshotChange { progress, ..SnapshotChange::status(status.clone()) };
        let expect = self.expected();
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

/// Has the server of an attached volume merge the files that only it can.
struct MergeInServer;

#[async_trait]
impl<'a> Step<Delete<'a>> for MergeInServer {
    fn name(&self) -> &'static str {
        "merge in server"
    }

    async fn run(&self, delete: &mut Delete<'a>, held: &Held) -> Result<(), Failure> {
        delete.manager.require_driver()?;
        let (manager, snapshot, volume) = (delete.manager, &delete.loaded.snapshot, &delete.volume);
        let Some(assisted) = assistance::of(manager, volume).filter(|_| !delete.unmanage) else { return Ok(()) };
        if assisted.is_taken_up(&held.work, snapshot, volume).await? == Some(false) {
            delete.is_unused = true;
            return Ok(());
        }
        let Some(merge) = assisted.merge_of(&held.work, snapshot, volume).await? else { return Ok(()) };
        let assistance = Assistance { manager, job: delete.job, held, snapshot: &snapshot.id, claim: &delete.claim };
        match assistance.merge(&merge, volume).await? {
            Outcome::Done => Ok(()),
            Outcome::NotDone(fault) => Err(fault.into()),
            // The files tell.
            Outcome::Unknown(fault) => match assisted.merge_of(&held.work, snapshot, volume).await? {
                None => Ok(()),
                Some(_) => Err(fault.into()),
            },
        }
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
        let (driver, snapshot, volume) = (&delete.manager.driver, delete.snapshot(), &delete.volume);
        let facts = match assistance::of(delete.manager, volume) {
            Some(assisted) if delete.is_unused => assisted.withdraw_snapshot(&held.work, snapshot, volume).await?,
            _ => driver.delete_snapshot(&held.work, snapshot, volume).await?,
        };
        delete.facts = facts;
        Ok(())
    }
}

/// With the last snapshot gone the volume's active file is its base again.
struct RecordActiveFile;

#[async_trait]
impl<'a> Step<Delete<'a>> for RecordActiveFile {
    fn name(&self) -> &'static str {
        "record active file"
    }

    async fn run(&self, delete: &mut Delete<'a>, _held: &Held) -> Result<(), Failure> {
        record_active_file(delete.manager, &mut delete.volume, &delete.facts).await
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
        let expect = delete.expected();
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
