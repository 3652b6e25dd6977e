//! The operations about servers that use volumes, judged by the laws.

use async_trait::async_trait;
use scoria_model::{AttachStatus, Attachment, AttachmentId, Volume, VolumeStatus, object};
use scoria_rpc::Request;
use serde_json::{Value, json};

use super::laws::{Case, judge};
use super::operations::Made;
use super::script::Trial;
use super::world::{World, request};

const SERVER: &str = "0f1e2d3c-4b5a-4968-8776-655443322110";

fn connector(host: &str) -> Value {
    json!({"host": host, "ip": "192.0.2.1", "mountpoint": "/dev/vdb"})
}

fn initialize(volume: &Volume) -> Request {
    request(
        "initialize_connection",
        json!({"volume": object::encode_volume(volume), "connector": connector("compute")}),
    )
}

/// An attachment that cinder-api has reserved.
async fn reserved(world: &World, volume: &Volume) -> Attachment {
    let mut attachment = Attachment::new(AttachmentId::random(), volume.id.clone());
    attachment.instance_uuid = Some(SERVER.to_owned());
    attachment.attach_mode = Some("null".to_owned());
    world.set_status(&volume.id, VolumeStatus::Reserved).await;
    world.db.attachment_create(&attachment).await.unwrap()
}

fn update(volume: &Volume, attachment: &Attachment, host: &str) -> Request {
    let args = json!({
        "vref": object::encode_volume(volume),
        "connector": connector(host),
        "attachment_id": attachment.id,
    });
    request("attachment_update", args)
}

async fn attachment(world: &World, id: &AttachmentId) -> Attachment {
    world.db.attachment_get(id).await.unwrap().expect("the attachment is there")
}

#[derive(Default)]
struct InitializeConnection(Made<Volume>);

#[async_trait]
impl Case for InitializeConnection {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        self.0.set(volume.clone());
        initialize(&volume)
    }
    async fn worked(&self, world: &World) {
        assert_eq!(world.driver.exported_to(&self.0.get().id), ["compute"]);
    }
    async fn failed(&self, world: &World) {
        assert!(world.driver.exported_to(&self.0.get().id).is_empty());
    }
}

#[derive(Default)]
struct TerminateConnection(Made<Volume>);

#[async_trait]
impl Case for TerminateConnection {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        world.run(&initialize(&volume)).await.unwrap();
        self.0.set(volume.clone());
        let args = json!({"volume_id": volume.id, "connector": connector("compute"), "force": false});
        request("terminate_connection", args)
    }
    async fn worked(&self, world: &World) {
        assert!(world.driver.exported_to(&self.0.get().id).is_empty());
    }
    async fn failed(&self, _world: &World) {
        unreachable!("it has one step");
    }
}

#[derive(Default)]
struct RemoveExport(Made<Volume>);

#[async_trait]
impl Case for RemoveExport {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        world.run(&initialize(&volume)).await.unwrap();
        self.0.set(volume.clone());
        request("remove_export", json!({"volume_id": volume.id}))
    }
    async fn worked(&self, world: &World) {
        assert!(world.driver.exported_to(&self.0.get().id).is_empty());
    }
    async fn failed(&self, _world: &World) {
        unreachable!("it has one step");
    }
}

#[derive(Default)]
struct AttachmentUpdate(Made<Attachment>);

#[async_trait]
impl Case for AttachmentUpdate {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        let attachment = reserved(world, &volume).await;
        self.0.set(attachment.clone());
        update(&volume, &attachment, "compute")
    }
    async fn worked(&self, world: &World) {
        let attachment = attachment(world, &self.0.get().id).await;
        assert_eq!(attachment.attach_status, AttachStatus::Attaching);
        assert_eq!(attachment.connector.unwrap()["host"], "compute");
        assert_eq!(
            (attachment.mountpoint.as_deref(), attachment.attach_mode.as_deref()),
            (Some("/dev/vdb"), Some("rw"))
        );
        let volume = world.get(&attachment.volume_id).await;
        assert_eq!((volume.status, volume.attach_status), (VolumeStatus::Attaching, AttachStatus::Attaching));
        assert_eq!(world.driver.exported_to(&volume.id), ["compute"]);
    }
    async fn failed(&self, world: &World) {
        let before = self.0.get();
        let now = attachment(world, &before.id).await;
        assert_eq!(Attachment { updated_at: before.updated_at, ..now }, before, "the attachment is as it was");
        let volume = world.get(&before.volume_id).await;
        assert_eq!((volume.status, volume.attach_status), (VolumeStatus::Reserved, AttachStatus::Detached));
        assert!(world.driver.exported_to(&volume.id).is_empty());
    }
}

#[derive(Default)]
struct AttachmentDelete(Made<Attachment>);

#[async_trait]
impl Case for AttachmentDelete {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        let attachment = reserved(world, &volume).await;
        world.run(&update(&volume, &attachment, "compute")).await.unwrap();
        self.0.set(self::attachment(world, &attachment.id).await);
        let args = json!({"attachment_id": attachment.id, "vref": object::encode_volume(&volume)});
        request("attachment_delete", args)
    }
    async fn worked(&self, world: &World) {
        assert!(world.driver.exported_to(&self.0.get().volume_id).is_empty());
        self.failed(world).await;
    }
    async fn failed(&self, world: &World) {
        assert_eq!(attachment(world, &self.0.get().id).await, self.0.get(), "the rows are cinder-api's to write");
    }
}

#[derive(Default)]
struct AttachVolume(Made<Volume>);

#[async_trait]
impl Case for AttachVolume {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        world.set_status(&volume.id, VolumeStatus::Attaching).await;
        self.0.set(volume.clone());
        let args = json!({
            "volume_id": volume.id,
            "instance_uuid": SERVER,
            "host_name": null,
            "mountpoint": "/dev/vdb",
            "mode": "rw",
        });
        request("attach_volume", args)
    }
    async fn worked(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!((volume.status, volume.attach_status), (VolumeStatus::InUse, AttachStatus::Attached));
        assert_eq!(volume.admin_metadata["attached_mode"], "rw");
        let [attachment] = volume.attachments.as_slice() else { panic!("one attachment: {:?}", volume.attachments) };
        assert_eq!(attachment.attach_status, AttachStatus::Attached);
        assert_eq!(attachment.instance_uuid.as_deref(), Some(SERVER));
    }
    async fn failed(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!((volume.status, volume.attach_status), (VolumeStatus::Attaching, AttachStatus::Detached));
        assert!(!volume.admin_metadata.contains_key("attached_mode"));
        let [attachment] = volume.attachments.as_slice() else { panic!("one attachment: {:?}", volume.attachments) };
        assert_eq!(attachment.attach_status, AttachStatus::ErrorAttaching);
    }
}

#[derive(Default)]
struct DetachVolume(Made<Volume>);

#[async_trait]
impl Case for DetachVolume {
    async fn arrange(&self, world: &World) -> Request {
        let attach = AttachVolume::default();
        let request_to_attach = attach.arrange(world).await;
        world.run(&request_to_attach).await.unwrap();
        let volume = world.get(&attach.0.get().id).await;
        world.run(&initialize(&volume)).await.unwrap();
        world.set_status(&volume.id, VolumeStatus::Detaching).await;
        self.0.set(volume.clone());
        request("detach_volume", json!({"volume_id": volume.id, "attachment_id": volume.attachments[0].id}))
    }
    async fn worked(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!((volume.status, volume.attach_status), (VolumeStatus::Available, AttachStatus::Detached));
        assert!(volume.attachments.is_empty() && !volume.admin_metadata.contains_key("attached_mode"));
        assert!(world.driver.exported_to(&volume.id).is_empty());
    }
    async fn failed(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!(volume.status, VolumeStatus::Detaching);
        assert_eq!(volume.attachments[0].attach_status, AttachStatus::ErrorDetaching);
    }
}

#[tokio::test]
async fn initialize_connection() {
    judge(&InitializeConnection::default()).await;
}

#[tokio::test]
async fn terminate_connection() {
    judge(&TerminateConnection::default()).await;
}

#[tokio::test]
async fn remove_export() {
    judge(&RemoveExport::default()).await;
}

#[tokio::test]
async fn attachment_update() {
    judge(&AttachmentUpdate::default()).await;
}

#[tokio::test]
async fn attachment_delete() {
    judge(&AttachmentDelete::default()).await;
}

#[tokio::test]
async fn attach_volume() {
    judge(&AttachVolume::default()).await;
}

#[tokio::test]
async fn detach_volume() {
    judge(&DetachVolume::default()).await;
}

#[tokio::test]
async fn a_connection_that_fails_leaves_those_of_others_alone() {
    let world = World::new().await;
    let volume = world.volume(1).await;
    let first = reserved(&world, &volume).await;
    world.run(&update(&volume, &first, "one")).await.unwrap();
    let attached = scoria_db::Attached {
        instance_uuid: Some(SERVER),
        host: Some("one"),
        mountpoint: Some("/dev/vdb"),
        mode: "rw",
        mark_attached: true,
    };
    world.db.volume_attached(&first.id, &attached).await.unwrap();
    let second = reserved(&world, &volume).await;
    // Behind the connection, before it is written down.
    world.manager.script.set(Trial::FailAt(1));
    world.run(&update(&volume, &second, "two")).await.unwrap_err();
    assert_eq!(world.driver.exported_to(&volume.id), ["one"]);
    // The same server asks again for what it has, and that fails: it keeps what it has.
    world.manager.script.set(Trial::FailAt(1));
    world.run(&update(&volume, &second, "one")).await.unwrap_err();
    assert_eq!(world.driver.exported_to(&volume.id), ["one"]);
}

#[tokio::test]
async fn a_server_that_cannot_be_one_is_refused_and_the_attachment_says_so() {
    let world = World::new().await;
    let case = AttachVolume::default();
    let mut attach = case.arrange(&world).await;
    attach.args.insert("instance_uuid".to_owned(), json!("no-uuid"));
    let failure = world.run(&attach).await.unwrap_err();
    let crate::Failure::Fault(fault) = failure else { panic!("{failure}") };
    assert_eq!(fault.class, scoria_model::FaultClass::InvalidUUID);
    case.failed(&world).await;
    // A try that failed is in nobody's way.
    attach.args.insert("instance_uuid".to_owned(), json!(SERVER));
    world.run(&attach).await.unwrap();
    assert_eq!(world.get(&case.0.get().id).await.status, VolumeStatus::InUse);
}
