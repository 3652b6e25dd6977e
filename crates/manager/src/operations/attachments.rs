//! `attachment_update` and `attachment_delete`: the attachments of the v3 API.
//!
//! cinder-api holds `attachment_update-<volume>-<host>` around the call: that name is never taken here.

use std::sync::Arc;

use scoria_db::{Attached, AttachmentChange};
use scoria_model::{AttachStatus, Attachment, AttachmentId, Fault, MessageAction, MessageDetail, ResourceType, Volume};
use serde_json::{Value, json};

use super::connections::{connect, disconnect, reader};
use crate::args::Args;
use crate::failure::Failure;
use crate::held::Job;
use crate::manager::VolumeManager;

pub(super) async fn update(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let volume_id = args.volume("vref")?.id;
    let mut connector = args.connector("connector")?;
    let id = args.attachment_id("attachment_id")?;
    args.done()?;
    let attachment = attachment(manager, &id).await?;
    if let Err(fault) = manager.require_driver() {
        mark(manager, &id, AttachStatus::ErrorAttaching).await?;
        let action = MessageAction::UpdateAttachment;
        let detail = MessageDetail::DriverNotInitialized;
        manager.tell_user(&job.context, ResourceType::Volume, volume_id.as_str(), action, detail).await;
        return Err(fault.into());
    }
    // The mode asked for when the attachment was made wins over the connector's.
    let mode = match attachment.attach_mode.as_deref() {
        Some(mode) if mode != "null" => {
            connector.insert("mode".to_owned(), json!(mode));
            mode.to_owned()
        }
        _ => connector.get("mode").and_then(Value::as_str).unwrap_or("rw").to_owned(),
    };
    let held = manager.hold(job, reader(manager, job, &volume_id)).await?;
    let connected = async {
        let volume = manager.db.volume_get(&volume_id).await?.ok_or_else(|| Fault::volume_not_found(&volume_id))?;
        manager.notify_attachment(&job.context, &volume, "attach.start");
        let info = connect(manager, &volume, &connector, &held).await?;
        held.check("write attachment")?;
        let change = AttachmentChange {
            attach_status: Some(AttachStatus::Attaching),
            connector: Some(Some(connector.clone().into())),
            ..AttachmentChange::default()
        };
        manager.db.attachment_update(&id, &change).await?;
        let text =
            |key: &str, otherwise: &str| connector.get(key).and_then(Value::as_str).unwrap_or(otherwise).to_owned();
        let (host, mountpoint) = (text("host", ""), text("mountpoint", "na"));
        let attached = Attached {
            instance_uuid: attachment.instance_uuid.as_deref(),
            host: Some(&host),
            mountpoint: Some(&mountpoint),
            mode: &mode,
            mark_attached: false,
        };
        manager.db.volume_attached(&id, &attached).await?;
        Ok::<_, Failure>(info)
    }
    .await;
    held.release().await;
    let mut info = connected?;
    // The caller wants it flat: what is in `data` comes to the top (lifecycle.md §12.3).
    let mut flat = match info.remove("data") {
        Some(Value::Object(data)) => data,
        _ => serde_json::Map::new(),
    };
    flat.insert("driver_volume_type".to_owned(), info.remove("driver_volume_type").unwrap_or_default());
    flat.insert("attachment_id".to_owned(), json!(id));
    Ok(Value::Object(flat))
}

pub(super) async fn delete(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.attachment_id("attachment_id")?;
    let volume_id = args.volume("vref")?.id;
    args.done()?;
    manager.require_driver()?;
    let attachment = attachment(manager, &id).await?;
    let volume = manager.db.volume_get(&volume_id).await?.ok_or_else(|| Fault::volume_not_found(&volume_id))?;
    manager.notify_attachment(&job.context, &volume, "detach.start");
    end(manager, &volume, &attachment).await?;
    // The rows are cinder-api's to write.
    Ok(Value::Null)
}

/// Ends the connection of an attachment that had one. An export that cannot be removed is only logged.
async fn end(manager: &VolumeManager, volume: &Volume, attachment: &Attachment) -> Result<(), Failure> {
    let Some(connector) = attachment.connector.as_ref().filter(|connector| !connector.is_empty()) else {
        return Ok(());
    };
    let shared = disconnect(manager, volume, connector, false).await?;
    if !shared && let Err(error) = manager.driver.remove_export(volume).await {
        tracing::error!(volume = %volume.id, %error, "export could not be removed after the connection ended");
    }
    Ok(())
}

pub(super) async fn attachment(manager: &VolumeManager, id: &AttachmentId) -> Result<Attachment, Failure> {
    Ok(manager.db.attachment_get(id).await?.ok_or_else(|| Fault::attachment_not_found(id))?)
}

/// Writes the state of one attachment.
pub(super) async fn mark(manager: &VolumeManager, id: &AttachmentId, status: AttachStatus) -> Result<(), Failure> {
    let change = AttachmentChange { attach_status: Some(status), ..AttachmentChange::default() };
    manager.db.attachment_update(id, &change).await?;
    Ok(())
}
