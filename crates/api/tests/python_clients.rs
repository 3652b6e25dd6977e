//! Unmodified python-cinderclient (command line and library) and openstacksdk against the front door.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::Cloud;
use scoria_testkit::PythonPeer;
use serde_json::{Value, json};
use tokio::process::Command;

async fn run(cloud: &Cloud, script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let peer = PythonPeer::find().unwrap();
    let arguments = [&[cloud.url.as_str()], arguments].concat();
    let done = peer.run(&script, &arguments, Duration::from_secs(240)).await.unwrap();
    assert_eq!(done, json!("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_cinderclient_as_a_library() {
    run(&Cloud::start().await, "library.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstacksdk_without_authentication() {
    run(&Cloud::start().await, "sdk.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstacksdk_with_a_fixed_token() {
    let cloud = Cloud::with(|door| door.token = Some("s3cret".to_owned().into())).await;
    cloud.serve_volumes().await;
    run(&cloud, "sdk.py", &["s3cret"]).await;
}

/// The fields of an answer, without those that extensions add to Cinder's own views.
fn fields(view: &Value) -> Vec<String> {
    let view = view.as_object().unwrap_or_else(|| panic!("{view}"));
    view.keys().filter(|key| !key.contains(':')).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_microversion_has_the_fields_that_cinder_s_views_have() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/views.py");
    let peer = PythonPeer::find().unwrap();
    let expected = peer.run::<&str>(&script, &[], Duration::from_secs(120)).await.unwrap();
    let cloud = Cloud::start().await;
    let volume = cloud.volume(1).await;
    let snapshot = cloud.snapshot(&volume).await;
    for (collection, key, id) in [("volumes", "volume", &volume), ("snapshots", "snapshot", &snapshot)] {
        let versions = expected[collection].as_array().unwrap();
        assert_eq!(versions.len(), 72);
        for (minor, expected) in versions.iter().enumerate() {
            let path = format!("/{collection}/{id}");
            let answer = cloud.call_as("GET", &path, None, &format!("3.{minor}"), "tester:project").await;
            assert_eq!(json!(fields(&answer.body[key])), *expected, "{key} in 3.{minor}");
        }
    }
    let body = json!({"attachment": {"volume_uuid": volume}});
    let answer = cloud.post("/attachments", body).await;
    assert_eq!(json!(fields(&answer.body["attachment"])), expected["attachments"]);
}

/// The `cinder` command with `arguments`; its output, or what it complained of.
async fn cinder(cloud: &Cloud, arguments: &[&str]) -> Result<String, String> {
    let endpoint = format!("{}/v3", cloud.url);
    let project = ["--os-project-id", "project", "--os-volume-api-version", "3.71"];
    let login = ["--os-auth-type", "noauth", "--os-user-id", "tester", "--os-endpoint", &endpoint];
    let mut command = Command::new(PythonPeer::find().unwrap().bin("cinder"));
    command.args(login).args(project).args(arguments).env_clear().kill_on_drop(true);
    let out = command.output().await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.success() { Ok(stdout.into_owned()) } else { Err(format!("{stdout}{stderr}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_cinderclient_on_the_command_line() {
    let cloud = Cloud::start().await;
    let out = cinder(&cloud, &["create", "2", "--name", "data", "--poll"]).await.unwrap();
    assert!(out.contains("data"), "{out}");
    let out = cinder(&cloud, &["list"]).await.unwrap();
    assert!(out.contains("available") && out.contains("__DEFAULT__"), "{out}");
    let out = cinder(&cloud, &["snapshot-create", "data", "--name", "shot"]).await.unwrap();
    assert!(out.contains("shot"), "{out}");
    let refused = cinder(&cloud, &["delete", "data"]).await.unwrap_err();
    assert!(refused.contains("have snapshots"), "{refused}");
    cinder(&cloud, &["extend", "data", "3"]).await.unwrap();
    let out = cinder(&cloud, &["service-list"]).await.unwrap();
    assert!(out.contains("alone@store"), "{out}");
    let out = cinder(&cloud, &["absolute-limits"]).await.unwrap();
    assert!(out.contains("maxTotalVolumes"), "{out}");
    let out = cinder(&cloud, &["quota-update", "elsewhere", "--volumes", "3"]).await.unwrap();
    assert!(out.contains("volumes") && out.contains(" 3 "), "{out}");
    cinder(&cloud, &["delete", "data", "--cascade"]).await.unwrap();
    let out = cinder(&cloud, &["list"]).await.unwrap();
    assert!(!out.contains("available"), "{out}");
}
