//! From `[nova]` to what Keystone and Nova are asked: the same as Cinder's own client makes of the same file.

#[path = "../../compute/tests/common/cloud.rs"]
mod cloud;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cloud::{Asked, FakeCloud};
use scoria_conf::{Config, LoadArgs, Source};
use scoria_service::parts;
use scoria_testkit::PythonPeer;
use serde_json::{Value, json};

/// A file with these lines in `[nova]`.
fn written(dir: &Path, lines: &str) -> PathBuf {
    let file = dir.join("cinder.conf");
    let text = format!("[DEFAULT]\nenabled_backends = one\n[one]\nvolume_driver = local\n[nova]\n{lines}\n");
    std::fs::write(&file, text).unwrap();
    file
}

fn read(file: PathBuf) -> Config {
    Config::load(&LoadArgs { sources: vec![Source::File(file)], ..LoadArgs::default() }).unwrap()
}

/// What counts of a request to Nova.
fn essence(asked: &Asked) -> Value {
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    // Python leaves the encoding to the HTTP library, which cannot know of '&' and '+' in a value.
    let query = asked.uri.query().unwrap_or_default();
    let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), serde_json::from_str::<Value>(&value).unwrap()))
        .collect();
    json!({
        "method": asked.method.as_str(),
        "path": asked.uri.path(),
        "query": query,
        "body": asked.body,
        "token": header("X-Auth-Token"),
        "request": header("X-OpenStack-Request-ID"),
        "version": header("X-OpenStack-Nova-API-Version"),
    })
}

const REQUEST: &str = "req-7ad0f8f5-1c1e-4f0c-8f0e-4d4b3ad6a201";

/// Both ask a cloud of their own, by the same options.
async fn compared(lines: &str) {
    let dir = tempfile::tempdir().unwrap();
    let create_info = json!({ "type": "qcow2", "new_file": "volume-é.\"1\"", "snapshot_id": "s" });
    let delete_info = json!({ "file_to_merge": null, "merge_target_file": "a \"b\" é", "volume_id": "v" });
    let clouds = [FakeCloud::start().await, FakeCloud::start().await];
    let file = |cloud: &FakeCloud| written(dir.path(), &lines.replace("URL", &cloud.url()));

    let nova = parts::compute(&read(file(&clouds[0]))).unwrap().unwrap();
    nova.create_volume_snapshot(Some(REQUEST), "v", &create_info).await.unwrap();
    nova.delete_volume_snapshot(Some(REQUEST), "s", &delete_info).await.unwrap();

    let file = file(&clouds[1]).display().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nova_peer.py");
    for (action, id, info) in
        [("create_volume_snapshot", "v", &create_info), ("delete_volume_snapshot", "s", &delete_info)]
    {
        let arguments = [file.as_str(), action, id, &info.to_string()];
        let said = PythonPeer::find().unwrap().run(&script, &arguments, Duration::from_secs(120)).await.unwrap();
        assert_eq!(said, "done", "{lines}");
    }

    let logins = clouds.each_ref().map(|cloud| cloud.logins().into_iter().map(|asked| asked.body).collect::<Vec<_>>());
    // Python makes a new client each time.
    assert_eq!(logins[0].first(), logins[1].first(), "{lines}");
    assert_eq!(logins[1].first(), logins[1].last());
    let [ours, theirs] = clouds.each_ref().map(|cloud| cloud.calls().iter().map(essence).collect::<Vec<_>>());
    let untold = |mut asked: Value| {
        // Each of Python's clients has a token of its own, with the next number.
        asked["token"] = asked["token"].as_str().unwrap().split('-').next().unwrap().into();
        asked
    };
    assert_eq!(ours.len(), 2);
    let [ours, theirs] = [ours, theirs].map(|all| all.into_iter().map(untold).collect::<Vec<_>>());
    assert_eq!(ours, theirs, "{lines}");
}

const USER: &str = "auth_url = URL/v3\nusername = cinder\npassword = pass'word\"é$$1\n";

#[tokio::test]
async fn a_password_in_a_project() {
    let names = "user_domain_name = Default\nproject_name = service\nproject_domain_name = Default\n";
    compared(&format!("auth_type = password\n{USER}{names}region_name = RegionOne\n")).await;
}

#[tokio::test]
async fn ids_and_defaults_go_before_names() {
    let names = "user_domain_name = Default\nproject_name = service\nproject_domain_id = p\ndefault_domain_id = d\n";
    compared(&format!("auth_plugin = password\n{USER}{names}")).await;
    compared(&format!("auth_type = password\n{USER}user_id = u\ntenant-id = p\ndefault_domain_name = d\n")).await;
    let names =
        "user_domain_id = d\nproject_name = service\nproject_domain_name = d\nproject_id = p\ndefault_domain_id = e\n";
    compared(&format!("auth_type = v3password\n{USER}{names}interface = public\ntimeout = 30\n")).await;
}

#[tokio::test]
async fn the_system_and_a_domain() {
    compared(&format!("auth_type = v3password\n{USER}user_domain_id = d\nsystem_scope = all\n")).await;
    compared(&format!("auth_type = password\n{USER}user_domain_id = d\ndomain_name = x\ndomain_id = y\n")).await;
}

#[tokio::test]
async fn an_application_credential() {
    let secret = "auth_type = v3applicationcredential\nauth_url = URL/v3\napplication_credential_secret = s\n";
    compared(&format!("{secret}application_credential_id = c\n")).await;
    let user = "username = cinder\nuser_domain_name = Default\n";
    compared(&format!("{secret}application_credential_name = c\n{user}")).await;
}

#[tokio::test]
async fn nothing_but_a_url() {
    compared("auth_type = none\nendpoint = URL/v2.1\n").await;
}

#[test]
fn nova_is_asked_only_if_there_is_somebody_to_ask_it() {
    let dir = tempfile::tempdir().unwrap();
    let compute = |lines: &str| parts::compute(&read(written(dir.path(), lines)));
    assert!(compute("").unwrap().is_none());
    assert!(compute("auth_type =\nauth_url = http://h\n").unwrap().is_none());
    assert!(compute("auth_type = none\nendpoint_override = http://h\n").unwrap().is_some());
    let error = compute("auth_type = none\nendpoint = http://h\ncafile = /nonexistent\n").unwrap_err().to_string();
    assert!(error.starts_with("[nova] cafile = /nonexistent: "), "{error}");
    let user = "username = u\nuser_domain_id = d\npassword = s3cret\n";
    let error = compute(&format!("auth_type = password\nauth_url = http://h/v2.0\n{user}")).unwrap_err().to_string();
    assert!(error.starts_with("[nova] auth_url = http://h/v2.0: ") && error.contains("/v3"), "{error}");
}
