//! `create_snapshot`.
//!
//! Under the driver's lock of the volume, because the volume's chain of files gets a new top.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, SnapshotChange, VolumeChange, WorkerClaim};
use scoria_drivers::ErrorKind;
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType, Snapshot, SnapshotId, SnapshotStatus,
    Volume, VolumeId,
};
use serde_json::{Value, json};

use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

struct Create<'a> {
    manager: &'a VolumeManager,
    snapshot: Snapshot,
    volume: Volume,
    claim: WorkerClaim,
    volume_admin_metadata: Metadata,
    /// The driver would not even begin: there is nothing to take back.
    refused: bool,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let snapshot = args.snapshot("snapshot")?;
    args.done()?;
    create(manager, job, &snapshot.id, &snapshot.volume_id).await
}

/// Takes up a snapshot whose process died and whose message does not come again.
pub(crate) async fn resume(manager: &Arc<VolumeManager>, job: &Job, snapshot: &Snapshot) -> Result<Value, Failure> {
    create(manager, job, &snapshot.id, &snapshot.volume_id).await
}

async fn create(
    manager: &Arc<VolumeManager>,
    job: &Job,
    id: &SnapshotId,
    volume_id: &VolumeId,
) -> Result<Value, Failure> {
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::driver(manager.lock_prefix(), volume_id));
    let without_lock = async {
        let change = SnapshotChange::status(SnapshotStatus::Error);
        let expect = Expect::status(SnapshotStatus::Creating);
        settled(manager.db.snapshot_update(id, &expect, &change).await?, &["error"])
    };
    let held = manager.hold_or(job, request, without_lock).await?;
    let outcome = create_locked(manager, job, id, &held).await;
    held.release().await;
    outcome
}

async fn create_locked(manager: &VolumeManager, job: &Job, id: &SnapshotId, held: &Held) -> Result<Value, Failure> {
    held.check("load")?;
    let loaded = manager.db.snapshot_load(id).await?.ok_or_else(|| Fault::snapshot_not_found(id))?;
    let snapshot = loaded.snapshot;
    if snapshot.status != SnapshotStatus::Creating {
        return Err(Interruption::Superseded(snapshot.status.to_string()).into());
    }
    let volume = manager
        .db
        .volume_get(&snapshot.volume_id)
        .await?
        .ok_or_else(|| Fault::volume_not_found(&snapshot.volume_id))?;
    let claim = manager.claim(job, ResourceType::Snapshot, id.as_str(), "creating", loaded.worker.as_ref()).await?;
    manager.notify_snapshot(&job.context, &snapshot, &volume, "create.start");
    let mut create =
        Create { manager, snapshot, volume, claim, volume_admin_metadata: Metadata::new(), refused: false };
    let outcome = match bearable(&create.claim) {
        Ok(()) => steps::run(&mut create, &[&MakeSnapshot, &RecordFormat, &CopyImageProperties, &Finish], held).await,
        unbearable => unbearable,
    };
    match outcome {
        Ok(()) => {
            manager.notify_snapshot(&job.context, &create.snapshot, &create.volume, "create.end");
            Ok(json!(id))
        }
        Err(Failure::Fault(fault)) => create.failed(job, fault, held).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Create<'_> {
    async fn failed(&mut self, job: &Job, fault: Fault, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        let change = SnapshotChange { status: Some(SnapshotStatus::Error), ..SnapshotChange::default() };
        let expect = Expect::status(SnapshotStatus::Creating).by(Some(&self.claim));
        let id = &self.snapshot.id;
        settled(self.manager.db.snapshot_finish(id, &expect, &change, Some(&self.claim)).await?, &["error"])?;
        let otherwise = match fault.class {
            FaultClass::MetadataCopyFailure => MessageDetail::SnapshotUpdateMetadataFailed,
            _ => MessageDetail::SnapshotCreateError,
        };
        let detail = VolumeManager::detail_of(&fault, otherwise);
        let action = MessageAction::SnapshotCreate;
        self.manager.tell_user(&job.context, ResourceType::Snapshot, id.as_str(), action, detail).await;
        Err(fault.into())
    }
}

/// Has the driver put a new file on top of the chain.
struct MakeSnapshot;

#[async_trait]
impl<'a> Step<Create<'a>> for MakeSnapshot {
    fn name(&self) -> &'static str {
        "make snapshot"
    }

    async fn run(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        create.manager.require_driver()?;
        let made = create.manager.driver.create_snapshot(&held.work, &create.snapshot, &create.volume).await;
        let refusal = |error: &scoria_drivers::Error| matches!(error.kind, ErrorKind::Invalid | ErrorKind::Unsupported);
        create.refused = made.as_ref().is_err_and(refusal);
        create.volume_admin_metadata = made?.volume_admin_metadata;
        Ok(())
    }

    async fn undo(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        if create.refused || !create.manager.is_driver_ready() {
            return Ok(());
        }
        let facts = create.manager.driver.delete_snapshot(&held.work, &create.snapshot, &create.volume).await?;
        record_format(create.manager, &mut create.volume, &facts.volume_admin_metadata).await
    }
}

/// The volume's active file has another format now, and whoever attaches it must know.
struct RecordFormat;

#[async_trait]
impl<'a> Step<Create<'a>> for RecordFormat {
    fn name(&self) -> &'static str {
        "record format"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        record_format(create.manager, &mut create.volume, &create.volume_admin_metadata).await
    }
}

/// Merges `changed` into the volume's admin metadata, where it says anything new.
pub(super) async fn record_format(
    manager: &VolumeManager,
    volume: &mut Volume,
    changed: &Metadata,
) -> Result<(), Failure> {
    if changed.iter().all(|(key, value)| volume.admin_metadata.get(key) == Some(value)) {
        return Ok(());
    }
    let change = VolumeChange { admin_metadata: Some(changed.clone()), ..VolumeChange::default() };
    settled(manager.db.volume_update(&volume.id, &Expect::any(), &change).await?, &[])?;
    volume.admin_metadata.extend(changed.clone());
    Ok(())
}

/// A snapshot of a bootable volume carries the image's properties.
struct CopyImageProperties;

#[async_trait]
impl<'a> Step<Create<'a>> for CopyImageProperties {
    fn name(&self) -> &'static str {
        "copy image properties"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        if create.volume.bootable && !create.volume.glance_metadata.is_empty() {
            create.manager.db.glance_metadata_copy_to_snapshot(&create.snapshot.id, &create.volume.id).await?;
        }
        Ok(())
    }

    async fn undo(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        if create.volume.bootable {
            create.manager.db.volume_glance_metadata_delete_by_snapshot(&create.snapshot.id).await?;
        }
        Ok(())
    }
}

/// `available`, 100 %, with the volume's key.
struct Finish;

#[async_trait]
impl<'a> Step<Create<'a>> for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        if create.snapshot.status == SnapshotStatus::Available {
            return Ok(());
        }
        let change = SnapshotChange {
            status: Some(SnapshotStatus::Available),
            progress: Some(Some("100%".to_owned())),
            encryption_key_id: Some(create.volume.encryption_key_id.clone()),
            ..SnapshotChange::default()
        };
        let expect = Expect::status(SnapshotStatus::Creating).by(Some(&create.claim));
        let swap =
            create.manager.db.snapshot_finish(&create.snapshot.id, &expect, &change, Some(&create.claim)).await?;
        settled(swap, &["available"])?;
        create.snapshot.status = SnapshotStatus::Available;
        Ok(())
    }
}
