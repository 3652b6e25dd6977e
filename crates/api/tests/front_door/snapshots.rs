//! Snapshots: made, changed, deleted; volumes from them and back to them.

use scoria_db::{Expect, VolumeChange};
use scoria_model::{VolumeId, VolumeStatus};
use serde_json::json;

use crate::common::Cloud;

async fn set_status(cloud: &Cloud, id: &str, status: VolumeStatus) {
    let id: VolumeId = id.parse().unwrap();
    let change = VolumeChange::status(status);
    assert!(cloud.database.volume_update(&id, &Expect::any(), &change).await.unwrap().is_done());
}

#[tokio::test]
async fn a_snapshot_lives_and_dies() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(2).await;
    let body = json!({"snapshot": {"volume_id": volume, "name": "shot", "metadata": {"a": "b"}}});
    let answer = cloud.post("/snapshots", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let view = &answer.body["snapshot"];
    assert_eq!((&view["status"], &view["size"], &view["name"]), (&json!("creating"), &json!(2), &json!("shot")));
    let id = answer.text("/snapshot/id");
    cloud.until("/snapshots", &id, "snapshot", "available").await;
    let usages = cloud.database.quota_usages("project").await.unwrap();
    assert_eq!((usages["snapshots"].in_use, usages["gigabytes"].in_use), (1, 4));

    let path = format!("/snapshots/{id}");
    let view = cloud.get(&path).await.body["snapshot"].clone();
    assert_eq!(view["os-extended-snapshot-attributes:progress"], "100%");
    assert_eq!(view["metadata"], json!({"a": "b"}));
    let answer = cloud.call("PUT", &path, Some(json!({"snapshot": {"description": "text"}}))).await;
    assert_eq!(answer.body["snapshot"]["description"], "text");
    let answer = cloud.post(&format!("{path}/metadata"), json!({"metadata": {"c": "d"}})).await;
    assert_eq!(answer.body, json!({"metadata": {"a": "b", "c": "d"}}));
    assert_eq!(cloud.call("DELETE", &format!("{path}/metadata/a"), None).await.status, 200);
    assert_eq!(cloud.get(&format!("{path}/metadata")).await.body, json!({"metadata": {"c": "d"}}));

    let answer = cloud.post("/volumes", json!({"volume": {"snapshot_id": id, "size": 1}})).await;
    let message = answer.fault(400, "badRequest");
    assert!(message.contains("cannot be smaller than the snapshot size 2GB"), "{message}");
    let answer = cloud.post("/volumes", json!({"volume": {"snapshot_id": id}})).await;
    assert_eq!((&answer.body["volume"]["size"], &answer.body["volume"]["source_volid"]), (&json!(2), &json!(null)));

    assert_eq!(cloud.call("DELETE", &path, None).await.status, 202);
    cloud.until("/snapshots", &id, "snapshot", "gone").await;
    let message = cloud.call("DELETE", &path, None).await.fault(404, "itemNotFound");
    assert_eq!(message, format!("Snapshot {id} could not be found."));
}

#[tokio::test]
async fn only_volumes_at_rest_are_taken() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let create = async |force: serde_json::Value, version: &str| {
        let mut body = json!({"snapshot": {"volume_id": volume}});
        if !force.is_null() {
            body["snapshot"]["force"] = force;
        }
        cloud.call_as("POST", "/snapshots", Some(body), version, "tester:project").await
    };
    set_status(&cloud, &volume, VolumeStatus::InUse).await;
    let message = create(json!(null), "3.65").await.fault(400, "badRequest");
    assert_eq!(
        message,
        format!("Invalid volume: Volume {volume} status must be available, but current status is: in-use.")
    );
    assert_eq!(create(json!(true), "3.65").await.status, 202);
    assert_eq!(create(json!(null), "3.66").await.status, 202);
    create(json!(false), "3.66").await.fault(400, "badRequest");
    create(json!("maybe"), "3.0").await.fault(400, "badRequest");
    set_status(&cloud, &volume, VolumeStatus::Error).await;
    let message = create(json!(true), "3.0").await.fault(400, "badRequest");
    assert_eq!(message, "Invalid volume: The snapshot cannot be created when the volume is in error status.");

    for (body, status, key) in [
        (json!({"snapshot": {}}), 400, "badRequest"),
        (json!({"snapshot": {"volume_id": "x"}}), 400, "badRequest"),
        (json!({"snapshot": {"volume_id": "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11"}}), 404, "itemNotFound"),
    ] {
        cloud.post("/snapshots", body).await.fault(status, key);
    }
}

#[tokio::test]
async fn a_volume_goes_back_to_its_latest_snapshot_only() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let revert = async |snapshot: &str| {
        let body = json!({"revert": {"snapshot_id": snapshot}});
        cloud.post(&format!("/volumes/{volume}/action"), body).await
    };
    revert("x").await.fault(400, "badRequest");
    let snapshot = cloud.snapshot(&volume).await;
    revert("x").await.fault(400, "badRequest");
    set_status(&cloud, &volume, VolumeStatus::InUse).await;
    revert(&snapshot).await.fault(409, "conflictingRequest");
    set_status(&cloud, &volume, VolumeStatus::Available).await;
    assert_eq!(revert(&snapshot).await.status, 202);
    cloud.until("/volumes", &volume, "volume", "available").await;
    cloud.until("/snapshots", &snapshot, "snapshot", "available").await;
    assert_eq!(cloud.broker.requests("revert_to_snapshot").len(), 1);
}

#[tokio::test]
async fn snapshots_are_reset_and_forced() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let id = cloud.snapshot(&volume).await;
    let path = format!("/snapshots/{id}/action");
    assert_eq!(cloud.post(&path, json!({"os-reset_status": {"status": "Deleting"}})).await.status, 202);
    let message = cloud.call("DELETE", &format!("/snapshots/{id}"), None).await.fault(400, "badRequest");
    let words = "Snapshot status must be available or error and must not be part of a group.";
    assert_eq!(message, format!("Invalid snapshot: {words}"));
    cloud.post(&path, json!({"os-reset_status": {"status": "odd"}})).await.fault(400, "badRequest");
    assert_eq!(cloud.post(&path, json!({"os-force_delete": null})).await.status, 202);
    cloud.until("/snapshots", &id, "snapshot", "gone").await;
}

/// A deletion and a snapshot that meet: whatever comes of it, no snapshot is left on a volume that is being deleted.
#[tokio::test]
async fn no_snapshot_is_left_on_a_volume_that_goes() {
    let cloud = Cloud::start().await;
    for _ in 0..8 {
        let volume = cloud.volume(1).await;
        let path = format!("/volumes/{volume}");
        let body = json!({"snapshot": {"volume_id": volume}});
        let (deleted, taken) = tokio::join!(cloud.call("DELETE", &path, None), cloud.post("/snapshots", body));
        assert!([202, 400].contains(&deleted.status.as_u16()), "{deleted:?}");
        assert!([202, 400, 404].contains(&taken.status.as_u16()), "{taken:?}");
        assert!(deleted.status != 202 || taken.status != 202, "{deleted:?} {taken:?}");
        if deleted.status == 202 {
            cloud.until("/volumes", &volume, "volume", "gone").await;
        } else {
            cloud.until("/volumes", &volume, "volume", "available").await;
            cloud.call("DELETE", &format!("{path}?cascade=true&force=true"), None).await;
            cloud.until("/volumes", &volume, "volume", "gone").await;
        }
    }
}
