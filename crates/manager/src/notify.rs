//! Notifications (`volume.create.start`, …), for whoever bills or watches.
//!
//! They are sent in order by a task of their own: no operation holds its locks because the broker is slow to take one.

use std::sync::Arc;

use scoria_model::{Attachment, RequestContext, Snapshot, Timestamp, Volume};
use scoria_rpc::{Notification, Transport};
use scoria_runtime::Tasks;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::manager::VolumeManager;

/// How many notifications may wait for the broker. More than that, and the oldest work still goes on without them.
const WAITING: usize = 1024;

/// Where notifications are handed over.
#[derive(Debug, Clone)]
pub(crate) struct Notifier(mpsc::Sender<Notification>);

impl Notifier {
    /// Starts the task that sends. It ends when everything was sent and the manager is gone, or with the process.
    pub(crate) fn start(transport: Arc<dyn Transport>, tasks: &Tasks) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Notification>(WAITING);
        let stop = tasks.stop_token();
        tasks.spawn("notifications", async move {
            loop {
                let notification = tokio::select! {
                    biased;
                    notification = receiver.recv() => notification,
                    () = stop.cancelled() => None,
                };
                let Some(notification) = notification else { return };
                let event = notification.event_type.clone();
                if let Err(error) = transport.notify(notification).await {
                    tracing::warn!(%error, event, "notification could not be sent");
                }
            }
        });
        Self(sender)
    }

    fn send(&self, notification: Notification) {
        if let Err(error) = self.0.try_send(notification) {
            tracing::warn!(%error, "notification dropped");
        }
    }
}

impl VolumeManager {
    /// Sends `volume.<event>` (`cinder/volume/volume_utils.py: notify_about_volume_usage`). What cannot be sent is logged:
    /// no operation fails for its notification.
    pub(crate) fn notify_volume(&self, context: &RequestContext, volume: &Volume, event: &str) {
        if volume.use_quota {
            self.send(context, "volume", format!("volume.{event}"), volume_payload(volume));
        }
    }

    /// Sends `volume.<event>` regardless of quotas, with more facts (attach and detach).
    pub(crate) fn notify_attachment(&self, context: &RequestContext, volume: &Volume, event: &str) {
        self.send(context, "volume", format!("volume.{event}"), volume_payload(volume));
    }

    /// Sends `snapshot.<event>` (`notify_about_snapshot_usage`).
    pub(crate) fn notify_snapshot(&self, context: &RequestContext, snapshot: &Snapshot, volume: &Volume, event: &str) {
        self.send(context, "snapshot", format!("snapshot.{event}"), snapshot_payload(snapshot, volume));
    }

    fn send(&self, context: &RequestContext, publisher: &str, event_type: String, payload: Value) {
        let notification = Notification {
            publisher_id: format!("{publisher}.{}", self.options.service_host()),
            event_type,
            priority: "INFO",
            payload,
            context: context.clone(),
        };
        self.notifier.send(notification);
    }
}

fn time(at: Option<Timestamp>) -> String {
    // Python's isoformat() of an aware time.
    at.unwrap_or_else(Timestamp::now).to_object().replace('Z', "+00:00")
}

fn volume_payload(volume: &Volume) -> Value {
    let status = match volume.status.as_str() {
        "error_managing_deleting" => "deleting",
        status => status,
    };
    let metadata: Vec<Value> = volume.metadata.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    let mut payload = json!({
        "tenant_id": volume.project_id,
        "host": volume.host,
        "user_id": volume.user_id,
        "availability_zone": volume.availability_zone,
        "volume_id": volume.id,
        "volume_type": volume.volume_type_id,
        "display_name": volume.display_name,
        "launched_at": time(volume.launched_at),
        "created_at": time(volume.created_at),
        "status": status,
        "snapshot_id": volume.snapshot_id,
        "size": volume.size,
        "replication_status": volume.replication_status,
        "replication_extended_status": volume.replication_extended_status,
        "replication_driver_data": volume.replication_driver_data,
        "metadata": metadata,
        "volume_attachment": volume.attachments.iter().map(attachment_payload).collect::<Vec<_>>(),
    });
    if !volume.glance_metadata.is_empty() {
        payload["glance_metadata"] = json!(volume.glance_metadata);
    }
    payload
}

fn attachment_payload(attachment: &Attachment) -> Value {
    let mut facts = Map::new();
    let mut set = |key: &str, value: Value| facts.insert(key.to_owned(), value);
    set("id", json!(attachment.id));
    set("volume_id", json!(attachment.volume_id));
    set("instance_uuid", json!(attachment.instance_uuid));
    set("attached_host", json!(attachment.attached_host));
    set("mountpoint", json!(attachment.mountpoint));
    set("attach_status", json!(attachment.attach_status.as_str()));
    set("attach_mode", json!(attachment.attach_mode));
    Value::Object(facts)
}

fn snapshot_payload(snapshot: &Snapshot, volume: &Volume) -> Value {
    json!({
        "tenant_id": snapshot.project_id,
        "user_id": snapshot.user_id,
        "availability_zone": volume.availability_zone,
        "volume_id": snapshot.volume_id,
        "volume_size": snapshot.volume_size,
        "snapshot_id": snapshot.id,
        "display_name": snapshot.display_name,
        "created_at": time(snapshot.created_at),
        "status": snapshot.status.as_str(),
        "deleted": if snapshot.deleted { "True" } else { "" },
        "metadata": python_dict(&snapshot.metadata),
    })
}

/// Python's `str()` of a dict of strings; the contract has the snapshot's metadata in this form.
fn python_dict(metadata: &scoria_model::Metadata) -> String {
    if metadata.is_empty() {
        return String::new();
    }
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let pairs: Vec<String> = metadata.iter().map(|(key, value)| format!("{}: {}", quote(key), quote(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_s_metadata_looks_like_python_s() {
        let metadata = [("a".to_owned(), "it's".to_owned())].into();
        assert_eq!(python_dict(&metadata), r"{'a': 'it\'s'}");
        assert_eq!(python_dict(&scoria_model::Metadata::new()), "");
    }
}
