//! `revert_to_snapshot`: a volume gets the content of its latest snapshot again.
//!
//! Python takes no lock for it. Here it is the driver's lock of the volume, because the top of its chain of files is
//! replaced. The snapshot's state is settled before the volume's, which nobody can use until then: whoever carries on after
//! an interruption reverts once more, and the content is the same.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, SnapshotChange, VolumeChange, WorkerClaim};
use scoria_model::{Fault, ResourceType, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus};
use serde_json::Value;

use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

struct Revert<'a> {
    manager: &'a VolumeManager,
    snapshot: Snapshot,
    volume: Volume,
    claim: WorkerClaim,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let volume = args.volume("volume")?.id;
    let snapshot = args.snapshot("snapshot")?.id;
    args.done()?;
    revert(manager, job, &volume, &snapshot).await
}

/// Takes up a reversion whose process died and whose message does not come again.
pub(crate) async fn resume(manager: &Arc<VolumeManager>, job: &Job, snapshot: &Snapshot) -> Result<Value, Failure> {
    revert(manager, job, &snapshot.volume_id, &snapshot.id).await
}

async fn revert(
    manager: &Arc<VolumeManager>,
    job: &Job,
    id: &VolumeId,
    snapshot: &SnapshotId,
) -> Result<Value, Failure> {
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::driver(manager.lock_prefix(), id));
    let held = manager.hold_or(job, request, fail(manager, id, snapshot, None)).await?;
    let outcome = revert_locked(manager, job, id, snapshot, &held).await;
    held.release().await;
    outcome
}

async fn revert_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    snapshot_id: &SnapshotId,
    held: &Held,
) -> Result<Value, Failure> {
    held.check("load")?;
    let loaded = manager.db.volume_load(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    let volume = loaded.volume;
    if volume.status != VolumeStatus::Reverting {
        return Err(Interruption::Superseded(volume.status.to_string()).into());
    }
    let claim = manager.claim(job, ResourceType::Volume, id.as_str(), "reverting", loaded.worker.as_ref()).await?;
    let outcome = match manager.db.snapshot_get(snapshot_id).await? {
        Some(snapshot) => {
            let mut revert = Revert { manager, snapshot, volume, claim: claim.clone() };
            revert.notify(job, "revert.start");
            let outcome = match bearable(&claim) {
                Ok(()) => steps::run(&mut revert, &[&GoBack, &SettleSnapshot, &Finish], held).await,
                unbearable => unbearable,
            };
            if !matches!(outcome, Err(Failure::Interrupted(_))) {
                revert.notify(job, "revert.end");
            }
            outcome
        }
        None => Err(Fault::snapshot_not_found(snapshot_id).into()),
    };
    if let Err(Failure::Fault(_)) = outcome {
        held.check_alive("fail")?;
        fail(manager, id, snapshot_id, Some(&claim)).await?;
    }
    outcome.map(|()| Value::Null)
}

/// The snapshot is as good as before; what the volume holds is not known.
async fn fail(
    manager: &VolumeManager,
    id: &VolumeId,
    snapshot: &SnapshotId,
    claim: Option<&WorkerClaim>,
) -> Result<(), Failure> {
    settle(manager, snapshot).await?;
    let expect = Expect::status(VolumeStatus::Reverting).by(claim);
    let change = VolumeChange::status(VolumeStatus::Error);
    settled(manager.db.volume_finish(id, &expect, &change, claim).await?, &["error"])
}

/// The snapshot can be used again. One that is no longer `restoring` is somebody else's business.
async fn settle(manager: &VolumeManager, id: &SnapshotId) -> Result<(), Failure> {
    let change = SnapshotChange::status(SnapshotStatus::Available);
    manager.db.snapshot_update(id, &Expect::status(SnapshotStatus::Restoring), &change).await?;
    Ok(())
}

impl Revert<'_> {
    fn notify(&self, job: &Job, event: &str) {
        self.manager.notify_volume(&job.context, &self.volume, event);
        self.manager.notify_snapshot(&job.context, &self.snapshot, &self.volume, event);
    }
}

/// Has the driver bring the content back. There is no undo: what was written since the snapshot is what was to go.
struct GoBack;

#[async_trait]
impl<'a> Step<Revert<'a>> for GoBack {
    fn name(&self) -> &'static str {
        "go back"
    }

    async fn run(&self, revert: &mut Revert<'a>, held: &Held) -> Result<(), Failure> {
        if revert.volume.status != VolumeStatus::Reverting {
            return Ok(());
        }
        revert.manager.require_driver()?;
        Ok(revert.manager.driver.revert_to_snapshot(&held.work, &revert.snapshot, &revert.volume).await?)
    }
}

/// The snapshot can be used again.
struct SettleSnapshot;

#[async_trait]
impl<'a> Step<Revert<'a>> for SettleSnapshot {
    fn name(&self) -> &'static str {
        "settle snapshot"
    }

    async fn run(&self, revert: &mut Revert<'a>, _held: &Held) -> Result<(), Failure> {
        settle(revert.manager, &revert.snapshot.id).await?;
        revert.snapshot.status = SnapshotStatus::Available;
        Ok(())
    }
}

/// So can the volume.
struct Finish;

#[async_trait]
impl<'a> Step<Revert<'a>> for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn run(&self, revert: &mut Revert<'a>, _held: &Held) -> Result<(), Failure> {
        if revert.volume.status == VolumeStatus::Available {
            return Ok(());
        }
        let expect = Expect::status(VolumeStatus::Reverting).by(Some(&revert.claim));
        let change = VolumeChange::status(VolumeStatus::Available);
        let id = &revert.volume.id;
        settled(revert.manager.db.volume_finish(id, &expect, &change, Some(&revert.claim)).await?, &["available"])?;
        revert.volume.status = VolumeStatus::Available;
        Ok(())
    }
}
