//! `create_snapshot`.
//!
//! Under the driver's lock of the volume, because the volume's chain of files gets a new top. While the volume is attached,
//! its server then has to write into that.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{AttachmentChange, Expect, SnapshotChange, VolumeChange, WorkerClaim};
use scoria_drivers::{ErrorKind, SnapshotFacts};
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType, Snapshot, SnapshotId, SnapshotStatus,
    Volume, VolumeId,
};
use serde_json::{Value, json};

use super::assistance::{self, Assistance, Outcome};
use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

struct Create<'a> {
    manager: &'a VolumeManager,
    job: &'a Job,
    snapshot: Snapshot,
    volume: Volume,
    claim: WorkerClaim,
    facts: SnapshotFacts,
    /// The server of an attached volume may write into the overlay.
    is_taken_up: bool,
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
    let mut create = Create {
        manager,
        job,
        // An earlier try may have come that far.
        is_taken_up: assistance::was_asked(&snapshot),
        snapshot,
        volume,
        claim,
        facts: SnapshotFacts::default(),
        refused: false,
    };
    let steps: [&dyn Step<Create<'_>>; 5] =
        [&MakeSnapshot, &RecordActiveFile, &SwitchServer, &CopyImageProperties, &Finish];
    let outcome = match bearable(&create.claim) {
        Ok(()) => steps::run(&mut create, &steps, held).await,
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
        let progress = Some(Some("0%".to_owned()));
        let change = SnapshotChange { progress, ..SnapshotChange::status(SnapshotStatus::Error) };
        // The failure may be one that nova-compute has reported.
        let from = vec![SnapshotStatus::Creating, SnapshotStatus::Error];
        let expect = Expect { status: from, worker: Some(&self.claim) };
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
        create.refused = true;
        create.manager.require_driver()?;
        if assistance::of(create.manager, &create.volume).is_some() {
            assistance::nova(create.manager, &create.volume)?;
            assistance::sole_attachment(&create.volume)?;
        }
        let made = create.manager.driver.create_snapshot(&held.work, &create.snapshot, &create.volume).await;
        let refusal = |error: &scoria_drivers::Error| matches!(error.kind, ErrorKind::Invalid | ErrorKind::Unsupported);
        create.refused = made.as_ref().is_err_and(refusal);
        create.facts = made?;
        Ok(())
    }

    async fn undo(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        if create.refused || !create.manager.is_driver_ready() {
            return Ok(());
        }
        let (snapshot, volume) = (&create.snapshot, &create.volume);
        let facts = match assistance::of(create.manager, volume) {
            None => create.manager.driver.delete_snapshot(&held.work, snapshot, volume).await?,
            Some(assisted) if !create.is_taken_up => assisted.withdraw_snapshot(&held.work, snapshot, volume).await?,
            // What the server may be writing to stays; the snapshot can be deleted like any other.
            Some(_) => return Ok(()),
        };
        record_active_file(create.manager, &mut create.volume, &facts).await
    }
}

/// The volume's active file has another name and format now, and whoever attaches it must know. Its server may ask at any time.
struct RecordActiveFile;

#[async_trait]
impl<'a> Step<Create<'a>> for RecordActiveFile {
    fn name(&self) -> &'static str {
        "record active file"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        record_active_file(create.manager, &mut create.volume, &create.facts).await
    }
}

/// Has the volume's admin metadata and its attachment say what the active file is now. In between a qcow2 file may look raw but a
/// raw one never qcow2: what a guest wrote into it would be believed.
pub(super) async fn record_active_file(
    manager: &VolumeManager,
    volume: &mut Volume,
    facts: &SnapshotFacts,
) -> Result<(), Failure> {
    let format = facts.volume_admin_metadata.get("format").cloned();
    let becomes_qcow2 = format.as_deref() == Some("qcow2");
    if !becomes_qcow2 {
        record_format(manager, volume, &facts.volume_admin_metadata).await?;
    }
    if let (Some(file), Some(format)) = (&facts.active, &format) {
        record_connection(manager, volume, file, format).await?;
    }
    if becomes_qcow2 {
        record_format(manager, volume, &facts.volume_admin_metadata).await?;
    }
    Ok(())
}

/// Merges `changed` into the volume's admin metadata, where it says anything new.
async fn record_format(manager: &VolumeManager, volume: &mut Volume, changed: &Metadata) -> Result<(), Failure> {
    if changed.iter().all(|(key, value)| volume.admin_metadata.get(key) == Some(value)) {
        return Ok(());
    }
    let change = VolumeChange { admin_metadata: Some(changed.clone()), ..VolumeChange::default() };
    settled(manager.db.volume_update(&volume.id, &Expect::any(), &change).await?, &[])?;
    volume.admin_metadata.extend(changed.clone());
    Ok(())
}

/// Names the active file in the attachments of servers that write into it.
async fn record_connection(
    manager: &VolumeManager,
    volume: &mut Volume,
    file: &str,
    format: &str,
) -> Result<(), Failure> {
    if assistance::of(manager, volume).is_none() {
        return Ok(());
    }
    for attachment in &mut volume.attachments {
        let Some(info) = attachment.connection_info.as_mut() else { continue };
        let before = info.clone();
        info.insert("name".to_owned(), file.into());
        info.insert("format".to_owned(), format.into());
        if *info != before {
            let change = AttachmentChange { connection_info: Some(Some(info.clone().into())), ..Default::default() };
            manager.db.attachment_update(&attachment.id, &change).await?;
        }
    }
    Ok(())
}

/// Has the server of an attached volume write into the overlay from now on: what is below it is frozen then.
struct SwitchServer;

#[async_trait]
impl<'a> Step<Create<'a>> for SwitchServer {
    fn name(&self) -> &'static str {
        "switch server"
    }

    async fn run(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        let (manager, volume) = (create.manager, &create.volume);
        let (Some(assisted), Some(overlay)) = (assistance::of(manager, volume), &create.facts.active) else {
            return Ok(());
        };
        create.is_taken_up = true;
        let assistance =
            Assistance { manager, job: create.job, held, snapshot: &create.snapshot.id, claim: &create.claim };
        match assistance.switch_to(overlay, volume).await? {
            Outcome::Done => Ok(()),
            Outcome::NotDone(fault) => {
                create.is_taken_up = false;
                Err(fault.into())
            }
            Outcome::Unknown(fault) => match assisted.is_taken_up(&held.work, &create.snapshot, volume).await? {
                Some(true) => {
                    tracing::warn!(%fault, "the server writes into the overlay all the same: the snapshot is good");
                    Ok(())
                }
                found => {
                    create.is_taken_up = found.is_none();
                    Err(fault.into())
                }
            },
        }
    }
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
        // What nova-compute reported as an error may have been none.
        let from = vec![SnapshotStatus::Creating, SnapshotStatus::Error];
        let expect = Expect { status: from, worker: Some(&create.claim) };
        let swap =
            create.manager.db.snapshot_finish(&create.snapshot.id, &expect, &change, Some(&create.claim)).await?;
        settled(swap, &["available"])?;
        create.snapshot.status = SnapshotStatus::Available;
        Ok(())
    }
}
