//! `attachment_update` and `attachment_delete`: the attachments of the v3 API.
//!
//! cinder-api holds `attachment_update-<volume>-<host>` around the call: that name is never taken here.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_db::{Attached, AttachmentChange, Expect, VolumeChange};
use scoria_model::{
    AttachStatus, Attachment, AttachmentId, Connector, Fault, MessageAction, MessageDetail, ResourceType, VolumeId,
    VolumeStatus,
};
use serde_json::{Value, json};

use super::connections::{Connect, Disconnect, EndConnection, MakeConnection, ReadQos, connector, exporter, volume};
use crate::args::Args;
use crate::failure::Failure;
use crate::held::{Held, Job};
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

struct Update {
    manager: Arc<VolumeManager>,
    connect: Connect,
    /// As it was before.
    attachment: Attachment,
    mode: String,
}

impl AsMut<Connect> for Update {
    fn as_mut(&mut self) -> &mut Connect {
        &mut self.connect
    }
}

pub(super) async fn update(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let volume_id = args.volume("vref")?.id;
    let ask = args.connector("connector")?;
    let id = args.attachment_id("attachment_id")?;
    args.done()?;
    if let Err(fault) = manager.require_driver() {
        attachment(manager, &id).await?;
        mark(manager, &id, AttachStatus::ErrorAttaching).await?;
        let action = MessageAction::UpdateAttachment;
        let detail = MessageDetail::DriverNotInitialized;
        manager.tell_user(&job.context, ResourceType::Volume, volume_id.as_str(), action, detail).await;
        return Err(fault.into());
    }
    let held = manager.hold(job, connector(manager, job, &volume_id)).await?;
    let outcome = update_locked(manager, job, &volume_id, &id, ask, &held).await;
    held.release().await;
    outcome
}

async fn update_locked(
    manager: &Arc<VolumeManager>,
    job: &Job,
    volume_id: &VolumeId,
    id: &AttachmentId,
    mut connector: Connector,
    held: &Held,
) -> Result<Value, Failure> {
    let attachment = attachment(manager, id).await?;
    // The mode asked for when the attachment was made wins over the connector's.
    let mode = match attachment.attach_mode.as_deref() {
        Some(mode) if mode != "null" => {
            connector.insert("mode".to_owned(), json!(mode));
            mode.to_owned()
        }
        _ => connector.get("mode").and_then(Value::as_str).unwrap_or("rw").to_owned(),
    };
    let volume = volume(manager, volume_id).await?;
    manager.notify_attachment(&job.context, &volume, "attach.start");
    let connect = Connect::new(manager, volume, connector);
    let mut update = Update { manager: manager.clone(), connect, attachment, mode };
    steps::run(&mut update, &[&ReadQos, &MakeConnection, &WriteAttachment, &MarkVolume], held).await?;
    // The caller wants it flat: what is in `data` comes to the top (lifecycle.md §12.3).
    let mut info = update.connect.info;
    let mut flat = match info.remove("data") {
        Some(Value::Object(data)) => data,
        _ => serde_json::Map::new(),
    };
    flat.insert("driver_volume_type".to_owned(), info.remove("driver_volume_type").unwrap_or_default());
    flat.insert("attachment_id".to_owned(), json!(id));
    Ok(Value::Object(flat))
}

/// The attachment is on its way, with what the server said of itself.
struct WriteAttachment;

#[async_trait]
impl Step<Update> for WriteAttachment {
    fn name(&self) -> &'static str {
        "write attachment"
    }

    async fn run(&self, update: &mut Update, _held: &Held) -> Result<(), Failure> {
        let change = AttachmentChange {
            attach_status: Some(AttachStatus::Attaching),
            connector: Some(Some(update.connect.connector.clone().into())),
            ..AttachmentChange::default()
        };
        write(&update.manager, &update.attachment.id, &change).await
    }

    async fn undo(&self, update: &mut Update, _held: &Held) -> Result<(), Failure> {
        let before = update.attachment.clone();
        let change = AttachmentChange {
            instance_uuid: Some(before.instance_uuid),
            attached_host: Some(before.attached_host),
            mountpoint: Some(before.mountpoint),
            attach_time: Some(before.attach_time),
            attach_status: Some(before.attach_status),
            attach_mode: Some(before.attach_mode),
            connector: Some(before.connector.map(Into::into)),
            ..AttachmentChange::default()
        };
        write(&update.manager, &before.id, &change).await
    }
}

/// The volume is on its way too. cinder-api sets `in-use` when the server says that it is there.
struct MarkVolume;

#[async_trait]
impl Step<Update> for MarkVolume {
    fn name(&self) -> &'static str {
        "mark volume"
    }

    async fn run(&self, update: &mut Update, _held: &Held) -> Result<(), Failure> {
        let connector = &update.connect.connector;
        let text = |key: &str, otherwise| connector.get(key).and_then(Value::as_str).unwrap_or(otherwise);
        let attached = Attached {
            instance_uuid: update.attachment.instance_uuid.as_deref(),
            host: Some(text("host", "")),
            mountpoint: Some(text("mountpoint", "na")),
            mode: &update.mode,
            mark_attached: false,
        };
        update.manager.db.volume_attached(&update.attachment.id, &attached).await?;
        Ok(())
    }

    async fn undo(&self, update: &mut Update, _held: &Held) -> Result<(), Failure> {
        let before = &update.connect.volume;
        let change = VolumeChange {
            attach_status: Some(before.attach_status.clone()),
            ..VolumeChange::status(before.status.clone())
        };
        // Whoever changed it meanwhile knows better.
        update.manager.db.volume_update(&before.id, &Expect::status(VolumeStatus::Attaching), &change).await?;
        Ok(())
    }
}

pub(super) async fn delete(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.attachment_id("attachment_id")?;
    let volume_id = args.volume("vref")?.id;
    args.done()?;
    manager.require_driver()?;
    let held = manager.hold(job, exporter(job, &volume_id)).await?;
    let outcome = delete_locked(manager, job, &volume_id, &id, &held).await;
    held.release().await;
    outcome
}

/// Ends the connection of an attachment that had one. The rows are cinder-api's to write.
async fn delete_locked(
    manager: &Arc<VolumeManager>,
    job: &Job,
    volume_id: &VolumeId,
    id: &AttachmentId,
    held: &Held,
) -> Result<Value, Failure> {
    let attachment = attachment(manager, id).await?;
    let volume = volume(manager, volume_id).await?;
    manager.notify_attachment(&job.context, &volume, "detach.start");
    let Some(connector) = attachment.connector.filter(|connector| !connector.is_empty()) else {
        return Ok(Value::Null);
    };
    let mut disconnect = Disconnect { manager: manager.clone(), volume, connector, force: false, shared: false };
    steps::run(&mut disconnect, &[&EndConnection, &RemoveLastExport], held).await?;
    Ok(Value::Null)
}

/// The export goes with its last user. One that cannot be removed is only logged: the server has let go of it.
struct RemoveLastExport;

#[async_trait]
impl Step<Disconnect> for RemoveLastExport {
    fn name(&self) -> &'static str {
        "remove export"
    }

    async fn run(&self, disconnect: &mut Disconnect, _held: &Held) -> Result<(), Failure> {
        let volume = &disconnect.volume;
        if !disconnect.shared
            && let Err(error) = disconnect.manager.driver.remove_export(volume).await
        {
            tracing::error!(volume = %volume.id, %error, "export could not be removed after the connection ended");
        }
        Ok(())
    }
}

pub(super) async fn attachment(manager: &VolumeManager, id: &AttachmentId) -> Result<Attachment, Failure> {
    Ok(manager.db.attachment_get(id).await?.ok_or_else(|| Fault::attachment_not_found(id))?)
}

async fn write(manager: &VolumeManager, id: &AttachmentId, change: &AttachmentChange) -> Result<(), Failure> {
    if manager.db.attachment_update(id, change).await? { Ok(()) } else { Err(Fault::attachment_not_found(id).into()) }
}

/// Writes the state of one attachment; one that is gone has none.
pub(super) async fn mark(manager: &VolumeManager, id: &AttachmentId, status: AttachStatus) -> Result<(), Failure> {
    let change = AttachmentChange { attach_status: Some(status), ..AttachmentChange::default() };
    manager.db.attachment_update(id, &change).await?;
    Ok(())
}
