//! How tokens are asked for, kept and renewed.

mod common {
    pub(crate) mod cloud;
}

use std::time::{Duration, Instant};

use common::cloud::{FakeCloud, PASSWORD, options};
use futures_util::future::join_all;
use scoria_compute::{Auth, Compute, Credential, Domain, Error, Interface, Nova, Options, Scope, User};
use serde_json::{Value, json};

async fn ask(nova: &Nova) -> Result<(), Error> {
    nova.create_volume_snapshot(None, "v", &json!({})).await
}

fn domain(id: &str) -> Domain {
    Domain::Id(id.to_owned())
}

fn named(name: &str, domain: Domain) -> User {
    User::Named { name: name.to_owned(), domain }
}

/// What Keystone is asked by somebody.
async fn login(auth: impl FnOnce(String) -> Auth) -> Value {
    let cloud = FakeCloud::start().await;
    ask(&Nova::new(options(auth(cloud.url()))).unwrap()).await.unwrap();
    let asked = cloud.logins().remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.path()), ("POST", "/v3/auth/tokens"));
    assert_eq!(asked.headers["content-type"], "application/json");
    assert_eq!(asked.headers["user-agent"], "scoria-volume");
    asked.body
}

/// The bodies are what keystoneauth1 5.18.1 sends; a test of the service asks it (`crates/service/tests/nova.rs`).
#[tokio::test]
async fn requests_for_tokens_are_those_of_keystoneauth() {
    let by_password = |user: User, scope: Option<Scope>| {
        login(move |auth_url| Auth::Password { auth_url, user, password: PASSWORD.into(), scope })
    };
    let project = Scope::Project { name: "service".to_owned(), domain: Domain::Name("Default".to_owned()) };
    let body = by_password(named("cinder", domain("default")), Some(project)).await;
    let expected = json!({ "auth": {
        "identity": {
            "methods": ["password"],
            "password": { "user": { "password": PASSWORD, "name": "cinder", "domain": { "id": "default" } } },
        },
        "scope": { "project": { "name": "service", "domain": { "name": "Default" } } },
    } });
    assert_eq!(body, expected);
    let by_id = |scope| by_password(User::Id("u".to_owned()), scope);
    let body = by_id(None).await;
    let expected = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": { "password": PASSWORD, "id": "u" } } },
    } });
    assert_eq!(body, expected);
    let scopes = [
        (Scope::ProjectId("p".to_owned()), json!({ "project": { "id": "p" } })),
        (Scope::Domain(domain("d")), json!({ "domain": { "id": "d" } })),
        (Scope::Domain(Domain::Name("d".to_owned())), json!({ "domain": { "name": "d" } })),
        (Scope::System, json!({ "system": { "all": true } })),
    ];
    for (scope, expected) in scopes {
        assert_eq!(by_id(Some(scope)).await["auth"]["scope"], expected);
    }

    let by_credential = |credential| {
        login(move |auth_url| Auth::ApplicationCredential { auth_url, credential, secret: PASSWORD.into() })
    };
    let body = by_credential(Credential::Id("c".to_owned())).await;
    let expected = json!({ "auth": { "identity": {
        "methods": ["application_credential"],
        "application_credential": { "secret": PASSWORD, "id": "c" },
    } } });
    assert_eq!(body, expected);
    let credential = |user| Credential::Named { name: "c".to_owned(), user };
    let body = by_credential(credential(named("cinder", domain("default")))).await;
    let expected = json!({
        "secret": PASSWORD, "name": "c", "user": { "name": "cinder", "domain": { "id": "default" } },
    });
    assert_eq!(body["auth"]["identity"]["application_credential"], expected);
    let body = by_credential(credential(User::Id("u".to_owned()))).await;
    assert_eq!(body["auth"]["identity"]["application_credential"]["user"], json!({ "id": "u" }));
}

#[tokio::test]
async fn a_token_serves_until_shortly_before_its_end() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(cloud.options()).unwrap();
    assert!(cloud.logins().is_empty(), "nothing is sent before it is needed");
    for _ in 0..3 {
        ask(&nova).await.unwrap();
    }
    assert_eq!(cloud.logins().len(), 1);

    cloud.change(|script| script.token_life = time::Duration::seconds(29));
    let nova = Nova::new(cloud.options()).unwrap();
    for _ in 0..3 {
        ask(&nova).await.unwrap();
    }
    assert_eq!(cloud.logins().len(), 1 + 3);
    let tokens: Vec<_> =
        cloud.calls().iter().map(|call| call.headers["x-auth-token"].to_str().unwrap().to_owned()).collect();
    assert_eq!(tokens, ["token-1", "token-1", "token-1", "token-2", "token-3", "token-4"]);
}

#[tokio::test]
async fn twenty_at_once_share_a_token_and_its_renewal() {
    let cloud = FakeCloud::start().await;
    cloud.change(|script| script.login_takes = Duration::from_millis(200));
    let nova = Nova::new(cloud.options()).unwrap();
    for logins in [1, 2] {
        for result in join_all((0..20).map(|_| ask(&nova))).await {
            result.unwrap();
        }
        assert_eq!(cloud.logins().len(), logins);
        cloud.change(|script| script.revoked = 1);
    }
}

#[tokio::test]
async fn whoever_waited_for_a_try_that_failed_does_not_try_again() {
    let cloud = FakeCloud::start().await;
    cloud.change(|script| (script.login_takes, script.login_status) = (Duration::from_millis(300), 503));
    let nova = Nova::new(cloud.options()).unwrap();
    let started = Instant::now();
    for result in join_all((0..20).map(|_| ask(&nova))).await {
        assert!(matches!(result, Err(Error::NotDone(_))), "{result:?}");
    }
    assert_eq!(cloud.logins().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(3));

    cloud.change(|script| script.login_status = 201);
    ask(&nova).await.unwrap();
    assert!(cloud.calls().len() == 1 && cloud.logins().len() == 2);
}

#[tokio::test]
async fn a_try_that_is_given_up_leaves_room_for_the_next() {
    let cloud = FakeCloud::start().await;
    cloud.change(|script| script.login_takes = Duration::from_secs(3600));
    let nova = Nova::new(cloud.options()).unwrap();
    tokio::time::timeout(Duration::from_millis(300), ask(&nova)).await.unwrap_err();
    cloud.change(|script| script.login_takes = Duration::ZERO);
    ask(&nova).await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(cloud.options()).unwrap();
    ask(&nova).await.unwrap();
    cloud.change(|script| script.revoked = 1);
    ask(&nova).await.unwrap();
    assert_eq!((cloud.logins().len(), cloud.calls().len()), (2, 3));

    cloud.change(|script| script.revoked = 100);
    let error = ask(&nova).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotDone(why) if why.contains("401") && why.contains("Nova's own words")),
        "{error}"
    );
    assert_eq!((cloud.logins().len(), cloud.calls().len()), (3, 5));

    cloud.change(|script| script.login_status = 401);
    let error = ask(&nova).await.unwrap_err();
    assert!(matches!(&error, Error::NotDone(why) if why.contains("no token from Keystone")), "{error}");
}

#[tokio::test]
async fn whatever_keystone_does_nova_was_not_asked() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(Options { timeout: Some(Duration::from_millis(500)), ..cloud.options() }).unwrap();
    let text = |error: Error| match error {
        Error::NotDone(why) => why,
        other => panic!("{other:?}"),
    };
    let place = format!("no token from Keystone at {}/v3/auth/tokens: ", cloud.url());
    for (status, said) in [
        (401, "answers 401 Unauthorized: '***' is not what is wanted; are user, domains, secret and scope right?"),
        (404, "; is auth_url right?"),
        (500, "answers 500 Internal Server Error"),
        (502, "answers 502 Bad Gateway"),
    ] {
        cloud.change(|script| script.login_status = status);
        let why = text(ask(&nova).await.unwrap_err());
        assert!(why.starts_with(&place) && why.contains(said), "{why}");
    }
    cloud.change(|script| (script.login_status, script.login_takes) = (201, Duration::from_secs(3600)));
    let why = text(ask(&nova).await.unwrap_err());
    assert_eq!(why, format!("{place}no answer in time, option timeout"));
    assert!(cloud.calls().is_empty());
}

#[tokio::test]
async fn the_catalog_names_the_endpoint_by_region_and_interface() {
    let (cloud, two) = (FakeCloud::start().await, FakeCloud::start().await);
    let endpoint = |interface: &str, region: &str, cloud: &FakeCloud| json!({ "interface": interface, "region_id": region, "region": region, "url": format!("{}/v2.1/", cloud.url()) });
    let endpoints =
        [endpoint("public", "one", &cloud), endpoint("public", "two", &two), endpoint("internal", "two", &cloud)];
    cloud.change(|script| script.catalog = Some(json!([{ "type": "compute", "endpoints": endpoints }])));
    let choose = |region: Option<&str>, interface| {
        Nova::new(Options { region_name: region.map(str::to_owned), interface, ..cloud.options() }).unwrap()
    };
    let counts = || (cloud.calls().len(), two.calls().len());
    ask(&choose(None, Interface::Public)).await.unwrap();
    assert_eq!(counts(), (1, 0));
    ask(&choose(Some("two"), Interface::Public)).await.unwrap();
    assert_eq!(counts(), (1, 1));
    ask(&choose(Some("two"), Interface::Internal)).await.unwrap();
    assert_eq!(counts(), (2, 1));
    let error = ask(&choose(Some("one"), Interface::Admin)).await.unwrap_err();
    let Error::NotDone(why) = error else { panic!("{error:?}") };
    assert!(why.contains("no endpoint of service type compute, interface admin and region one"), "{why}");
    assert!(why.contains(&format!("internal in two at {}/v2.1/", cloud.url())), "{why}");
}

#[tokio::test]
async fn secrets_are_in_no_text() {
    let cloud = FakeCloud::start().await;
    let nova = Nova::new(cloud.options()).unwrap();
    ask(&nova).await.unwrap();
    let mut seen = format!("{nova:?} {:?}", cloud.options());
    let credential = Auth::ApplicationCredential {
        auth_url: cloud.url(),
        credential: Credential::Id("c".to_owned()),
        secret: PASSWORD.into(),
    };
    seen.push_str(&format!("{credential:?} {:?}", Nova::new(options(credential.clone())).unwrap()));
    for status in [400, 401, 500] {
        cloud.change(|script| script.login_status = status);
        seen.push_str(&ask(&Nova::new(cloud.options()).unwrap()).await.unwrap_err().to_string());
    }
    for url in ["http://cinder:s3cret@h", "http://cinder:s3cret@h:port", "cinder:s3cret@h"] {
        let auth = Auth::None { endpoint: url.to_owned() };
        seen.push_str(&Nova::new(options(auth)).unwrap_err().to_string());
        let auth = Auth::Password {
            auth_url: url.to_owned(),
            user: User::Id("u".to_owned()),
            password: PASSWORD.into(),
            scope: None,
        };
        seen.push_str(&Nova::new(options(auth)).unwrap_err().to_string());
    }
    assert!(seen.contains("[nova] endpoint = http://h/: it must not contain a user"), "{seen}");
    assert!(!seen.contains("s3cret") && !seen.contains("token-1"), "{seen}");
}
