//! `attach_volume` and `detach_volume`: the attach calls of before the attachments API. They only write rows.

use std::sync::Arc;

use scoria_db::{Attached, AttachmentFilter, Expect, VolumeChange};
use scoria_model::{
    AttachStatus, Attachment, AttachmentId, Fault, FaultClass, MessageAction, MessageDetail, Metadata, ResourceType,
    Volume, VolumeId, VolumeStatus, object,
};
use serde_json::Value;

use super::attachments::mark;
use crate::args::Args;
use crate::failure::Failure;
use crate::held::Job;
use crate::locks;
use crate::manager::VolumeManager;

struct Attach {
    instance_uuid: Option<String>,
    host_name: Option<String>,
    mountpoint: String,
    mode: String,
}

pub(super) async fn attach(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    let asked = Attach {
        instance_uuid: args.optional_text("instance_uuid")?,
        host_name: args.optional_text("host_name")?.map(|host| sanitize_hostname(&host)),
        mountpoint: args.optional_text("mountpoint")?.unwrap_or_default(),
        mode: args.optional_text("mode")?.unwrap_or_else(|| "rw".to_owned()),
    };
    args.optional_volume("volume")?;
    args.done()?;
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str());
    let held = manager.hold(job, request.exclusive(locks::attach_volume(&id))).await?;
    let outcome = attach_locked(manager, job, &id, &asked).await;
    held.release().await;
    Ok(object::encode_attachment(&outcome?))
}

async fn attach_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    asked: &Attach,
) -> Result<Attachment, Failure> {
    let volume = manager.db.volume_get(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    let attached_mode = volume.admin_metadata.get("attached_mode");
    if volume.status == VolumeStatus::Attaching && attached_mode.is_some_and(|mode| *mode != asked.mode) {
        return Err(Fault::invalid_volume("being attached by different mode").into());
    }
    let live = live_attachments(manager, id).await?;
    let same = |attachment: &&Attachment| match &asked.instance_uuid {
        Some(instance) => attachment.instance_uuid.as_ref() == Some(instance),
        None => asked.host_name.is_some() && attachment.attached_host == asked.host_name,
    };
    if let Some(known) = live.iter().find(same) {
        let change = VolumeChange::status(VolumeStatus::InUse);
        manager.db.volume_update(id, &Expect::any(), &change).await?;
        return Ok(known.clone());
    }
    if volume.status == VolumeStatus::InUse && !volume.multiattach && volume.migration_status.is_none() {
        let reason = "volume is already attached and multiple attachments are not enabled";
        return Err(Fault::invalid_volume(reason).into());
    }
    manager.notify_attachment(&job.context, &volume, "attach.start");
    let attachment = begin(manager, &volume, &asked.mode).await?;
    if let Err(fault) = check(manager, &volume, asked) {
        mark(manager, &attachment.id, AttachStatus::ErrorAttaching).await?;
        if fault.class != FaultClass::InvalidUUID {
            let detail = match fault.class {
                FaultClass::DriverNotInitialized => MessageDetail::DriverNotInitialized,
                _ => MessageDetail::AttachModeInvalid,
            };
            let action = MessageAction::AttachVolume;
            manager.tell_user(&job.context, ResourceType::Volume, id.as_str(), action, detail).await;
        }
        return Err(fault.into());
    }
    let attached = Attached {
        instance_uuid: asked.instance_uuid.as_deref(),
        host: asked.host_name.as_deref(),
        mountpoint: Some(&asked.mountpoint),
        mode: &asked.mode,
        mark_attached: true,
    };
    manager.db.volume_attached(&attachment.id, &attached).await?;
    let mode: Metadata = [("attached_mode".to_owned(), asked.mode.clone())].into();
    manager.db.volume_admin_metadata_update(id, &mode, false).await?;
    let volume = manager.db.volume_get(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    manager.notify_attachment(&job.context, &volume, "attach.end");
    super::attachments::attachment(manager, &attachment.id).await
}

/// The attachment that cinder-api reserved, or a new one (`Volume.begin_attach`).
async fn begin(manager: &VolumeManager, volume: &Volume, mode: &str) -> Result<Attachment, Failure> {
    let mut attachment = Attachment::new(AttachmentId::random(), volume.id.clone());
    attachment.attach_status = AttachStatus::Attaching;
    attachment.attach_mode = Some(mode.to_owned());
    let made = manager.db.attachment_create(&attachment).await?;
    let mode: Metadata = [("attached_mode".to_owned(), mode.to_owned())].into();
    manager.db.volume_admin_metadata_update(&volume.id, &mode, false).await?;
    Ok(made)
}

fn check(manager: &VolumeManager, volume: &Volume, asked: &Attach) -> Result<(), Fault> {
    if let Some(instance) = asked.instance_uuid.as_ref().filter(|text| uuid::Uuid::parse_str(text).is_err()) {
        let message = format!("Expected a uuid but received {instance}.");
        return Err(Fault::new(FaultClass::InvalidUUID, message).with("uuid", instance.clone()));
    }
    let read_only = volume.admin_metadata.get("readonly").is_some_and(|value| value == "True");
    if read_only && asked.mode != "ro" {
        let message = format!("Invalid attaching mode '{}' for volume {}.", asked.mode, volume.id);
        let fault = Fault::new(FaultClass::InvalidVolumeAttachMode, message);
        return Err(fault.with("mode", asked.mode.clone()).with("volume_id", volume.id.to_string()));
    }
    manager.require_driver()
}

pub(super) async fn detach(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    let attachment_id = args.optional_text("attachment_id")?;
    args.optional_volume("volume")?;
    args.done()?;
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str());
    let held = manager.hold(job, request.exclusive(locks::detach_volume(&id))).await?;
    let outcome = detach_locked(manager, job, &id, attachment_id.as_deref()).await;
    held.release().await;
    outcome?;
    Ok(Value::Null)
}

async fn detach_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    attachment_id: Option<&str>,
) -> Result<(), Failure> {
    let volume = manager.db.volume_get(id).await?.ok_or_else(|| Fault::volume_not_found(id))?;
    let mut live = live_attachments(manager, id).await?;
    if let Some(wanted) = attachment_id {
        live.retain(|attachment| attachment.id.as_str() == wanted);
    }
    let attachment = match live.as_slice() {
        [one] => one,
        // Nothing to detach: the volume must not be left in `detaching`.
        [] => return finish(manager, id, &AttachmentId::random()).await,
        _ => {
            let reason = "More than one attachment exists for this volume, specify the attachment to be detached.";
            return Err(Fault::invalid_volume(reason).into());
        }
    };
    manager.notify_attachment(&job.context, &volume, "detach.start");
    if let Err(fault) = manager.require_driver() {
        mark(manager, &attachment.id, AttachStatus::ErrorDetaching).await?;
        return Err(fault.into());
    }
    if let Err(error) = manager.driver.remove_export(&volume).await {
        mark(manager, &attachment.id, AttachStatus::ErrorDetaching).await?;
        let message = format!("Failed to remove export for volume {id}: {error}");
        let fault = Fault::new(FaultClass::RemoveExportException, message);
        return Err(fault.with("volume", id.to_string()).with("reason", error.to_string()).into());
    }
    finish(manager, id, &attachment.id).await?;
    if let Some(volume) = manager.db.volume_get(id).await? {
        manager.notify_attachment(&job.context, &volume, "detach.end");
    }
    Ok(())
}

/// Takes the attachment away, if it is there, and gives the volume the state that follows from the others.
async fn finish(manager: &VolumeManager, id: &VolumeId, attachment: &AttachmentId) -> Result<(), Failure> {
    manager.db.finish_detach(id, attachment).await?;
    Ok(())
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
