//! What Nova is sent, and what its answers mean.

mod common {
    pub(crate) mod cloud;
}

use std::time::{Duration, Instant};

use common::cloud::{FakeCloud, options};
use scoria_compute::{Auth, Compute, Error, Nova, Options};
use scoria_testkit::free_port;
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn ask(nova: &Nova) -> Result<(), Error> {
    nova.create_volume_snapshot(None, "v", &json!({})).await
}

/// A client without tokens of whatever is at this URL, which waits for half a second.
fn without_token(endpoint: String) -> Nova {
    let timeout = Some(Duration::from_millis(500));
    Nova::new(Options { timeout, ..options(Auth::None { endpoint }) }).unwrap()
}

#[tokio::test]
async fn a_snapshot_is_asked_for() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(cloud.options()).unwrap();
    let create_info = json!({ "type": "qcow2", "new_file": "volume-1.é\"", "snapshot_id": "s" });
    nova.create_volume_snapshot(Some("req-1"), "v", &create_info).await.unwrap();
    let asked = cloud.calls().remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.to_string().as_str()), ("POST", "/v2.1/os-assisted-volume-snapshots"));
    assert_eq!(asked.body, json!({ "snapshot": { "volume_id": "v", "create_info": create_info } }));
    for (name, value) in [
        ("x-auth-token", "token-1"),
        ("x-openstack-request-id", "req-1"),
        ("openstack-api-version", "compute 2.1"),
        ("x-openstack-nova-api-version", "2.1"),
        ("user-agent", "scoria-volume"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(asked.headers[name], value, "{name}");
    }
    for odd in [None, Some("two\nlines")] {
        nova.create_volume_snapshot(odd, "v", &create_info).await.unwrap();
    }
    assert!(cloud.calls()[1..].iter().all(|asked| !asked.headers.contains_key("x-openstack-request-id")));
}

#[tokio::test]
async fn a_snapshot_is_deleted_with_everything_encoded() {
    let cloud = FakeCloud::start().await;
    cloud.change(|script| script.nova_status = 204);
    let nova = Nova::new(cloud.options()).unwrap();
    let delete_info = json!({ "file_to_merge": "a+b & \"c\" %41 #é😀", "merge_target_file": null, "type": "qcow2" });
    nova.delete_volume_snapshot(None, "../s?", &delete_info).await.unwrap();
    let asked = cloud.calls().remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.path()), ("DELETE", "/v2.1/os-assisted-volume-snapshots/..%2Fs%3F"));
    assert_eq!(asked.body, Value::Null);
    let query = asked.uri.query().unwrap();
    assert!(query.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%=_".contains(&byte)), "{query}");
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!((pairs.len(), &*pairs[0].0), (1, "delete_info"));
    assert_eq!(serde_json::from_str::<Value>(&pairs[0].1).unwrap(), delete_info);
}

#[tokio::test]
async fn without_a_token_it_says_what_keystoneauth_says() {
    let cloud = FakeCloud::start().await;
    ask(&without_token(format!("{}/v2.1/", cloud.url()))).await.unwrap();
    let asked = cloud.calls().remove(0);
    assert_eq!(asked.uri.path(), "/v2.1/os-assisted-volume-snapshots");
    assert_eq!(asked.headers["x-auth-token"], "notused");
    cloud.change(|script| script.nova_status = 401);
    let error = ask(&without_token(format!("{}/v2.1/", cloud.url()))).await.unwrap_err();
    assert!(matches!(error, Error::NotDone(_)) && cloud.calls().len() == 2, "{error:?}");
}

#[tokio::test]
async fn an_answer_says_whether_it_may_have_been_done() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(cloud.options()).unwrap();
    for status in [200, 202, 204] {
        cloud.change(|script| script.nova_status = status);
        ask(&nova).await.unwrap();
    }
    for (status, done) in [
        (302, Some(false)),
        (400, Some(false)),
        (403, Some(false)),
        (404, Some(false)),
        (409, Some(false)),
        (413, Some(false)),
        (429, Some(false)),
        (503, Some(false)),
        (500, None),
        (502, None),
        (504, None),
    ] {
        cloud.change(|script| script.nova_status = status);
        let error = ask(&nova).await.unwrap_err();
        let (unknown, why) = match &error {
            Error::NotDone(why) => (Some(false), why),
            Error::Unknown(why) => (None, why),
            Error::Config(why) => panic!("{why}"),
        };
        assert_eq!(unknown, done, "{error}");
        assert!(
            why.starts_with(&format!("Nova at {}/v2.1/os-assisted-volume-snapshots answers {status} ", cloud.url())),
            "{why}"
        );
        assert_eq!(why.contains("Nova's own words"), status != 302, "{why}");
        assert_eq!(why.contains("policy"), status == 403, "{why}");
    }
}

#[tokio::test]
async fn nobody_listening_is_not_done() {
    let error = ask(&without_token(format!("http://127.0.0.1:{}/v2.1", free_port().unwrap()))).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotDone(why) if why.contains("no connection") && why.contains("refused")),
        "{error:?}"
    );
}

/// It accepts what comes, says nothing, and keeps the connections open or closes them once there is a request.
async fn mute(closes: bool) -> (u16, tokio::task::JoinSet<()>) {
    use tokio::io::AsyncReadExt;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            if closes {
                let _ = connection.read(&mut [0; 4096]).await;
            } else {
                open.push(connection);
            }
        }
    });
    (port, server)
}

#[tokio::test]
async fn after_it_was_sent_nobody_knows() {
    let (port, _server) = mute(false).await;
    let started = Instant::now();
    let error = ask(&without_token(format!("http://127.0.0.1:{port}"))).await.unwrap_err();
    assert!(matches!(&error, Error::Unknown(why) if why.contains("no answer in time")), "{error:?}");
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&started.elapsed()));

    let (port, _server) = mute(true).await;
    let error = ask(&without_token(format!("http://127.0.0.1:{port}"))).await.unwrap_err();
    assert!(matches!(&error, Error::Unknown(why) if why.contains("no answer: ")), "{error:?}");
}

#[tokio::test]
async fn before_the_connection_stands_nothing_was_done() {
    // It takes the connection and never speaks TLS.
    let (port, _server) = mute(false).await;
    let error = ask(&without_token(format!("https://127.0.0.1:{port}"))).await.unwrap_err();
    assert!(matches!(&error, Error::NotDone(why) if why.contains("no connection")), "{error:?}");
}
