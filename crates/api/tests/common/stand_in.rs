//! A stand-in for the volume service: it takes its messages and writes into the database what the service would write, without
//! any storage. The real service is tested elsewhere.

use scoria_db::{AttachmentChange, Database, Expect, QuotaRelease, SnapshotChange, VolumeChange};
use scoria_model::object::{decode_snapshot, decode_volume};
use scoria_model::{
    AttachStatus, AttachmentId, Fault, ResourceType, Snapshot, SnapshotStatus, Timestamp, Volume, VolumeId,
    VolumeStatus,
};
use scoria_rpc::providers::memory::MemoryBroker;
use scoria_rpc::{Delivery, Listener, Request, Target, Transport};
use scoria_runtime::CancellationToken;
use serde_json::{Value, json};

/// The stand-in, listening.
pub(crate) struct StandIn {
    script: Script,
    listener: Box<dyn Listener>,
}

/// What it does about each message.
struct Script {
    database: Database,
}

impl StandIn {
    pub(crate) async fn listen(database: Database, broker: &MemoryBroker) -> Self {
        let targets = vec![Target::new("cinder-volume.alone@store", "alone")];
        let listener = broker.transport().listen(targets, 4).await.unwrap();
        Self { script: Script { database }, listener }
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { mut listener, script } = self;
        while let Some(Some(delivery)) = stop.run_until_cancelled(listener.next()).await {
            script.handle(delivery.as_ref()).await;
        }
    }
}

impl Script {
    async fn handle(&self, delivery: &dyn Delivery) {
        let request = delivery.request().expect("the front door sends what can be decoded").clone();
        let outcome = self.answer(&request).await;
        if request.call.is_some() {
            delivery.reply(outcome).await.unwrap();
        }
        delivery.ack().await;
    }

    async fn answer(&self, request: &Request) -> Result<Value, Fault> {
        let volume = |key: &str| decode_volume(&request.args[key]).unwrap();
        match request.method.as_str() {
            "create_volume" => {
                let launched = VolumeChange { launched_at: Some(Some(Timestamp::now())), ..available() };
                self.change(&volume("volume").id, launched).await;
            }
            "delete_volume" => self.delete(&volume("volume")).await,
            "extend_volume" => {
                let size = request.args["new_size"].as_u64().unwrap();
                let volume = volume("volume");
                let reservations: Vec<uuid::Uuid> =
                    serde_json::from_value(request.args["reservations"].clone()).unwrap();
                let project = volume.project_id.unwrap();
                self.database.quota_commit(&reservations, &project).await.unwrap();
                self.change(&volume.id, VolumeChange { size: Some(size), ..available() }).await;
            }
            "revert_to_snapshot" => {
                self.change(&volume("volume").id, available()).await;
                self.finish_snapshot(&request.args["snapshot"]).await;
            }
            "create_snapshot" => self.finish_snapshot(&request.args["snapshot"]).await,
            "delete_snapshot" => {
                self.delete_snapshot(&decode_snapshot(&request.args["snapshot"]).unwrap()).await;
            }
            "initialize_connection" => {
                if request.args["connector"].get("host").is_none() {
                    return Err(Fault::invalid_input("connector has no host"));
                }
                return Ok(json!({"driver_volume_type": "nfs", "data": {"export": "127.0.0.1:/share"}}));
            }
            "attachment_update" => return self.attach(request).await,
            "attach_volume" => {
                if request.args["mountpoint"] == "/taken" {
                    return Err(Fault::invalid_volume("volume is already attached"));
                }
                let attached = AttachStatus::Attached;
                let change =
                    VolumeChange { status: Some(VolumeStatus::InUse), attach_status: Some(attached), ..available() };
                self.change(&volume("volume").id, change).await;
            }
            "detach_volume" => {
                let detached = AttachStatus::Detached;
                self.change(&volume("volume").id, VolumeChange { attach_status: Some(detached), ..available() }).await;
            }
            "terminate_connection" | "attachment_delete" => {}
            other => panic!("{other} is not in this script"),
        }
        Ok(Value::Null)
    }

    async fn change(&self, id: &VolumeId, change: VolumeChange) {
        self.database.volume_update(id, &Expect::any(), &change).await.unwrap();
        if let Some(worker) = self.database.worker_get(ResourceType::Volume, id.as_str()).await.unwrap() {
            self.database.worker_remove(&worker).await.unwrap();
        }
    }

    async fn delete(&self, volume: &Volume) {
        for snapshot in self.database.snapshots_of_volume(&volume.id).await.unwrap() {
            self.delete_snapshot(&snapshot).await;
        }
        let loaded = self.database.volume_load(&volume.id).await.unwrap().unwrap();
        let quota =
            QuotaRelease::volume(loaded.volume.project_id.as_deref().unwrap(), volume.size, Some("__DEFAULT__"));
        self.database.volume_destroy(&loaded, &Expect::any(), Some(&quota), None).await.unwrap();
    }

    async fn delete_snapshot(&self, snapshot: &Snapshot) {
        let project = snapshot.project_id.as_deref().unwrap();
        let quota = QuotaRelease::snapshot(project, snapshot.volume_size, Some("__DEFAULT__"), false);
        self.database.snapshot_destroy(&snapshot.id, &Expect::any(), Some(&quota), None).await.unwrap();
    }

    async fn finish_snapshot(&self, snapshot: &Value) {
        let id = decode_snapshot(snapshot).unwrap().id;
        let change = SnapshotChange {
            status: Some(SnapshotStatus::Available),
            progress: Some(Some("100%".to_owned())),
            ..SnapshotChange::default()
        };
        self.database.snapshot_update(&id, &Expect::any(), &change).await.unwrap();
        if let Some(worker) = self.database.worker_get(ResourceType::Snapshot, id.as_str()).await.unwrap() {
            self.database.worker_remove(&worker).await.unwrap();
        }
    }

    async fn attach(&self, request: &Request) -> Result<Value, Fault> {
        let connector = request.args["connector"].as_object().unwrap().clone();
        if connector.get("host") == Some(&json!("broken")) {
            return Err(Fault::backend("the share is gone"));
        }
        let id: AttachmentId = request.args["attachment_id"].as_str().unwrap().parse().unwrap();
        let change = AttachmentChange {
            attach_status: Some(AttachStatus::Attaching),
            connector: Some(Some(connector.into())),
            ..AttachmentChange::default()
        };
        self.database.attachment_update(&id, &change).await.unwrap();
        let volume = decode_volume(&request.args["vref"]).unwrap();
        let attaching = VolumeChange {
            status: Some(VolumeStatus::Attaching),
            attach_status: Some(AttachStatus::Attaching),
            ..VolumeChange::default()
        };
        self.change(&volume.id, attaching).await;
        Ok(json!({
            "driver_volume_type": "nfs", "export": "127.0.0.1:/share", "attachment_id": id.as_str(),
            "enforce_multipath": false,
        }))
    }
}

fn available() -> VolumeChange {
    VolumeChange { status: Some(VolumeStatus::Available), ..VolumeChange::default() }
}
