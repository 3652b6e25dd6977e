//! `create_volume`: blank, from a volume, from a snapshot.
//!
//! The source's lock is held for the whole copy, shared with other readers, and the source is looked up again under it: a
//! source that is gone ends the request before any effect. The driver's locks of the new volume and of the source's files
//! are part of the same sorted set.
//!
//! A failure undoes the volume, then sends the request back to the scheduler if it may choose again, else sets `error`
//! (lifecycle.md §5).

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Expect, VolumeChange, WorkerClaim};
use scoria_drivers::VolumeFacts;
use scoria_model::object::RequestSpec;
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType, Snapshot, SnapshotId, Timestamp, Volume,
    VolumeId, VolumeStatus,
};
use serde_json::{Map, Value, json};

use super::rows::{bearable, settled};
use crate::args::Args;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

/// Faults that another back end would meet too (`cinder/volume/flows/manager/create_volume.py: no_reschedule_types`).
const NO_RESCHEDULE: &[FaultClass] = &[
    FaultClass::MetadataCopyFailure,
    FaultClass::MetadataUpdateFailure,
    FaultClass::VolumeNotFound,
    FaultClass::SnapshotNotFound,
    FaultClass::VolumeTypeNotFound,
];

/// Where the content comes from, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceId {
    Blank,
    Volume(VolumeId),
    Snapshot(SnapshotId),
    /// Images and backups are not served yet.
    Unsupported(&'static str),
}

/// Where the content comes from, looked up under the lock.
enum Source {
    Blank,
    Volume(Box<Volume>),
    Snapshot(Box<Snapshot>, Box<Volume>),
}

/// Whether and how the scheduler may choose again.
struct Reschedule {
    spec: RequestSpec,
    filter_properties: Map<String, Value>,
}

struct Create<'a> {
    manager: &'a VolumeManager,
    job: &'a Job,
    volume: Volume,
    claim: WorkerClaim,
    source: Source,
    facts: VolumeFacts,
}

pub(super) async fn run(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let volume = args.volume("volume")?;
    let spec = args.optional("request_spec").map(|value| RequestSpec::from_object(&value)).transpose()?;
    let filter_properties = args.optional("filter_properties");
    let allow_reschedule = args.flag("allow_reschedule", true)?;
    args.done()?;
    let source = source_id(spec.as_ref(), &volume);
    // Without `retry` the scheduler would not know that it is being asked again.
    let reschedule = match (spec, filter_properties) {
        (Some(spec), Some(Value::Object(filter_properties)))
            if allow_reschedule && filter_properties.contains_key("retry") =>
        {
            Some(Reschedule { spec, filter_properties })
        }
        _ => None,
    };
    create(manager, job, &volume.id, source, reschedule).await
}

/// Takes up a creation whose process died and whose message does not come again.
pub(crate) async fn resume(manager: &Arc<VolumeManager>, job: &Job, volume: &Volume) -> Result<Value, Failure> {
    create(manager, job, &volume.id, source_id(None, volume), None).await
}

/// The request's word stands before the row's; the row's is taken where the request is silent, so that no copy is made
/// without its source's lock.
fn source_id(spec: Option<&RequestSpec>, volume: &Volume) -> SourceId {
    if spec.is_some_and(|spec| spec.image_id.is_some()) {
        return SourceId::Unsupported("an image");
    }
    if spec.is_some_and(|spec| spec.backup_id.is_some()) {
        return SourceId::Unsupported("a backup");
    }
    if let Some(id) = spec.and_then(|spec| spec.snapshot_id.clone()).or_else(|| volume.snapshot_id.clone()) {
        return SourceId::Snapshot(id);
    }
    if let Some(id) = spec.and_then(|spec| spec.source_volid.clone()).or_else(|| volume.source_volid.clone()) {
        return SourceId::Volume(id);
    }
    SourceId::Blank
}

async fn create(
    manager: &Arc<VolumeManager>,
    job: &Job,
    id: &VolumeId,
    source: SourceId,
    reschedule: Option<Reschedule>,
) -> Result<Value, Failure> {
    let prefix = manager.lock_prefix();
    let mut request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::driver(prefix, id));
    match &source {
        SourceId::Volume(source) => {
            request = request.shared(locks::delete_volume(source)).shared(locks::driver(prefix, source));
        }
        SourceId::Snapshot(snapshot) => {
            request = request.shared(locks::delete_snapshot(snapshot));
            // Deleting another snapshot of the chain would rewrite the files this one is read from.
            if let Some(snapshot) = manager.db.snapshot_get(snapshot).await? {
                request = request.shared(locks::driver(prefix, &snapshot.volume_id));
            }
        }
        SourceId::Blank | SourceId::Unsupported(_) => {}
    }
    let held = manager.hold_or(job, request, without_lock(manager, job, id)).await?;
    let outcome = create_locked(manager, job, id, source, reschedule, &held).await;
    held.release().await;
    outcome
}

async fn create_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    source: SourceId,
    reschedule: Option<Reschedule>,
    held: &Held,
) -> Result<Value, Failure> {
    held.check("load")?;
    let loaded = manager.db.volume_load(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    let volume = loaded.volume;
    if volume.status != VolumeStatus::Creating {
        return Err(Interruption::Superseded(volume.status.to_string()).into());
    }
    if volume.host.is_none() {
        // An earlier try gave it back to the scheduler and died before the scheduler heard of it.
        return match reschedule {
            Some(reschedule) => send_to_scheduler(manager, job, &volume, reschedule, "interrupted").await,
            None => Err(Interruption::Superseded("waiting for the scheduler".to_owned()).into()),
        };
    }
    let claim = manager.claim(job, ResourceType::Volume, id.as_str(), "creating", loaded.worker.as_ref()).await?;
    let bearable = bearable(&claim);
    // What brings us down would bring others down too.
    let reschedule = reschedule.filter(|_| bearable.is_ok());
    let mut create = Create { manager, job, volume, claim, source: Source::Blank, facts: VolumeFacts::default() };
    let prepared = match bearable {
        Ok(()) => create.prepare(&source).await,
        unbearable => unbearable,
    };
    let outcome = match prepared {
        Ok(()) => {
            manager.notify_volume(&job.context, &create.volume, "create.start");
            steps::run(&mut create, &[&MakeVolume, &CopyImageProperties, &Finish], held).await
        }
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => {
            let size = i64::try_from(create.volume.size).unwrap_or(i64::MAX);
            manager.allocated.add(&manager.pool_of(create.volume.host.as_deref()), size);
            manager.notify_volume(&job.context, &create.volume, "create.end");
            Ok(json!(id))
        }
        Err(Failure::Fault(fault)) => create.failed(fault, reschedule, held).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Create<'_> {
    /// Looks the source up again, now that nobody can remove it.
    async fn prepare(&mut self, source: &SourceId) -> Result<(), Failure> {
        let db = &self.manager.db;
        self.manager.require_driver()?;
        self.move_here().await?;
        self.source = match source {
            SourceId::Blank => Source::Blank,
            SourceId::Unsupported(kind) => {
                let message = format!("this service cannot create a volume from {kind} yet");
                return Err(Fault::new(FaultClass::VolumeDriverException, message).into());
            }
            SourceId::Volume(id) => {
                Source::Volume(Box::new(db.volume_get(id).await?.ok_or_else(|| Fault::volume_not_found(id))?))
            }
            SourceId::Snapshot(id) => {
                let snapshot = db.snapshot_get(id).await?.ok_or_else(|| Fault::snapshot_not_found(id))?;
                let volume = db
                    .volume_get(&snapshot.volume_id)
                    .await?
                    .ok_or_else(|| Fault::volume_not_found(&snapshot.volume_id))?;
                Source::Snapshot(Box::new(snapshot), Box::new(volume))
            }
        };
        Ok(())
    }

    /// In a cluster the row still names the member the scheduler thought of: whoever does the work puts its own name there.
    async fn move_here(&mut self) -> Result<(), Failure> {
        let Some(host) = self.volume.parsed_host() else { return Ok(()) };
        let ours = scoria_model::Host::new(&self.manager.options.host, &self.manager.options.backend);
        if self.manager.options.cluster.is_none() || host.same_service(&ours) {
            return Ok(());
        }
        let ours = ours.with_pool(host.pool.as_deref()).to_string();
        let change = VolumeChange { host: Some(Some(ours.clone())), ..VolumeChange::default() };
        let expect = Expect::status(VolumeStatus::Creating).by(Some(&self.claim));
        settled(self.manager.db.volume_update(&self.volume.id, &expect, &change).await?, &[])?;
        self.volume.host = Some(ours);
        Ok(())
    }

    /// Properties of the image on a bootable source.
    async fn source_image(&self) -> Result<Option<Metadata>, Failure> {
        Ok(match &self.source {
            Source::Volume(source) if source.bootable => Some(source.glance_metadata.clone()),
            Source::Snapshot(snapshot, source) if source.bootable => {
                Some(self.manager.db.snapshot_glance_metadata(&snapshot.id).await?)
            }
            _ => None,
        })
    }

    async fn failed(&mut self, fault: Fault, reschedule: Option<Reschedule>, held: &Held) -> Result<Value, Failure> {
        held.check_alive("fail")?;
        if let Some(reschedule) = reschedule.filter(|_| !NO_RESCHEDULE.contains(&fault.class)) {
            let change = VolumeChange {
                host: Some(None),
                scheduled_at: Some(Some(Timestamp::now())),
                ..VolumeChange::default()
            };
            let expect = Expect::status(VolumeStatus::Creating).by(Some(&self.claim));
            settled(self.manager.db.volume_update(&self.volume.id, &expect, &change).await?, &[])?;
            tracing::warn!(volume = %self.volume.id, %fault, "creation failed, asking the scheduler for another back end");
            send_to_scheduler(self.manager, self.job, &self.volume, reschedule, &fault.message).await?;
            return Err(fault.into());
        }
        let change = VolumeChange::status(VolumeStatus::Error);
        let expect = Expect::status(VolumeStatus::Creating).by(Some(&self.claim));
        let swap = self.manager.db.volume_finish(&self.volume.id, &expect, &change, Some(&self.claim)).await?;
        settled(swap, &["error"])?;
        let detail = VolumeManager::detail_of(&fault, MessageDetail::DriverFailedCreate);
        let id = self.volume.id.as_str();
        let action = MessageAction::CreateVolumeFromBackend;
        self.manager.tell_user(&self.job.context, ResourceType::Volume, id, action, detail).await;
        Err(fault.into())
    }
}

/// Casts the request back to the scheduler, with the user's own context and the story of this try.
async fn send_to_scheduler(
    manager: &VolumeManager,
    job: &Job,
    volume: &Volume,
    mut reschedule: Reschedule,
    why: &str,
) -> Result<Value, Failure> {
    if let Some(Value::Object(retry)) = reschedule.filter_properties.get_mut("retry") {
        retry.insert("exc".to_owned(), json!([why]));
    }
    let spec = reschedule.spec.with_volume_id(&volume.id);
    manager.db.worker_create_unclaimed(ResourceType::Volume, volume.id.as_str(), "creating").await?;
    let volume = Volume { host: None, ..volume.clone() };
    manager
        .rpc
        .schedule_create_volume(&job.context, &volume, &spec, &reschedule.filter_properties)
        .await
        .map_err(|error| Interruption::Unavailable(error.to_string()))?;
    Ok(Value::Null)
}

/// The locks could not be had in time.
async fn without_lock(manager: &VolumeManager, job: &Job, id: &VolumeId) -> Result<(), Failure> {
    let change = VolumeChange::status(VolumeStatus::Error);
    settled(manager.db.volume_update(id, &Expect::status(VolumeStatus::Creating), &change).await?, &["error"])?;
    let action = MessageAction::CreateVolumeFromBackend;
    let detail = MessageDetail::DriverFailedCreate;
    manager.tell_user(&job.context, ResourceType::Volume, id.as_str(), action, detail).await;
    Ok(())
}

/// Has the driver make the volume.
struct MakeVolume;

#[async_trait]
impl<'a> Step<Create<'a>> for MakeVolume {
    fn name(&self) -> &'static str {
        "make volume"
    }

    async fn run(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        let driver = &create.manager.driver;
        create.facts = match &create.source {
            Source::Blank => driver.create_volume(&held.work, &create.volume).await?,
            Source::Volume(source) => driver.create_cloned_volume(&held.work, &create.volume, source).await?,
            Source::Snapshot(snapshot, source) => {
                driver.create_volume_from_snapshot(&held.work, &create.volume, snapshot, source).await?
            }
        };
        Ok(())
    }

    async fn undo(&self, create: &mut Create<'a>, held: &Held) -> Result<(), Failure> {
        let mut made = create.volume.clone();
        made.provider_location = create.facts.provider_location.clone().or(made.provider_location);
        Ok(create.manager.driver.delete_volume(&held.work, &made).await?)
    }
}

/// A volume made from a bootable source is bootable and carries the image's properties.
struct CopyImageProperties;

#[async_trait]
impl<'a> Step<Create<'a>> for CopyImageProperties {
    fn name(&self) -> &'static str {
        "copy image properties"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        let Some(properties) = create.source_image().await? else { return Ok(()) };
        create.manager.db.volume_glance_metadata_create(&create.volume.id, &properties).await?;
        create.volume.glance_metadata = properties;
        create.volume.bootable = true;
        Ok(())
    }

    async fn undo(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        if create.volume.bootable {
            create.manager.db.volume_glance_metadata_delete_by_volume(&create.volume.id).await?;
        }
        Ok(())
    }
}

/// Writes what became of it, and `available`.
struct Finish;

#[async_trait]
impl<'a> Step<Create<'a>> for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn run(&self, create: &mut Create<'a>, _held: &Held) -> Result<(), Failure> {
        if create.volume.status == VolumeStatus::Available {
            return Ok(());
        }
        let now = Timestamp::now();
        let change = VolumeChange {
            status: Some(VolumeStatus::Available),
            launched_at: Some(Some(now)),
            provider_location: create.facts.provider_location.clone().map(Some),
            bootable: create.volume.bootable.then_some(true),
            // The drivers here have no targets (`_driver_shares_targets`: true for iSCSI only).
            shared_targets: Some(Some(false)),
            service_uuid: Some(create.manager.service().uuid.clone()),
            admin_metadata: Some(create.facts.admin_metadata.clone()),
            ..VolumeChange::default()
        };
        let expect = Expect::status(VolumeStatus::Creating).by(Some(&create.claim));
        let swap = create.manager.db.volume_finish(&create.volume.id, &expect, &change, Some(&create.claim)).await?;
        settled(swap, &["available"])?;
        create.volume.status = VolumeStatus::Available;
        create.volume.launched_at = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_only_the_request_names_is_a_source_all_the_same() {
        let silent = Volume::new(VolumeId::random(), 1);
        let source = VolumeId::random();
        let naming = Volume { source_volid: Some(source.clone()), ..silent.clone() };
        let spec = RequestSpec::for_volume(&naming);
        assert_eq!(source_id(Some(&spec), &silent), SourceId::Volume(source.clone()));
        assert_eq!(source_id(None, &naming), SourceId::Volume(source));
        assert_eq!(source_id(None, &silent), SourceId::Blank);
    }
}
