//! `attach_volume` and `detach_volume`: the attach calls of before the attachments API. They only write rows.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Attached, AttachmentFilter, Error, Expect, VolumeChange};
use scoria_model::{
    AttachStatus, Attachment, AttachmentId, Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType,
    Volume, VolumeId, VolumeStatus, object,
};
use serde_json::Value;

use super::attachments::{attachment, mark};
use super::connections::{exporter, volume};
use crate::args::Args;
use crate::failure::Failure;
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

/// Admin metadata that remembers how a volume is attached.
const ATTACHED_MODE: &str = "attached_mode";

struct Asked {
    instance_uuid: Option<String>,
    host_name: Option<String>,
    mountpoint: String,
    mode: String,
}

struct Attach<'a> {
    manager: &'a VolumeManager,
    asked: &'a Asked,
    /// As it was before.
    volume: Volume,
    /// The row to be made, or one that an interrupted try has made.
    attachment: AttachmentId,
}

pub(super) async fn attach(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    let asked = Asked {
        instance_uuid: args.optional_text("instance_uuid")?,
        host_name: args.optional_text("host_name")?.map(|host| sanitize_hostname(&host)),
        mountpoint: args.optional_text("mountpoint")?.unwrap_or_default(),
        mode: args.optional_text("mode")?.unwrap_or_else(|| "rw".to_owned()),
    };
    args.optional_volume("volume")?;
    args.done()?;
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str());
    let held = manager.hold(job, request.exclusive(locks::attach_volume(&id))).await?;
    let outcome = attach_locked(manager, job, &id, &asked, &held).await;
    held.release().await;
    Ok(object::encode_attachment(&outcome?))
}

async fn attach_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    asked: &Asked,
    held: &Held,
) -> Result<Attachment, Failure> {
    let found = volume(manager, id).await?;
    let attached_mode = found.admin_metadata.get(ATTACHED_MODE);
    if found.status == VolumeStatus::Attaching && attached_mode.is_some_and(|mode| *mode != asked.mode) {
        return Err(Fault::invalid_volume("being attached by different mode").into());
    }
    let live = live_attachments(manager, id).await?;
    let known = live.iter().find(|attachment| asked.is_for(attachment));
    // One that only an interrupted try can have left is carried on.
    let (begun, known) = match known {
        Some(one) if one.attach_status == AttachStatus::Attaching => (Some(one.id.clone()), None),
        other => (None, other.cloned()),
    };
    let attachment_id = begun.clone().unwrap_or_else(AttachmentId::random);
    let mut attach = Attach { manager, asked, volume: found, attachment: attachment_id };
    if let Some(known) = known {
        steps::run(&mut attach, &[&SayInUse], held).await?;
        return Ok(known);
    }
    let volume_in_use = attach.volume.status == VolumeStatus::InUse && !attach.volume.multiattach;
    if begun.is_none() && volume_in_use && attach.volume.migration_status.is_none() {
        let reason = "volume is already attached and multiple attachments are not enabled";
        return Err(Fault::invalid_volume(reason).into());
    }
    manager.notify_attachment(&job.context, &attach.volume, "attach.start");
    match steps::run(&mut attach, &[&Reserve, &Check, &MarkAttached], held).await {
        Ok(()) => {
            manager.notify_attachment(&job.context, &volume(manager, id).await?, "attach.end");
            attachment(manager, &attach.attachment).await
        }
        Err(Failure::Fault(fault)) => attach.failed(job, fault).await,
        Err(interrupted) => Err(interrupted),
    }
}

impl Asked {
    /// Whether an attachment is the one that is asked for. One that failed is nobody's.
    fn is_for(&self, attachment: &Attachment) -> bool {
        if attachment.attach_status.as_str().starts_with("error_") {
            return false;
        }
        match &self.instance_uuid {
            Some(instance) => attachment.instance_uuid.as_ref() == Some(instance),
            None => self.host_name.is_some() && attachment.attached_host == self.host_name,
        }
    }

    /// The server, where it can be one.
    fn instance(&self) -> Option<&str> {
        self.instance_uuid.as_deref().filter(|text| uuid::Uuid::parse_str(text).is_ok())
    }

    fn mode(&self) -> Metadata {
        [(ATTACHED_MODE.to_owned(), self.mode.clone())].into()
    }
}

impl Attach<'_> {
    async fn failed(&self, job: &Job, fault: Fault) -> Result<Attachment, Failure> {
        let detail = match fault.class {
            FaultClass::DriverNotInitialized => Some(MessageDetail::DriverNotInitialized),
            FaultClass::InvalidVolumeAttachMode => Some(MessageDetail::AttachModeInvalid),
            _ => None,
        };
        if let Some(detail) = detail {
            let (id, action) = (self.volume.id.as_str(), MessageAction::AttachVolume);
            self.manager.tell_user(&job.context, ResourceType::Volume, id, action, detail).await;
        }
        Err(fault.into())
    }
}

/// An attachment that is there already is in use.
struct SayInUse;

#[async_trait]
impl<'a> Step<Attach<'a>> for SayInUse {
    fn name(&self) -> &'static str {
        "say in-use"
    }

    async fn run(&self, attach: &mut Attach<'a>, _held: &Held) -> Result<(), Failure> {
        let change = VolumeChange::status(VolumeStatus::InUse);
        attach.manager.db.volume_update(&attach.volume.id, &Expect::any(), &change).await?;
        Ok(())
    }
}

/// Makes the attachment (`Volume.begin_attach`).
struct Reserve;

#[async_trait]
impl<'a> Step<Attach<'a>> for Reserve {
    fn name(&self) -> &'static str {
        "reserve"
    }

    async fn run(&self, attach: &mut Attach<'a>, _held: &Held) -> Result<(), Failure> {
        let Attach { manager, asked, volume, attachment } = attach;
        let mut row = Attachment::new(attachment.clone(), volume.id.clone());
        row.attach_status = AttachStatus::Attaching;
        row.attach_mode = Some(asked.mode.clone());
        // Whose it is, so that an interrupted try is known again.
        row.instance_uuid = asked.instance().map(str::to_owned);
        row.attached_host.clone_from(&asked.host_name);
        match manager.db.attachment_create(&row).await {
            Ok(_) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        manager.db.volume_admin_metadata_update(&volume.id, &asked.mode(), false).await?;
        Ok(())
    }

    /// The row stays, to say that it failed; the volume's mode is what it was.
    async fn undo(&self, attach: &mut Attach<'a>, _held: &Held) -> Result<(), Failure> {
        let Attach { manager, volume, attachment, .. } = attach;
        mark(manager, attachment, AttachStatus::ErrorAttaching).await?;
        match volume.admin_metadata.get_key_value(ATTACHED_MODE) {
            None => manager.db.volume_admin_metadata_delete(&volume.id, &[ATTACHED_MODE]).await?,
            Some((key, mode)) => {
                let before = [(key.clone(), mode.clone())].into();
                manager.db.volume_admin_metadata_update(&volume.id, &before, false).await?;
            }
        }
        Ok(())
    }
}

/// Whether it can be attached so. The contract has the attachment say that it cannot.
struct Check;

#[async_trait]
impl<'a> Step<Attach<'a>> for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    async fn run(&self, attach: &mut Attach<'a>, _held: &Held) -> Result<(), Failure> {
        let Attach { manager, asked, volume, .. } = attach;
        if let Some(instance) = asked.instance_uuid.as_ref().filter(|_| asked.instance().is_none()) {
            let message = format!("Expected a uuid but received {instance}.");
            return Err(Fault::new(FaultClass::InvalidUUID, message).with("uuid", instance.clone()).into());
        }
        let read_only = volume.admin_metadata.get("readonly").is_some_and(|value| value == "True");
        if read_only && asked.mode != "ro" {
            let message = format!("Invalid attaching mode '{}' for volume {}.", asked.mode, volume.id);
            let fault = Fault::new(FaultClass::InvalidVolumeAttachMode, message);
            return Err(fault.with("mode", asked.mode.clone()).with("volume_id", volume.id.to_string()).into());
        }
        Ok(manager.require_driver()?)
    }
}

/// The server has it.
struct MarkAttached;

#[async_trait]
impl<'a> Step<Attach<'a>> for MarkAttached {
    fn name(&self) -> &'static str {
        "mark attached"
    }

    async fn run(&self, attach: &mut Attach<'a>, _held: &Held) -> Result<(), Failure> {
        let attached = Attached {
            instance_uuid: attach.asked.instance_uuid.as_deref(),
            host: attach.asked.host_name.as_deref(),
            mountpoint: Some(&attach.asked.mountpoint),
            mode: &attach.asked.mode,
            mark_attached: true,
        };
        attach.manager.db.volume_attached(&attach.attachment, &attached).await?;
        Ok(())
    }
}

struct Detach<'a> {
    manager: &'a VolumeManager,
    volume: Volume,
    attachment: AttachmentId,
}

pub(super) async fn detach(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    let attachment_id = args.optional_text("attachment_id")?;
    args.optional_volume("volume")?;
    args.done()?;
    let held = manager.hold(job, exporter(job, &id)).await?;
    let outcome = detach_locked(manager, job, &id, attachment_id.as_deref(), &held).await;
    held.release().await;
    outcome.map(|()| Value::Null)
}

async fn detach_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    attachment_id: Option<&str>,
    held: &Held,
) -> Result<(), Failure> {
    let mut live = live_attachments(manager, id).await?;
    if let Some(wanted) = attachment_id {
        live.retain(|attachment| attachment.id.as_str() == wanted);
    }
    let (attachment, to_do): (_, &[&dyn Step<Detach<'_>>]) = match live.as_slice() {
        [one] => (one.id.clone(), &[&RemoveExport, &Finish]),
        // Nothing to detach: the volume must not be left in `detaching`.
        [] => (AttachmentId::random(), &[&Finish]),
        _ => {
            let reason = "More than one attachment exists for this volume, specify the attachment to be detached.";
            return Err(Fault::invalid_volume(reason).into());
        }
    };
    let mut detach = Detach { manager, volume: volume(manager, id).await?, attachment };
    manager.notify_attachment(&job.context, &detach.volume, "detach.start");
    if let Err(failure) = steps::run(&mut detach, to_do, held).await {
        if let Failure::Fault(_) = failure {
            held.check_alive("fail")?;
            mark(manager, &detach.attachment, AttachStatus::ErrorDetaching).await?;
        }
        return Err(failure);
    }
    if let Some(volume) = manager.db.volume_get(id).await? {
        manager.notify_attachment(&job.context, &volume, "detach.end");
    }
    Ok(())
}

/// The server has let go of it.
struct RemoveExport;

#[async_trait]
impl<'a> Step<Detach<'a>> for RemoveExport {
    fn name(&self) -> &'static str {
        "remove export"
    }

    async fn run(&self, detach: &mut Detach<'a>, _held: &Held) -> Result<(), Failure> {
        detach.manager.require_driver()?;
        let Err(error) = detach.manager.driver.remove_export(&detach.volume).await else { return Ok(()) };
        if error.kind == scoria_drivers::ErrorKind::Cancelled {
            return Err(error.into());
        }
        let id = &detach.volume.id;
        let message = format!("Failed to remove export for volume {id}: {error}");
        let fault = Fault::new(FaultClass::RemoveExportException, message);
        Err(fault.with("volume", id.to_string()).with("reason", error.to_string()).into())
    }
}

/// Takes the attachment away, if it is there, and gives the volume the state that follows from the others.
struct Finish;

#[async_trait]
impl<'a> Step<Detach<'a>> for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn run(&self, detach: &mut Detach<'a>, _held: &Held) -> Result<(), Failure> {
        detach.manager.db.finish_detach(&detach.volume.id, &detach.attachment).await?;
        Ok(())
    }
}

async fn live_attachments(manager: &VolumeManager, id: &VolumeId) -> Result<Vec<Attachment>, Failure> {
    let filter = AttachmentFilter { volume_id: Some(id.clone()), ..AttachmentFilter::default() };
    Ok(manager.db.attachments(&filter).await?)
}

/// Host names as Cinder stores them (`cinder/volume/volume_utils.py: sanitize_hostname`).
fn sanitize_hostname(name: &str) -> String {
    let kept = name.chars().map(|c| if c == ' ' || c == '_' { '-' } else { c });
    let kept: String = kept.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')).collect();
    kept.to_lowercase().trim_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::sanitize_hostname;

    #[test]
    fn host_names_are_stored_in_their_plain_form() {
        assert_eq!(sanitize_hostname("Node_1.Example.org"), "node-1.example.org");
        assert_eq!(sanitize_hostname(".-weird höst-."), "weird-hst");
    }
}
