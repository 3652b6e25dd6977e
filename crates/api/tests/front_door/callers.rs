//! Versions, tokens, projects, and bodies that are none.

use reqwest::Client;
use serde_json::json;

use crate::common::{Answer, Cloud};

#[tokio::test]
async fn clients_discover_the_versions_without_a_token() {
    let cloud = Cloud::deserted().await;
    for (path, status) in [("/", 300), ("/v3", 200), ("/v3/", 200)] {
        let answer = Answer::of(Client::new().get(format!("{}{path}", cloud.url))).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.body["versions"][0]["version"], "3.71");
        assert_eq!(answer.text("/versions/0/links/1/href"), format!("{}/v3/", cloud.url));
    }
}

#[tokio::test]
async fn every_answer_carries_its_version_and_its_request() {
    let cloud = Cloud::deserted().await;
    for path in ["/volumes", "/volumes/none"] {
        let answer = cloud.call_as("GET", path, None, "3.27", "tester:project").await;
        assert_eq!(answer.headers["openstack-api-version"], "volume 3.27");
        assert_eq!(answer.headers["vary"], "OpenStack-API-Version");
        let id = answer.headers["x-openstack-request-id"].to_str().unwrap();
        assert!(id.starts_with("req-") && answer.headers["x-compute-request-id"] == id, "{id}");
    }
    let answer = cloud.call_as("GET", "/volumes", None, "3.99", "tester:project").await;
    assert!(answer.fault(406, "computeFault").starts_with("Version 3.99 is not supported by the API."));
    let answer = cloud.call_as("GET", "/volumes", None, "new", "tester:project").await;
    assert!(answer.fault(400, "badRequest").starts_with("API Version String new"));
}

#[tokio::test]
async fn who_says_who_it_is_without_a_token_gets_one() {
    let cloud = Cloud::deserted().await;
    let ask = async |headers: &[(&str, &str)]| {
        let request = Client::new().get(format!("{}/v3/", cloud.url));
        Answer::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    };
    let greeted = ask(&[("X-Auth-User", "tester"), ("X-Auth-Project-Id", "project"), ("X-Auth-Key", "x")]).await;
    assert_eq!((greeted.status.as_u16(), &greeted.headers["x-auth-token"]), (204, &"tester:project".parse().unwrap()));
    assert_eq!(greeted.headers["x-server-management-url"], format!("{}/v3", cloud.url).as_str());
    assert_eq!(ask(&[("X-Auth-User", "tester")]).await.headers["x-auth-token"], "tester:admin");
    // One who has a token, or says nothing, is served.
    assert_eq!(ask(&[("X-Auth-User", "tester"), ("X-Auth-Token", "tester:project")]).await.status, 200);
    assert_eq!(ask(&[]).await.status, 200);

    let strict = Cloud::with(|door| door.token = Some("s3cret".to_owned().into())).await;
    let request = Client::new().get(format!("{}/v3/volumes", strict.url)).header("X-Auth-User", "tester");
    assert_eq!(Answer::of(request).await.status, 401, "a fixed token is given to nobody");
}

#[tokio::test]
async fn projects_come_from_token_or_address_and_must_agree() {
    let cloud = Cloud::start().await;
    let id = cloud.volume(1).await;
    let count = async |path: &str, token: &str| {
        let answer = cloud.call_as("GET", path, None, "3.71", token).await;
        answer.body["volumes"].as_array().map(Vec::len)
    };
    assert_eq!(count("/volumes", "tester:project").await, Some(1));
    assert_eq!(count("/project/volumes", "tester:project").await, Some(1));
    assert_eq!(count("/project/volumes", "anything").await, Some(1));
    assert_eq!(count("/volumes", "other:elsewhere").await, Some(0));
    assert_eq!(count("/volumes?all_tenants=1", "other:elsewhere").await, Some(1));

    let answer = cloud.call_as("GET", "/project/volumes", None, "3.71", "tester:elsewhere").await;
    assert_eq!(answer.fault(400, "badRequest"), "Malformed request url");
    let long = format!("tester:{}", "x".repeat(256));
    cloud.call_as("GET", "/volumes", None, "3.71", &long).await.fault(400, "badRequest");
    cloud.get("/volumes?id=..%2F..").await.fault(400, "badRequest");
    let links = cloud.get(&format!("/project/volumes/{id}")).await.text("/volume/links/0/href");
    assert_eq!(links, format!("{}/v3/project/volumes/{id}", cloud.url));
    let links = cloud.get(&format!("/volumes/{id}")).await.text("/volume/links/0/href");
    assert_eq!(links, format!("{}/v3/volumes/{id}", cloud.url));

    let nobody = Answer::of(Client::new().get(format!("{}/v3/project/volumes", cloud.url))).await;
    assert_eq!(nobody.body["volumes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn with_a_token_configured_nobody_else_comes_in() {
    let cloud = Cloud::with(|door| door.token = Some("s3cret".to_owned().into())).await;
    for token in ["", "s3cre", "s3cret2", "tester:project"] {
        let answer = cloud.call_as("GET", "/volumes", None, "3.71", token).await;
        answer.fault(401, "unauthorized");
    }
    assert_eq!(cloud.call_as("GET", "/project/volumes", None, "3.71", "s3cret").await.status, 200);
    assert_eq!(Answer::of(Client::new().get(format!("{}/v3/", cloud.url))).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let cloud = Cloud::deserted().await;
    let post = |body: &'static str, media: &str| {
        let request = Client::new().post(format!("{}/v3/volumes", cloud.url)).body(body);
        Answer::of(request.header("Content-Type", media))
    };
    for body in ["", "{", "[]", "null", "\"volume\""] {
        assert_eq!(post(body, "application/json").await.fault(400, "badRequest"), "Malformed request body", "{body}");
    }
    post("a=b", "application/x-www-form-urlencoded").await.fault(415, "badMediaType");
    let large = json!({"volume": {"size": 1, "description": "x".repeat(200_000)}});
    cloud.post("/volumes", large).await.fault(413, "overLimit");
}

#[tokio::test]
async fn addresses_that_there_are_not() {
    let cloud = Cloud::deserted().await;
    for (method, path) in [
        ("GET", "/backups"),
        ("GET", "/project/nothing"),
        ("PATCH", "/volumes/x"),
        ("GET", "/volumes/x/y/z"),
        ("GET", "/volumes/..%2F..%2Fetc"),
    ] {
        cloud.call(method, path, None).await.fault(404, "itemNotFound");
    }
    let answer = cloud.call_as("GET", "/attachments", None, "3.26", "tester:project").await;
    answer.fault(404, "itemNotFound");
    let answer = cloud.call_as("GET", "/volumes/summary", None, "3.11", "tester:project").await;
    answer.fault(404, "itemNotFound");
}
