//! Snapshots of attached volumes, whose server has to help: the laws, and what Nova and the server may do.

use async_trait::async_trait;
use scoria_db::{Expect, SnapshotChange};
use scoria_model::{
    AttachStatus, Attachment, AttachmentId, FaultClass, Snapshot, SnapshotStatus, Volume, VolumeStatus, object,
};
use scoria_rpc::Request;
use serde_json::json;

use super::laws::{Case, judge};
use super::nova::Answer;
use super::operations::Made;
use super::script::Trial;
use super::world::{World, request};
use crate::failure::Failure;

/// A volume that a server has attached.
async fn attached(world: &World) -> Volume {
    let volume = world.volume(1).await;
    attach(world, &volume).await;
    world.get(&volume.id).await
}

async fn attach(world: &World, volume: &Volume) {
    let info = json!({"name": format!("volume-{}", volume.id), "format": "raw", "export": "share"});
    let attachment = Attachment {
        attach_status: AttachStatus::Attached,
        connection_info: info.as_object().cloned(),
        ..Attachment::new(AttachmentId::random(), volume.id.clone())
    };
    world.db.attachment_create(&attachment).await.unwrap();
    let change = scoria_db::VolumeChange {
        attach_status: Some(AttachStatus::Attached),
        ..scoria_db::VolumeChange::status(VolumeStatus::InUse)
    };
    assert!(world.db.volume_update(&volume.id, &Expect::any(), &change).await.unwrap().is_done());
}

async fn row(world: &World, snapshot: &Snapshot) -> Snapshot {
    world.db.snapshot_get(&snapshot.id).await.unwrap().unwrap()
}

fn overlay(snapshot: &Snapshot) -> String {
    format!("volume-{}.{}", snapshot.volume_id, snapshot.id)
}

fn active(world: &World, snapshot: &Snapshot) -> String {
    let info = std::fs::read(world.share().join(format!("volume-{}.info", snapshot.volume_id))).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    info["active"].as_str().unwrap().to_owned()
}

fn create_request(snapshot: &Snapshot) -> Request {
    request("create_snapshot", json!({"snapshot": object::encode_snapshot(snapshot)}))
}

fn delete_request(snapshot: &Snapshot) -> Request {
    request("delete_snapshot", json!({"snapshot": object::encode_snapshot(snapshot)}))
}

#[derive(Default)]
struct Create(Made<Snapshot>);

#[async_trait]
impl Case for Create {
    async fn arrange(&self, world: &World) -> Request {
        let snapshot = world.snapshot_row(&attached(world).await).await;
        self.0.set(snapshot.clone());
        create_request(&snapshot)
    }

    async fn worked(&self, world: &World) {
        let snapshot = row(world, &self.0.get()).await;
        assert_eq!((snapshot.status.clone(), snapshot.progress.as_deref()), (SnapshotStatus::Available, Some("100%")));
        let asked = json!({"type": "qcow2", "new_file": overlay(&snapshot), "snapshot_id": snapshot.id});
        assert_eq!(world.nova.asked(), [asked], "asked once");
        assert_eq!(active(world, &snapshot), overlay(&snapshot));
        let volume = world.get(&snapshot.volume_id).await;
        let info = volume.attachments[0].connection_info.clone().unwrap();
        assert_eq!((&info["name"], &info["format"]), (&json!(overlay(&snapshot)), &json!("qcow2")));
        assert_eq!(info["export"], "share", "the rest of it stays");
        assert_eq!(volume.admin_metadata["format"], "qcow2");
    }

    async fn failed(&self, world: &World) {
        let snapshot = row(world, &self.0.get()).await;
        assert_eq!((snapshot.status.clone(), snapshot.progress.as_deref()), (SnapshotStatus::Error, Some("0%")));
        // What the server may write to stays; what it was never told of goes.
        let is_there = world.files().contains(&overlay(&snapshot));
        assert_eq!(is_there, !world.nova.asked().is_empty());
        assert_eq!(is_there, active(world, &snapshot) == overlay(&snapshot), "the active file is there");
    }
}

#[derive(Default)]
struct Delete(Made<Snapshot>);

#[async_trait]
impl Case for Delete {
    async fn arrange(&self, world: &World) -> Request {
        let snapshot = world.snapshot(&attached(world).await).await;
        world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
        self.0.set(snapshot.clone());
        delete_request(&snapshot)
    }

    async fn worked(&self, world: &World) {
        let snapshot = self.0.get();
        assert_eq!(world.db.snapshot_get(&snapshot.id).await.unwrap(), None);
        let asked = json!({
            "type": "qcow2", "file_to_merge": null, "merge_target_file": null, "volume_id": snapshot.volume_id,
        });
        assert_eq!(world.nova.asked()[1..], [asked], "asked once");
        let files = [overlay(&snapshot), format!("volume-{}.info", snapshot.volume_id)];
        assert_eq!(world.files(), files, "everything was pulled up");
        let volume = world.get(&snapshot.volume_id).await;
        assert_eq!((&*volume.admin_metadata["format"], &*volume.admin_metadata["base_format"]), ("qcow2", "qcow2"));
    }

    async fn failed(&self, world: &World) {
        let snapshot = row(world, &self.0.get()).await;
        assert_eq!((snapshot.status, snapshot.progress.as_deref()), (SnapshotStatus::ErrorDeleting, Some("100%")));
    }
}

#[tokio::test]
async fn create_snapshot_of_an_attached_volume() {
    judge(&Create::default()).await;
}

#[tokio::test]
async fn delete_snapshot_of_an_attached_volume() {
    judge(&Delete::default()).await;
}

/// Has Nova answer so, and returns the world after the creation with the failure's class.
async fn created(answer: Answer) -> (World, Snapshot, Option<FaultClass>) {
    let world = World::new().await;
    world.nova.set(answer);
    let snapshot = world.snapshot_row(&attached(&world).await).await;
    let outcome = world.run(&create_request(&snapshot)).await;
    let class = match outcome {
        Ok(_) => None,
        Err(Failure::Fault(fault)) => Some(fault.class),
        Err(other) => panic!("{other}"),
    };
    world.nothing_left_over().await;
    let snapshot = row(&world, &snapshot).await;
    (world, snapshot, class)
}

#[tokio::test]
async fn what_nova_refuses_leaves_no_trace() {
    let (world, snapshot, class) = created(Answer::Refused).await;
    assert_eq!((class, snapshot.status.clone()), (Some(FaultClass::RemoteFSException), SnapshotStatus::Error));
    assert!(!world.files().contains(&overlay(&snapshot)));
    assert_eq!(active(&world, &snapshot), format!("volume-{}", snapshot.volume_id));
    let volume = world.get(&snapshot.volume_id).await;
    assert_eq!(volume.admin_metadata["format"], "raw");
    assert_eq!(volume.attachments[0].connection_info.as_ref().unwrap()["format"], "raw");
}

#[tokio::test]
async fn an_answer_that_never_came_is_made_good_by_the_report() {
    let (_, snapshot, class) = created(Answer::Lost).await;
    assert_eq!((class, snapshot.status), (None, SnapshotStatus::Available));
}

#[tokio::test]
async fn a_snapshot_that_the_server_could_not_take_is_deleted_like_any_other() {
    // No locks can be seen here: the server may write to the overlay, so it stays until it is deleted.
    let (world, snapshot, class) = created(Answer::Fails).await;
    assert_eq!((class, snapshot.status.clone()), (Some(FaultClass::RemoteFSException), SnapshotStatus::Error));
    assert_eq!(active(&world, &snapshot), overlay(&snapshot));
    world.nova.set(Answer::Good);
    world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
    world.run(&delete_request(&snapshot)).await.unwrap();
    assert_eq!(world.db.snapshot_get(&snapshot.id).await.unwrap(), None);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn of_a_merge_the_files_tell_more_than_the_report() {
    let world = World::new().await;
    let snapshot = world.snapshot(&attached(&world).await).await;
    for (answer, gone) in [(Answer::Refused, false), (Answer::Fails, false), (Answer::Lies, true)] {
        world.nova.set(answer);
        world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
        let outcome = world.run(&delete_request(&snapshot)).await;
        assert_eq!(outcome.is_ok(), gone, "{answer:?}: {outcome:?}");
        let left = world.db.snapshot_get(&snapshot.id).await.unwrap();
        assert_eq!(left.map(|row| row.status), (!gone).then_some(SnapshotStatus::ErrorDeleting));
        world.nothing_left_over().await;
    }
}

#[tokio::test]
async fn what_an_earlier_try_has_asked_for_is_not_taken_back() {
    let world = World::new().await;
    let snapshot = world.snapshot_row(&attached(&world).await).await;
    // The process dies when the server has switched; whoever carries on fails before that step.
    world.manager.script.set(Trial::ReplyLostAt(2));
    world.run(&create_request(&snapshot)).await.unwrap_err();
    assert_eq!(world.nova.asked().len(), 1);
    world.manager.script.set(Trial::FailAt(1));
    let failure = world.run(&create_request(&snapshot)).await.unwrap_err();
    assert!(matches!(failure, Failure::Fault(_)), "{failure}");
    assert_eq!(row(&world, &snapshot).await.status, SnapshotStatus::Error);
    assert!(world.files().contains(&overlay(&snapshot)), "the server writes into it");
    assert_eq!(active(&world, &snapshot), overlay(&snapshot));
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_new_request_asks_whatever_mark_an_older_one_left() {
    for mark in ["10%", "20%", "90%"] {
        let world = World::new().await;
        let snapshot = world.snapshot(&attached(&world).await).await;
        let change = SnapshotChange {
            progress: Some(Some(mark.to_owned())),
            ..SnapshotChange::status(SnapshotStatus::Deleting)
        };
        assert!(world.db.snapshot_update(&snapshot.id, &Expect::any(), &change).await.unwrap().is_done());
        world.run(&delete_request(&snapshot)).await.unwrap();
        assert_eq!(world.nova.asked().len(), 2, "{mark}");
    }
}

#[tokio::test]
async fn without_nova_and_with_two_servers_nothing_is_begun() {
    let world = World::without_nova().await;
    let volume = attached(&world).await;
    let snapshot = world.snapshot_row(&volume).await;
    let failure = world.run(&create_request(&snapshot)).await.unwrap_err();
    assert!(failure.to_string().contains("[nova] auth_type"), "{failure}");
    assert_eq!(world.files(), [format!("volume-{}", volume.id)]);
    let world = World::new().await;
    let volume = attached(&world).await;
    attach(&world, &volume).await;
    let snapshot = world.snapshot_row(&volume).await;
    let failure = world.run(&create_request(&snapshot)).await.unwrap_err();
    assert!(failure.to_string().contains("several servers"), "{failure}");
    assert_eq!(world.files(), [format!("volume-{}", volume.id)]);
}
