//! `extend_volume`.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, VolumeChange, WorkerClaim};
use scoria_model::{Fault, MessageAction, MessageDetail, ResourceType, Volume, VolumeId, VolumeStatus};
use serde_json::Value;
use uuid::Uuid;

use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

struct Extend<'a> {
    manager: &'a VolumeManager,
    volume: Volume,
    new_size: u64,
    reservations: Vec<Uuid>,
    claim: WorkerClaim,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let Volume { id, project_id, .. } = args.volume("volume")?;
    let new_size = args.size("new_size")?;
    // Reservations are ids that cinder-api made; anything else was never reserved.
    let reservations: Vec<Uuid> = args.texts("reservations")?.iter().filter_map(|text| text.parse().ok()).collect();
    args.done()?;
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::driver(manager.lock_prefix(), &id));
    let without_lock = async {
        manager.db.quota_rollback(&reservations, &project_id.unwrap_or_default()).await?;
        fail_extend(manager, &id, None).await
    };
    let held = manager.hold_or(job, request, without_lock).await?;
    let outcome = extend_locked(manager, job, &id, new_size, reservations, &held).await;
    held.release().await;
    outcome
}

async fn extend_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    new_size: u64,
    reservations: Vec<Uuid>,
    held: &Held,
) -> Result<Value, Failure> {
    held.check("load")?;
    let loaded = manager.db.volume_load(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    let volume = loaded.volume;
    if volume.status != VolumeStatus::Extending {
        return Err(Interruption::Superseded(volume.status.to_string()).into());
    }
    let claim = manager.claim(job, ResourceType::Volume, id.as_str(), "extending", loaded.worker.as_ref()).await?;
    let (old_size, pool) = (volume.size, manager.pool_of(volume.host.as_deref()));
    manager.notify_volume(&job.context, &volume, "resize.start");
    let mut extend = Extend { manager, volume, new_size, reservations, claim };
    let outcome = match bearable(&extend.claim) {
        Ok(()) => steps::run(&mut extend, &[&Grow, &CommitQuota, &Finish], held).await,
        unbearable => unbearable,
    };
    match outcome {
        Ok(()) => {
            let grown = new_size.saturating_sub(old_size);
            manager.allocated.add(&pool, i64::try_from(grown).unwrap_or(i64::MAX));
            manager.notify_volume(&job.context, &extend.volume, "resize.end");
            Ok(Value::Null)
        }
        Err(Failure::Fault(fault)) => extend.failed(job, fault, held).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Extend<'_> {
    async fn failed(&mut self, job: &Job, fault: Fault, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        let project = self.volume.project_id.clone().unwrap_or_default();
        self.manager.db.quota_rollback(&self.reservations, &project).await?;
        fail_extend(self.manager, &self.volume.id, Some(&self.claim)).await?;
        let detail = VolumeManager::detail_of(&fault, MessageDetail::DriverFailedExtend);
        let id = self.volume.id.as_str();
        self.manager.tell_user(&job.context, ResourceType::Volume, id, MessageAction::ExtendVolume, detail).await;
        Err(fault.into())
    }
}

/// `error_extending`, whose reservations the caller has given back.
async fn fail_extend(manager: &VolumeManager, id: &VolumeId, claim: Option<&WorkerClaim>) -> Result<(), Failure> {
    let change = VolumeChange::status(VolumeStatus::ErrorExtending);
    let swap = manager.db.volume_finish(id, &Expect::status(VolumeStatus::Extending), &change, claim).await?;
    settled(swap, &["error_extending"])
}

/// Has the driver grow the volume; it cannot be made smaller again, and need not be.
struct Grow;

#[async_trait]
impl<'a> Step<Extend<'a>> for Grow {
    fn name(&self) -> &'static str {
        "grow"
    }

    async fn run(&self, extend: &mut Extend<'a>, held: &Held) -> Result<(), Failure> {
        extend.manager.require_driver()?;
        Ok(extend.manager.driver.extend_volume(&held.work, &extend.volume, extend.new_size).await?)
    }
}

/// The reservations that cinder-api made become usage. A reservation that was already settled is left alone.
struct CommitQuota;

#[async_trait]
impl<'a> Step<Extend<'a>> for CommitQuota {
    fn name(&self) -> &'static str {
        "commit quota"
    }

    async fn run(&self, extend: &mut Extend<'a>, _held: &Held) -> Result<(), Failure> {
        let project = extend.volume.project_id.clone().unwrap_or_default();
        Ok(extend.manager.db.quota_commit(&extend.reservations, &project).await?)
    }
}

/// Size and the status that its attachments say.
struct Finish;

#[async_trait]
impl<'a> Step<Extend<'a>> for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn run(&self, extend: &mut Extend<'a>, _held: &Held) -> Result<(), Failure> {
        if extend.volume.status != VolumeStatus::Extending {
            return Ok(());
        }
        let status = if extend.volume.attachments.is_empty() { VolumeStatus::Available } else { VolumeStatus::InUse };
        let change = VolumeChange { size: Some(extend.new_size), ..VolumeChange::status(status.clone()) };
        let expect = Expect::status(VolumeStatus::Extending).by(Some(&extend.claim));
        let swap = extend.manager.db.volume_finish(&extend.volume.id, &expect, &change, Some(&extend.claim)).await?;
        settled(swap, &[status.as_str()])?;
        extend.volume.size = extend.new_size;
        extend.volume.status = status;
        Ok(())
    }
}
