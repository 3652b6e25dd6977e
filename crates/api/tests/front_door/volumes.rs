//! Volumes: made, changed, extended, deleted.

use scoria_db::{Expect, VolumeChange};
use scoria_model::object::decode_volume;
use scoria_model::{AttachStatus, ResourceType, VolumeId, VolumeStatus};
use serde_json::{Value, json};

use crate::common::{Cloud, HOST};

async fn write(cloud: &Cloud, id: &str, change: VolumeChange) {
    let id: VolumeId = id.parse().unwrap();
    assert!(cloud.database.volume_update(&id, &Expect::any(), &change).await.unwrap().is_done());
}

async fn used(cloud: &Cloud, resource: &str) -> (i64, i64) {
    let usages = cloud.database.quota_usages("project").await.unwrap();
    usages.get(resource).map_or((0, 0), |usage| (usage.in_use, usage.reserved))
}

async fn act(cloud: &Cloud, id: &str, body: Value) -> crate::common::Answer {
    cloud.post(&format!("/volumes/{id}/action"), body).await
}

#[tokio::test]
async fn a_new_volume_is_a_row_a_worker_quota_and_a_message() {
    let cloud = Cloud::deserted().await;
    let body = json!({"volume": {"size": "2", "name": " data ", "metadata": {"a": "b"}}});
    let answer = cloud.post("/volumes", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let view = &answer.body["volume"];
    assert_eq!((&view["status"], &view["size"], &view["name"]), (&json!("creating"), &json!(2), &json!("data")));
    assert_eq!((&view["volume_type"], &view["availability_zone"]), (&json!("__DEFAULT__"), &json!("nova")));

    let id: VolumeId = answer.text("/volume/id").parse().unwrap();
    let loaded = cloud.database.volume_load(&id).await.unwrap().unwrap();
    assert_eq!(loaded.volume.host.as_deref(), Some(HOST));
    assert_eq!(loaded.volume.project_id.as_deref(), Some("project"));
    let worker = loaded.worker.expect("the work is written down before the message goes");
    assert_eq!((worker.status.as_str(), worker.service_id), ("creating", None));
    assert_eq!(used(&cloud, "volumes").await, (1, 0));
    assert_eq!(used(&cloud, "gigabytes___DEFAULT__").await, (2, 0));

    let requests = cloud.broker.requests("create_volume");
    let request = requests.first().expect("a message was sent");
    let sent = decode_volume(&request.args["volume"]).unwrap();
    assert_eq!((sent.id, sent.size, sent.status), (id, 2, VolumeStatus::Creating));
    assert_eq!(request.args["allow_reschedule"], false);
    assert_eq!(request.context.project_id.as_deref(), Some("project"));
    let id = answer.headers["x-openstack-request-id"].to_str().unwrap();
    assert_eq!(request.context.request_id.as_deref(), Some(id));
}

#[tokio::test]
async fn bad_wishes_get_cinder_s_words_and_leave_nothing() {
    let cloud = Cloud::deserted().await;
    let missing = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11";
    for (volume, status, key, words) in [
        (json!({}), 400, "badRequest", "must be an integer and greater than 0"),
        (json!({"size": 0}), 400, "badRequest", "0 is less than the minimum of 1"),
        (json!({"size": "big"}), 400, "badRequest", "'big' does not match '^[0-9]+$'"),
        (json!({"size": 1, "name": "x".repeat(256)}), 400, "badRequest", "is too long"),
        (json!({"size": 1, "colour": "red"}), 400, "badRequest", "('colour' was unexpected)"),
        (json!({"size": 1, "metadata": {"a": 1}}), 400, "badRequest", "1 is not of type 'string'"),
        (json!({"size": 1, "availability_zone": "mars"}), 400, "badRequest", "Availability zone 'mars' is invalid."),
        (json!({"size": 1, "imageRef": missing}), 400, "badRequest", "Invalid image identifier"),
        (json!({"size": 1, "multiattach": true}), 400, "badRequest", "multiattach parameter has been removed"),
        (json!({"size": 1, "source_volid": "x"}), 400, "badRequest", "'x' is not a 'uuid'"),
        (json!({"source_volid": missing}), 404, "itemNotFound", "could not be found."),
        (json!({"snapshot_id": missing}), 404, "itemNotFound", "could not be found."),
        (json!({"snapshot_id": missing, "source_volid": missing}), 400, "badRequest", "May specify only one of"),
        (
            json!({"size": 1, "volume_type": "gold"}),
            404,
            "itemNotFound",
            "Volume type with name gold could not be found.",
        ),
        (json!({"size": 1, "backup_id": missing}), 404, "itemNotFound", "Backup"),
        (json!({"size": 1, "group_id": missing}), 404, "itemNotFound", "Group"),
    ] {
        let message = cloud.post("/volumes", json!({"volume": volume})).await.fault(status, key);
        assert!(message.contains(words), "{volume}: {message}");
    }
    assert!(cloud.database.volumes_empty().await.unwrap());
    assert!(cloud.broker.sent().is_empty());
    assert_eq!(used(&cloud, "volumes").await, (0, 0));
}

#[tokio::test]
async fn quota_ends_with_413_and_nothing_is_made() {
    let cloud = Cloud::with(|door| {
        // The rows of class `default` would come before these.
        door.quotas.use_default_class = false;
        door.quotas.limits.extend([("volumes".to_owned(), 2), ("per_volume_gigabytes".to_owned(), 5)]);
    })
    .await;
    let create = async |size: u64| cloud.post("/volumes", json!({"volume": {"size": size}})).await;
    let answer = create(6).await;
    assert_eq!(answer.headers["retry-after"], "0");
    assert_eq!(
        answer.fault(413, "overLimit"),
        "VolumeSizeExceedsLimit: Requested volume size 6G is larger than maximum allowed limit 5G."
    );
    for _ in 0..2 {
        assert_eq!(create(1).await.status, 202);
    }
    assert_eq!(
        create(1).await.fault(413, "overLimit"),
        "VolumeLimitExceeded: Maximum number of volumes allowed (2) exceeded for quota 'volumes'."
    );
    assert_eq!(used(&cloud, "volumes").await, (2, 0));
    assert_eq!(cloud.broker.requests("create_volume").len(), 2);
}

/// Twenty at once, and room for five: exactly five come in.
#[tokio::test(flavor = "multi_thread")]
async fn quota_is_exact_under_a_crowd() {
    let cloud = Cloud::with(|door| {
        door.quotas.use_default_class = false;
        door.quotas.limits.insert("volumes".to_owned(), 5);
    })
    .await;
    let create = || cloud.post("/volumes", json!({"volume": {"size": 1}}));
    let statuses = futures_util::future::join_all((0..20).map(|_| create())).await;
    let made = statuses.iter().filter(|answer| answer.status == 202).count();
    let refused = statuses.iter().filter(|answer| answer.status == 413).count();
    assert_eq!((made, refused), (5, 15));
    assert_eq!(used(&cloud, "volumes").await, (5, 0));
}

#[tokio::test]
async fn a_volume_that_no_service_ever_had_goes_at_once() {
    let cloud = Cloud::deserted().await;
    let id = cloud.post("/volumes", json!({"volume": {"size": 1}})).await.text("/volume/id");
    write(&cloud, &id, VolumeChange { host: Some(None), ..VolumeChange::default() }).await;
    assert_eq!(cloud.call("DELETE", &format!("/volumes/{id}"), None).await.status, 202);
    cloud.get(&format!("/volumes/{id}")).await.fault(404, "itemNotFound");
    assert_eq!(used(&cloud, "volumes").await, (0, 0));
    assert!(cloud.broker.requests("delete_volume").is_empty());
}

#[tokio::test]
async fn a_clone_takes_size_type_and_zone_from_its_source() {
    let cloud = Cloud::start().await;
    let source = cloud.volume(3).await;
    let clone = cloud.post("/volumes", json!({"volume": {"source_volid": source}})).await;
    assert_eq!(clone.body["volume"]["size"], 3);
    assert_eq!(clone.text("/volume/source_volid"), source);

    let message = cloud.post("/volumes", json!({"volume": {"source_volid": source, "size": 2}})).await;
    assert_eq!(
        message.fault(400, "badRequest"),
        "Invalid input received: Volume size '2'GB cannot be smaller than original volume size  3GB. They must be >= \
         original volume size."
    );
    write(&cloud, &source, VolumeChange::status(VolumeStatus::Error)).await;
    let message = cloud.post("/volumes", json!({"volume": {"source_volid": source}})).await.fault(400, "badRequest");
    let words = "Originating source volume status must be one of 'available, in-use' values";
    assert_eq!(message, format!("Invalid volume: {words}"));
}

#[tokio::test]
async fn names_and_metadata_are_changed() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    let path = format!("/volumes/{id}");
    let body = json!({"volume": {"name": "n", "description": "d", "metadata": {"a": "b"}}});
    let answer = cloud.call("PUT", &path, Some(body)).await;
    assert_eq!((&answer.body["volume"]["name"], &answer.body["volume"]["metadata"]), (&json!("n"), &json!({"a": "b"})));
    let answer = cloud.call("PUT", &path, Some(json!({"volume": {"name": null}}))).await;
    assert_eq!((&answer.body["volume"]["name"], &answer.body["volume"]["description"]), (&json!(null), &json!("d")));
    cloud.call("PUT", &path, Some(json!({"volume": {}}))).await.fault(400, "badRequest");
    cloud.call("PUT", &path, Some(json!({"volume": {"size": 2}}))).await.fault(400, "badRequest");

    let path = format!("/volumes/{id}/metadata");
    let answer = cloud.post(&path, json!({"metadata": {"c": "d"}})).await;
    assert_eq!(answer.body, json!({"metadata": {"a": "b", "c": "d"}}));
    let answer = cloud.call("PUT", &path, Some(json!({"metadata": {"e": "f"}}))).await;
    assert_eq!(answer.body, json!({"metadata": {"e": "f"}}));
    let answer = cloud.call("PUT", &format!("{path}/e"), Some(json!({"meta": {"e": "g"}}))).await;
    assert_eq!(answer.body, json!({"meta": {"e": "g"}}));
    assert_eq!(cloud.get(&format!("{path}/e")).await.body, json!({"meta": {"e": "g"}}));
    let answer = cloud.call("PUT", &format!("{path}/e"), Some(json!({"meta": {"x": "g"}}))).await;
    assert_eq!(answer.fault(400, "badRequest"), "Request body and URI mismatch");
    assert_eq!(cloud.call("DELETE", &format!("{path}/e"), None).await.status, 200);
    let message = cloud.call("DELETE", &format!("{path}/e"), None).await.fault(404, "itemNotFound");
    assert_eq!(message, format!("Volume {id} has no metadata with key e."));
    assert_eq!(cloud.get(&path).await.body, json!({"metadata": {}}));
}

#[tokio::test]
async fn deletion_is_refused_to_what_is_in_use() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    let path = format!("/volumes/{id}");
    let snapshot = cloud.snapshot(&id).await;
    let message = cloud.call("DELETE", &path, None).await.fault(400, "badRequest");
    assert_eq!(
        message,
        "Invalid volume: Volume status must be available or error or error_restoring or error_extending or \
         error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or \
         be disassociated from snapshots after volume transfer."
    );
    assert_eq!(cloud.get(&path).await.text("/volume/status"), "available");

    let attached = VolumeChange { attach_status: Some(AttachStatus::Attached), ..VolumeChange::default() };
    write(&cloud, &id, attached).await;
    cloud.call("DELETE", &format!("{path}?cascade=true"), None).await.fault(400, "badRequest");
    cloud.call("DELETE", &format!("{path}?cascade=true&force=true"), None).await.fault(400, "badRequest");
    let detached = VolumeChange { attach_status: Some(AttachStatus::Detached), ..VolumeChange::default() };
    write(&cloud, &id, detached).await;
    cloud.call("DELETE", &format!("{path}?cascade=maybe"), None).await.fault(400, "badRequest");

    assert_eq!(cloud.call("DELETE", &format!("{path}?cascade=true"), None).await.status, 202);
    cloud.until("/volumes", &id, "volume", "gone").await;
    cloud.get(&format!("/snapshots/{snapshot}")).await.fault(404, "itemNotFound");
    let message = cloud.call("DELETE", &path, None).await.fault(404, "itemNotFound");
    assert_eq!(message, format!("Volume {id} could not be found."));
}

#[tokio::test]
async fn deletion_writes_the_work_down() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    write(&cloud, &id, VolumeChange::status(VolumeStatus::Extending)).await;
    let path = format!("/volumes/{id}");
    cloud.call("DELETE", &path, None).await.fault(400, "badRequest");
    // Force is not there before 3.23.
    let old = cloud.call_as("DELETE", &format!("{path}?force=true"), None, "3.22", "tester:project").await;
    old.fault(400, "badRequest");
    assert_eq!(cloud.call("DELETE", &format!("{path}?force=true"), None).await.status, 202);
    cloud.until("/volumes", &id, "volume", "gone").await;
    let request = &cloud.broker.requests("delete_volume")[0];
    assert_eq!(decode_volume(&request.args["volume"]).unwrap().status, VolumeStatus::Deleting);
    assert_eq!((&request.args["cascade"], &request.args["unmanage_only"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn extension_reserves_and_says_why_not() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(2).await;
    let extend = async |size: Value| act(&cloud, &id, json!({"os-extend": {"new_size": size}})).await;
    assert_eq!(extend(json!(3)).await.status, 202);
    cloud.until("/volumes", &id, "volume", "available").await;
    assert_eq!(cloud.get(&format!("/volumes/{id}")).await.body["volume"]["size"], 3);
    assert_eq!(used(&cloud, "gigabytes").await, (3, 0));

    let message = extend(json!(3)).await.fault(400, "badRequest");
    assert_eq!(
        message,
        "Invalid input received: New size for extend must be greater than current size. (current: 3, extended: 3)."
    );
    let message = extend(json!(3000)).await.fault(413, "overLimit");
    assert!(message.starts_with("VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds"), "{message}");
    assert_eq!(cloud.get(&format!("/volumes/{id}")).await.text("/volume/status"), "available");
    assert_eq!(used(&cloud, "gigabytes").await, (3, 0));

    write(&cloud, &id, VolumeChange::status(VolumeStatus::InUse)).await;
    let body = json!({"os-extend": {"new_size": 4}});
    let path = format!("/volumes/{id}/action");
    let message = cloud.call_as("POST", &path, Some(body.clone()), "3.41", "tester:project").await;
    let expected =
        format!("Invalid volume: Volume {id} status must be '{{'status': 'available'}}' to extend, currently in-use.");
    assert_eq!(message.fault(400, "badRequest"), expected);
    assert_eq!(cloud.call_as("POST", &path, Some(body), "3.42", "tester:project").await.status, 202);
}

#[tokio::test]
async fn the_smaller_actions() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    let show = async || cloud.get(&format!("/volumes/{id}")).await.body["volume"].clone();

    assert_eq!(act(&cloud, &id, json!({"os-set_bootable": {"bootable": "true"}})).await.status, 200);
    assert_eq!(show().await["bootable"], "true");
    assert_eq!(act(&cloud, &id, json!({"os-update_readonly_flag": {"readonly": true}})).await.status, 202);
    assert_eq!(show().await["metadata"]["readonly"], "True");

    assert_eq!(act(&cloud, &id, json!({"os-reserve": null})).await.status, 202);
    assert_eq!(show().await["status"], "attaching");
    let message = act(&cloud, &id, json!({"os-reserve": null})).await.fault(400, "badRequest");
    assert_eq!(message, "Invalid volume: Volume status must be available to reserve, but the status is attaching.");
    assert_eq!(act(&cloud, &id, json!({"os-unreserve": null})).await.status, 202);
    assert_eq!(show().await["status"], "available");
    act(&cloud, &id, json!({"os-begin_detaching": null})).await.fault(400, "badRequest");

    let connector = json!({"os-initialize_connection": {"connector": {"host": "compute1"}}});
    let answer = act(&cloud, &id, connector).await;
    assert_eq!(answer.body["connection_info"]["driver_volume_type"], "nfs", "{answer:?}");
    assert_eq!(answer.body["connection_info"]["enforce_multipath"], false);
    let message = act(&cloud, &id, json!({"os-initialize_connection": {"connector": {}}})).await;
    assert_eq!(message.fault(400, "badRequest"), "Invalid input received: connector has no host");
    let connector = json!({"os-terminate_connection": {"connector": {"host": "compute1"}}});
    assert_eq!(act(&cloud, &id, connector).await.status, 202);

    assert_eq!(act(&cloud, &id, json!({"os-reset_status": {"status": "error"}})).await.status, 202);
    assert_eq!(show().await["status"], "error");
    let message = act(&cloud, &id, json!({"os-reset_status": {"status": "in-use"}})).await.fault(400, "badRequest");
    assert_eq!(message, "Cannot reset-state to in-use because volume does not have any attachments.");
    act(&cloud, &id, json!({"os-reset_status": {}})).await.fault(400, "badRequest");
    let message = act(&cloud, &id, json!({"os-dance": {}})).await.fault(400, "badRequest");
    assert!(message.starts_with("There is no such action: os-dance."), "{message}");
    act(&cloud, "nothing", json!({"os-extend": {"new_size": 3}})).await.fault(404, "itemNotFound");

    assert_eq!(act(&cloud, &id, json!({"os-force_delete": {}})).await.status, 202);
    cloud.until("/volumes", &id, "volume", "gone").await;
}

#[tokio::test]
async fn a_reset_overrules_whoever_was_at_work() {
    let cloud = Cloud::deserted().await;
    let id = cloud.post("/volumes", json!({"volume": {"size": 1}})).await.text("/volume/id");
    assert!(cloud.database.worker_get(ResourceType::Volume, &id).await.unwrap().is_some());
    assert_eq!(act(&cloud, &id, json!({"os-reset_status": {"status": "error"}})).await.status, 202);
    assert!(cloud.database.worker_get(ResourceType::Volume, &id).await.unwrap().is_none());
}
