//! Lists: pages, order, filters; and the smaller collections.

use serde_json::{Value, json};

use crate::common::Cloud;

fn names(answer: &Value, collection: &str) -> Vec<String> {
    let items = answer[collection].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn named(cloud: &Cloud, names: &[(&str, u64)]) {
    for (name, size) in names {
        let body = json!({"volume": {"size": size, "name": name, "metadata": {"of": name}}});
        assert_eq!(cloud.post("/volumes", body).await.status, 202);
    }
}

#[tokio::test]
async fn volumes_are_paged_sorted_and_filtered() {
    let cloud = Cloud::deserted().await;
    named(&cloud, &[("a", 3), ("b", 1), ("c", 2)]).await;
    let list = async |query: &str| names(&cloud.get(&format!("/volumes{query}")).await.body, "volumes");
    assert_eq!(list("?sort=name:asc").await, ["a", "b", "c"]);
    assert_eq!(list("?sort_key=size&sort_dir=desc").await, ["a", "c", "b"]);
    assert_eq!(list("?name=b").await, ["b"]);
    assert_eq!(list("?status=error").await, [""; 0]);
    assert_eq!(list("?metadata=%7B%27of%27%3A%20%27c%27%7D").await, ["c"]);
    assert_eq!(list("?size=3&limit=1").await, ["a"]);
    assert_eq!(list("?name~=b&sort=name:asc").await, ["b"]);
    assert_eq!(list("?created_at=gt:2030-01-01T00:00:00").await, [""; 0]);
    assert_eq!(list("?sort=name:asc&offset=1&limit=1").await, ["b"]);
    assert_eq!(list("?limit=0").await, [""; 0]);

    let mut answer = cloud.get("/project/volumes/detail?sort=name:asc&limit=2&with_count=true").await;
    assert_eq!(
        (names(&answer.body, "volumes"), &answer.body["count"]),
        (vec!["a".to_owned(), "b".to_owned()], &json!(3))
    );
    let next = answer.text("/volumes_links/0/href");
    assert!(next.starts_with(&format!("{}/v3/project/volumes/detail?", cloud.url)), "{next}");
    answer = cloud.get(next.split_once("/v3").unwrap().1).await;
    assert_eq!(names(&answer.body, "volumes"), ["c"]);
    assert_eq!(answer.body.get("volumes_links"), None);
    assert_eq!(answer.text("/volumes/0/volume_type"), "__DEFAULT__");

    for (query, words) in [
        ("limit=x", "limit param must be an integer"),
        ("sort=colour", "Invalid input received: Invalid sort key"),
        ("colour=red", "Invalid filters colour are found in query options."),
        ("bootable=maybe", "Invalid input received: 'bootable = maybe'"),
        ("metadata=x", "metadata must be a dictionary"),
    ] {
        let message = cloud.get(&format!("/volumes?{query}")).await.fault(400, "badRequest");
        assert!(message.contains(words), "{query}: {message}");
    }
    let unknown = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11";
    cloud.get(&format!("/volumes?marker={unknown}")).await.fault(404, "itemNotFound");
    cloud.get(&format!("/volumes?size=1&marker={unknown}")).await.fault(404, "itemNotFound");

    let summary = cloud.get("/volumes/summary").await.body["volume-summary"].clone();
    assert_eq!((&summary["total_count"], &summary["total_size"]), (&json!(3), &json!(6)));
    assert_eq!(summary["metadata"]["of"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn snapshots_are_paged_sorted_and_filtered() {
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    for name in ["a", "b", "c"] {
        let body = json!({"snapshot": {"volume_id": volume, "name": name, "metadata": {"of": name}}});
        assert_eq!(cloud.post("/snapshots", body).await.status, 202);
    }
    let list = async |query: &str| names(&cloud.get(&format!("/snapshots{query}")).await.body, "snapshots");
    assert_eq!(list("?sort=name:asc").await, ["a", "b", "c"]);
    assert_eq!(list("?sort=name:desc&limit=2").await, ["c", "b"]);
    assert_eq!(list("?name=b").await, ["b"]);
    assert_eq!(list("?metadata=%7B%22of%22%3A%22c%22%7D").await, ["c"]);
    assert_eq!(list(&format!("?volume_id={volume}&limit=1")).await.len(), 1);
    assert_eq!(list("?all_tenants=1").await.len(), 3);
    let answer = cloud.get("/snapshots/detail?limit=2&with_count=1").await;
    assert_eq!(answer.body["count"], 3);
    let next = answer.text("/snapshots_links/0/href");
    let rest = cloud.get(next.split_once("/v3").unwrap().1).await;
    assert_eq!(rest.body["snapshots"].as_array().map(Vec::len), Some(1), "{next}: {rest:?}");
    cloud.get("/snapshots?colour=red").await.fault(400, "badRequest");
    cloud.get("/snapshots?sort=colour").await.fault(400, "badRequest");
}

#[tokio::test]
async fn the_smaller_collections() {
    let cloud = Cloud::start().await;
    cloud.volume(2).await;
    let absolute = cloud.get("/limits").await.body["limits"]["absolute"].clone();
    assert_eq!((&absolute["maxTotalVolumes"], &absolute["totalGigabytesUsed"]), (&json!(10), &json!(2)));
    let other = cloud.get("/limits?project_id=elsewhere").await;
    assert_eq!(other.body["limits"]["absolute"]["totalVolumesUsed"], 0);

    let set = cloud.get("/os-quota-sets/project?usage=True").await.body["quota_set"].clone();
    assert_eq!(set["volumes"], json!({"limit": 10, "in_use": 1, "reserved": 0}));
    let set = cloud.get("/project/os-quota-sets/project").await.body["quota_set"].clone();
    assert_eq!((&set["id"], &set["gigabytes"]), (&json!("project"), &json!(1000)));
    assert_eq!(cloud.get("/os-quota-sets/project/defaults").await.body["quota_set"]["snapshots"], 10);

    let types = cloud.get("/types").await.body["volume_types"].clone();
    let id = types[0]["id"].as_str().unwrap();
    assert_eq!(types[0]["name"], "__DEFAULT__");
    assert_eq!(cloud.get("/types/default").await.text("/volume_type/id"), id);
    assert_eq!(cloud.get(&format!("/types/{id}/extra_specs")).await.body, json!({"extra_specs": {}}));
    let message = cloud.get("/types/none").await.fault(404, "itemNotFound");
    assert_eq!(message, "Volume type none could not be found.");

    assert_eq!(cloud.get("/extensions").await.body, json!({"extensions": []}));
    assert_eq!(cloud.get("/os-availability-zone").await.text("/availabilityZoneInfo/0/zoneName"), "nova");
}

#[tokio::test]
async fn services_are_listed_and_switched() {
    let cloud = Cloud::deserted().await;
    let show = async || cloud.get("/os-services?binary=cinder-volume").await.body["services"][0].clone();
    let service = show().await;
    assert_eq!((&service["host"], &service["state"]), (&json!("alone@store"), &json!("up")));
    assert_eq!(service["status"], "enabled");
    let body = json!({"host": "alone@store", "binary": "cinder-volume", "disabled_reason": "moving"});
    let answer = cloud.call("PUT", "/os-services/disable-log-reason", Some(body.clone())).await;
    assert_eq!(answer.body["status"], "disabled", "{answer:?}");
    assert_eq!(show().await["disabled_reason"], "moving");
    cloud.call("PUT", "/os-services/enable", Some(body)).await;
    assert_eq!(show().await["status"], "enabled");
    let unknown = json!({"host": "nobody", "binary": "cinder-volume"});
    cloud.call("PUT", "/os-services/disable", Some(unknown)).await.fault(404, "itemNotFound");
    cloud.call("PUT", "/os-services/disable", Some(json!({}))).await.fault(400, "badRequest");
}
