//! Attachments: reserved, connected, complete, gone.

use scoria_coordination::{LockRequest, Owner};
use scoria_db::{Expect, VolumeChange};
use scoria_model::{VolumeId, VolumeStatus};
use serde_json::{Value, json};

use crate::common::{Answer, Cloud};

const SERVER: &str = "72ab4d3b-9a1c-4a5e-9f4e-3b1f0f8c1f11";
const OTHER: &str = "11111111-9a1c-4a5e-9f4e-3b1f0f8c1f11";

async fn attach(cloud: &Cloud, volume: &str, server: &str, connector: Value) -> Answer {
    let body = json!({"volume_uuid": volume, "instance_uuid": server, "connector": connector});
    cloud.post("/attachments", json!({"attachment": body})).await
}

async fn status(cloud: &Cloud, volume: &str) -> String {
    cloud.get(&format!("/volumes/{volume}")).await.text("/volume/status")
}

#[tokio::test]
async fn an_attachment_goes_its_way() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let answer = attach(&cloud, &volume, SERVER, json!(null)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text("/attachment/status"), "reserved");
    assert_eq!(status(&cloud, &volume).await, "reserved");
    let id = answer.text("/attachment/id");
    let path = format!("/attachments/{id}");

    let refused = attach(&cloud, &volume, OTHER, json!(null)).await.fault(400, "badRequest");
    assert_eq!(
        refused,
        format!(
            "Invalid volume: Volume {volume} status must be available or downloading to reserve, but the current status \
             is reserved."
        )
    );
    // The same server again: it moves to another host.
    let second = attach(&cloud, &volume, SERVER, json!(null)).await.text("/attachment/id");
    cloud.call("DELETE", &format!("/attachments/{second}"), None).await;

    let update = |connector: Value| cloud.call("PUT", &path, Some(json!({"attachment": {"connector": connector}})));
    update(json!({})).await.fault(400, "badRequest");
    let answer = update(json!({"host": "compute1"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text("/attachment/status"), "attaching");
    assert_eq!(answer.text("/attachment/connection_info/export"), "127.0.0.1:/share");

    let complete = json!({"os-complete": id});
    let action = format!("{path}/action");
    cloud.call_as("POST", &action, Some(complete.clone()), "3.43", "tester:project").await.fault(404, "itemNotFound");
    assert_eq!(cloud.post(&action, complete).await.status, 204);
    assert_eq!(status(&cloud, &volume).await, "in-use");
    let view = cloud.get(&format!("/volumes/{volume}")).await.body["volume"]["attachments"].clone();
    assert_eq!(view[0]["server_id"], SERVER, "{view}");
    assert_eq!(cloud.get("/attachments?instance_id=none").await.body["attachments"], json!([]));
    let list = cloud.get(&format!("/attachments/detail?volume_id={volume}")).await;
    assert_eq!(list.text("/attachments/0/id"), id);
    let elsewhere = cloud.call_as("GET", "/attachments", None, "3.71", "other:elsewhere").await;
    assert_eq!(elsewhere.body["attachments"], json!([]));

    let answer = cloud.call("DELETE", &path, None).await;
    assert_eq!(answer.body, json!({"attachments": []}));
    assert_eq!(status(&cloud, &volume).await, "available");
    assert_eq!(cloud.broker.requests("attachment_delete").len(), 1);
    let message = cloud.get(&path).await.fault(404, "itemNotFound");
    assert_eq!(message, format!("Volume attachment could not be found with filter: attachment_id = {id}."));
}

#[tokio::test]
async fn a_connector_at_once_and_one_that_the_back_end_does_not_like() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let answer = attach(&cloud, &volume, SERVER, json!({"host": "compute1"})).await;
    assert_eq!(answer.text("/attachment/connection_info/driver_volume_type"), "nfs");
    assert_eq!(answer.text("/attachment/attach_mode"), "null");

    let volume = cloud.volume(1).await;
    let message = attach(&cloud, &volume, SERVER, json!({"host": "broken"})).await.fault(500, "computeFault");
    assert!(message.starts_with("Unable to create attachment for volume ("), "{message}");
    assert_eq!(status(&cloud, &volume).await, "reserved");
}

#[tokio::test]
async fn two_connections_of_one_volume_are_a_conflict() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let first = attach(&cloud, &volume, SERVER, json!(null)).await.text("/attachment/id");
    let second = attach(&cloud, &volume, SERVER, json!(null)).await.text("/attachment/id");
    let update = async |id: &str| {
        let body = json!({"attachment": {"connector": {"host": "compute1"}}});
        cloud.call("PUT", &format!("/attachments/{id}"), Some(body)).await
    };
    assert_eq!(update(&first).await.status, 200);
    let message = update(&second).await.fault(409, "conflictingRequest");
    assert_eq!(message, format!("Resource conflict: duplicate connectors detected on volume {volume}"));

    let id: VolumeId = volume.parse().unwrap();
    let change = VolumeChange::status(VolumeStatus::Error);
    cloud.database.volume_update(&id, &Expect::any(), &change).await.unwrap();
    update(&second).await.fault(409, "conflictingRequest");
    let message = attach(&cloud, &volume, SERVER, json!(null)).await.fault(400, "badRequest");
    assert!(message.contains("currently has a status of: error"), "{message}");
}

#[tokio::test]
async fn an_update_waits_for_cinder_s_lock() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let id = attach(&cloud, &volume, SERVER, json!(null)).await.text("/attachment/id");
    let request = LockRequest::new(Owner::default()).exclusive(format!("attachment_update-{volume}-compute1"));
    let lock = cloud.coordinator.acquire(request).await.unwrap();
    let body = json!({"attachment": {"connector": {"host": "compute1"}}});
    let path = format!("/attachments/{id}");
    let update = cloud.call("PUT", &path, Some(body));
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(cloud.broker.requests("attachment_update").is_empty(), "it did not wait");
        lock.release().await.unwrap();
    };
    let (answer, ()) = tokio::join!(update, release);
    assert_eq!(answer.status, 200, "{answer:?}");
}
