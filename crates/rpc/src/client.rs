//! The requests that our parts send: to the scheduler, and, from the front door, to volume services.

use std::sync::Arc;
use std::time::Duration;

use scoria_model::object::{History, LogLevel, RequestSpec, encode_log_level, encode_snapshot, encode_volume};
use scoria_model::{AttachmentId, Connector, RequestContext, Snapshot, Timestamp, Volume};
use serde_json::{Map, Value, json};

use crate::{Destination, Error, Request, Transport};

const SCHEDULER: &str = "cinder-scheduler";
const VOLUME: &str = "cinder-volume";

/// Sends requests with the arguments and versions of Cinder's own clients
/// (`cinder/scheduler/rpcapi.py: SchedulerAPI`, `cinder/volume/rpcapi.py: VolumeAPI`).
///
/// Every method fails with [`Error::Unavailable`] when the broker has not confirmed; calls also with [`Error::Timeout`]
/// or with what the peer raised. A cast that was confirmed may still reach nobody: no queue, no service.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    response_timeout: Duration,
    history: History,
}

impl Client {
    /// A client that waits `response_timeout` for an answer (`[DEFAULT] rpc_response_timeout`).
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, response_timeout: Duration) -> Self {
        Self { transport, response_timeout, history: History::V1_39 }
    }

    /// The same client for peers that know objects only up to `history`: the lowest `object_current_version` of the
    /// services that it sends to.
    #[must_use]
    pub fn capped(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// Tells every scheduler what the back end has (`SchedulerAPI.update_service_capabilities`, 3.3, fanout).
    pub async fn update_service_capabilities(
        &self,
        context: &RequestContext,
        host: &str,
        cluster_name: Option<&str>,
        capabilities: &Map<String, Value>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let args = json!({
            "service_name": "volume", "host": host, "capabilities": capabilities, "cluster_name": cluster_name,
            "timestamp": at.to_iso_micros(),
        });
        self.cast(&Destination::Fanout(SCHEDULER.to_owned()), "update_service_capabilities", "3.3", context, args).await
    }

    /// Tells one scheduler of them too, for its notifications (`SchedulerAPI.notify_service_capabilities`, 3.5).
    /// `backend` is the cluster if there is one, else the host.
    pub async fn notify_service_capabilities(
        &self,
        context: &RequestContext,
        backend: &str,
        capabilities: &Map<String, Value>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let args = json!({
            "service_name": "volume", "backend": backend, "capabilities": capabilities, "timestamp": at.to_iso_micros(),
        });
        self.cast(&scheduler(), "notify_service_capabilities", "3.5", context, args).await
    }

    /// Hands a volume that could not be made here back to the scheduler (`SchedulerAPI.create_volume`, 3.0).
    /// The worker row is the caller's to create, before.
    pub async fn schedule_create_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        request_spec: &RequestSpec,
        filter_properties: &Map<String, Value>,
    ) -> Result<(), Error> {
        // The sources stand in the specification; the volume service's own client leaves them out here.
        let args = json!({
            "volume": encode_volume(volume), "snapshot_id": null, "image_id": null, "backup_id": null,
            "request_spec": request_spec.to_object(), "filter_properties": filter_properties,
        });
        self.cast(&scheduler(), "create_volume", "3.0", context, args).await
    }

    /// `VolumeAPI.create_volume`, 3.0. The worker row is the caller's to create, before.
    pub async fn create_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        request_spec: Option<&RequestSpec>,
        allow_reschedule: bool,
    ) -> Result<(), Error> {
        let args = json!({
            "volume": encode_volume(volume), "request_spec": request_spec.map(RequestSpec::to_object),
            "filter_properties": {}, "allow_reschedule": allow_reschedule,
        });
        self.cast(&home(volume), "create_volume", "3.0", context, args).await
    }

    /// `VolumeAPI.delete_volume`, 3.0. The worker row is the caller's to create, before.
    pub async fn delete_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        unmanage_only: bool,
        cascade: bool,
    ) -> Result<(), Error> {
        let args = json!({"volume": encode_volume(volume), "unmanage_only": unmanage_only, "cascade": cascade});
        self.cast(&home(volume), "delete_volume", "3.0", context, args).await
    }

    /// `VolumeAPI.extend_volume`, 3.0; `new_size` in GiB.
    pub async fn extend_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        new_size: u64,
        reservations: &[String],
    ) -> Result<(), Error> {
        let args = json!({"volume": encode_volume(volume), "new_size": new_size, "reservations": reservations});
        self.cast(&home(volume), "extend_volume", "3.0", context, args).await
    }

    /// `VolumeAPI.revert_to_snapshot`, 3.15.
    pub async fn revert_to_snapshot(
        &self,
        context: &RequestContext,
        volume: &Volume,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        let args = json!({"volume": encode_volume(volume), "snapshot": encode_snapshot(snapshot)});
        self.cast(&home(volume), "revert_to_snapshot", "3.15", context, args).await
    }

    /// `VolumeAPI.create_snapshot`, 3.0. The worker row is the caller's to create, before.
    pub async fn create_snapshot(
        &self,
        context: &RequestContext,
        volume: &Volume,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        let args = json!({"snapshot": encode_snapshot(snapshot)});
        self.cast(&home(volume), "create_snapshot", "3.0", context, args).await
    }

    /// `VolumeAPI.delete_snapshot`, 3.0; the volume tells where to.
    pub async fn delete_snapshot(
        &self,
        context: &RequestContext,
        volume: &Volume,
        snapshot: &Snapshot,
        unmanage_only: bool,
    ) -> Result<(), Error> {
        let args = json!({"snapshot": encode_snapshot(snapshot), "unmanage_only": unmanage_only});
        self.cast(&home(volume), "delete_snapshot", "3.0", context, args).await
    }

    /// `VolumeAPI.initialize_connection`, 3.0: what a server needs to reach the volume.
    pub async fn initialize_connection(
        &self,
        context: &RequestContext,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Value, Error> {
        let args = json!({"volume": encode_volume(volume), "connector": connector});
        self.call(&home(volume), "initialize_connection", "3.0", context, args).await
    }

    /// `VolumeAPI.terminate_connection`, 3.0; without a connector every connection is meant.
    pub async fn terminate_connection(
        &self,
        context: &RequestContext,
        volume: &Volume,
        connector: Option<&Connector>,
        force: bool,
    ) -> Result<(), Error> {
        let args = json!({"volume_id": volume.id.as_str(), "connector": connector, "force": force});
        self.call(&home(volume), "terminate_connection", "3.0", context, args).await.map(drop)
    }

    /// `VolumeAPI.remove_export` with `sync`, 3.0.
    pub async fn remove_export(&self, context: &RequestContext, volume: &Volume) -> Result<(), Error> {
        let args = json!({"volume_id": volume.id.as_str()});
        self.call(&home(volume), "remove_export", "3.0", context, args).await.map(drop)
    }

    /// `VolumeAPI.attachment_update`, 3.9: the flat connection info.
    pub async fn attachment_update(
        &self,
        context: &RequestContext,
        volume: &Volume,
        connector: &Connector,
        attachment_id: &AttachmentId,
    ) -> Result<Value, Error> {
        let vref = encode_volume(volume);
        let args = json!({"vref": vref, "connector": connector, "attachment_id": attachment_id.as_str()});
        self.call(&home(volume), "attachment_update", "3.9", context, args).await
    }

    /// `VolumeAPI.attachment_delete`, 3.9.
    pub async fn attachment_delete(
        &self,
        context: &RequestContext,
        volume: &Volume,
        attachment_id: &AttachmentId,
    ) -> Result<(), Error> {
        let args = json!({"attachment_id": attachment_id.as_str(), "vref": encode_volume(volume)});
        self.call(&home(volume), "attachment_delete", "3.9", context, args).await.map(drop)
    }

    /// `VolumeAPI.attach_volume`, 3.3: notes who has the volume.
    pub async fn attach_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        instance: Option<&str>,
        host: Option<&str>,
        mountpoint: &str,
        mode: &str,
    ) -> Result<Value, Error> {
        let args = json!({
            "volume_id": volume.id.as_str(), "instance_uuid": instance, "host_name": host, "mountpoint": mountpoint,
            "mode": mode, "volume": encode_volume(volume),
        });
        self.call(&home(volume), "attach_volume", "3.3", context, args).await
    }

    /// `VolumeAPI.detach_volume`, 3.4; without an id the only attachment is meant.
    pub async fn detach_volume(
        &self,
        context: &RequestContext,
        volume: &Volume,
        attachment_id: Option<&str>,
    ) -> Result<(), Error> {
        let volume_object = encode_volume(volume);
        let args = json!({"volume_id": volume.id.as_str(), "attachment_id": attachment_id, "volume": volume_object});
        self.call(&home(volume), "detach_volume", "3.4", context, args).await.map(drop)
    }

    /// `VolumeAPI.get_capabilities`, 3.0; `host` with back end, pools aside.
    pub async fn get_capabilities(&self, context: &RequestContext, host: &str, discover: bool) -> Result<Value, Error> {
        self.call(&Destination::volume(host), "get_capabilities", "3.0", context, json!({"discover": discover})).await
    }

    /// `VolumeAPI.secure_file_operations_enabled`, 3.0.
    pub async fn secure_file_operations_enabled(
        &self,
        context: &RequestContext,
        volume: &Volume,
    ) -> Result<bool, Error> {
        let args = json!({"volume": encode_volume(volume)});
        let answer = self.call(&home(volume), "secure_file_operations_enabled", "3.0", context, args).await?;
        Ok(answer == Value::Bool(true))
    }

    /// `VolumeAPI.set_log_levels`, 3.12: always to one host, never to a cluster.
    pub async fn set_log_levels(&self, context: &RequestContext, host: &str, level: &LogLevel) -> Result<(), Error> {
        let args = json!({"log_request": encode_log_level(level)});
        self.cast(&Destination::volume(host), "set_log_levels", "3.12", context, args).await
    }

    /// `VolumeAPI.get_log_levels`, 3.12: a `LogLevelList`.
    pub async fn get_log_levels(&self, context: &RequestContext, host: &str, level: &LogLevel) -> Result<Value, Error> {
        let args = json!({"log_request": encode_log_level(level)});
        self.call(&Destination::volume(host), "get_log_levels", "3.12", context, args).await
    }

    /// Asks every volume service to report its capabilities (`VolumeAPI.publish_service_capabilities`, 3.0, fanout).
    pub async fn publish_service_capabilities(&self, context: &RequestContext) -> Result<(), Error> {
        let to = Destination::Fanout(VOLUME.to_owned());
        self.cast(&to, "publish_service_capabilities", "3.0", context, json!({})).await
    }

    async fn cast(
        &self,
        to: &Destination,
        method: &str,
        version: &str,
        context: &RequestContext,
        args: Value,
    ) -> Result<(), Error> {
        self.transport.cast(to, self.request(method, version, context, args)).await
    }

    async fn call(
        &self,
        to: &Destination,
        method: &str,
        version: &str,
        context: &RequestContext,
        args: Value,
    ) -> Result<Value, Error> {
        self.transport.call(to, self.request(method, version, context, args), self.response_timeout).await
    }

    fn request(&self, method: &str, version: &str, context: &RequestContext, mut args: Value) -> Request {
        self.history.label(&mut args);
        let args = match args {
            Value::Object(args) => args,
            _ => Map::new(),
        };
        Request::new(method, version, context.clone(), args)
    }
}

fn scheduler() -> Destination {
    Destination::Topic(SCHEDULER.to_owned())
}

/// Where a volume's requests go. One that was never scheduled has no home: any volume service may take its requests.
fn home(volume: &Volume) -> Destination {
    match volume.service_topic_queue() {
        Some(queue) => Destination::volume(queue),
        None => Destination::Topic(VOLUME.to_owned()),
    }
}
