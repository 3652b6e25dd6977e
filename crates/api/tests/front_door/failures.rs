//! What is behind the front door goes away: the caller is told, and nothing is left half done.

use scoria_db::{Database, Options};
use scoria_model::ResourceType;
use serde_json::json;

use crate::common::Cloud;

async fn reserved(cloud: &Cloud) -> i64 {
    let usages = cloud.database.quota_usages("project").await.unwrap();
    usages.values().map(|usage| usage.reserved).sum()
}

#[tokio::test]
async fn without_a_broker_a_new_volume_ends_in_error() {
    let cloud = Cloud::deserted().await;
    cloud.broker.set_down(true);
    let answer = cloud.post("/volumes", json!({"volume": {"size": 1}})).await;
    let message = answer.fault(503, "serviceUnavailable");
    assert!(message.contains("broker"), "{message}");
    let volumes = cloud.get("/volumes/detail").await;
    assert_eq!(volumes.text("/volumes/0/status"), "error");
    let id = volumes.text("/volumes/0/id");
    assert!(cloud.database.worker_get(ResourceType::Volume, &id).await.unwrap().is_none());
    assert_eq!(reserved(&cloud).await, 0);
}

#[tokio::test]
async fn without_a_broker_everything_else_stays_as_it_was() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    let snapshot = cloud.snapshot(&id).await;
    cloud.broker.set_down(true);

    let action = format!("/volumes/{id}/action");
    let answer = cloud.post(&action, json!({"os-extend": {"new_size": 2}})).await;
    answer.fault(503, "serviceUnavailable");
    cloud.call("DELETE", &format!("/volumes/{id}?cascade=true"), None).await.fault(503, "serviceUnavailable");
    cloud.call("DELETE", &format!("/snapshots/{snapshot}"), None).await.fault(503, "serviceUnavailable");
    let body = json!({"revert": {"snapshot_id": snapshot}});
    cloud.post(&action, body).await.fault(503, "serviceUnavailable");
    let body = json!({"os-initialize_connection": {"connector": {"host": "h"}}});
    cloud.post(&action, body).await.fault(503, "serviceUnavailable");

    assert_eq!(cloud.get(&format!("/volumes/{id}")).await.text("/volume/status"), "available");
    assert_eq!(cloud.get(&format!("/snapshots/{snapshot}")).await.text("/snapshot/status"), "available");
    assert_eq!(reserved(&cloud).await, 0);
    assert!(cloud.database.worker_get(ResourceType::Volume, &id).await.unwrap().is_none());

    let answer = cloud.post("/snapshots", json!({"snapshot": {"volume_id": id, "name": "lost"}})).await;
    answer.fault(503, "serviceUnavailable");
    let list = cloud.get("/snapshots?name=lost").await;
    assert_eq!(list.text("/snapshots/0/status"), "error");
}

#[tokio::test]
async fn without_a_volume_service_the_work_stays_written_down() {
    let cloud = Cloud::deserted().await;
    let id = cloud.post("/volumes", json!({"volume": {"size": 1}})).await.text("/volume/id");
    // Nobody has declared the queue: the message is lost, the worker row is what remains.
    assert!(cloud.database.worker_get(ResourceType::Volume, &id).await.unwrap().is_some());
    assert_eq!(cloud.get(&format!("/volumes/{id}")).await.text("/volume/status"), "creating");
}

#[tokio::test]
async fn without_a_database_the_caller_is_told() {
    let directory = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite:///{}", directory.path().join("closed.sqlite").display());
    let options = Options { db_max_retries: 0, ..Options::new(url) };
    let closed = Database::connect(&options).await.unwrap();
    closed.close().await;
    let cloud = Cloud::with(|door| door.database = closed).await;
    let message = cloud.get("/volumes").await.fault(503, "serviceUnavailable");
    assert!(message.contains("database"), "{message}");
    cloud.post("/volumes", json!({"volume": {"size": 1}})).await.fault(503, "serviceUnavailable");
}
