//! A fake Keystone and a fake Nova on one port, which tell what they were asked.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use scoria_compute::{Auth, Domain, Interface, Options, Scope, User};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) const PASSWORD: &str = "s3cret-pass'word";

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// How they answer from now on.
#[derive(Debug)]
pub(crate) struct Script {
    /// How long a token lives.
    pub(crate) token_life: time::Duration,
    pub(crate) login_takes: Duration,
    /// With a message that quotes the password, if it is no success.
    pub(crate) login_status: u16,
    /// In place of Nova at this server.
    pub(crate) catalog: Option<Value>,
    pub(crate) nova_status: u16,
    /// Tokens up to this number are refused.
    pub(crate) revoked: usize,
}

#[derive(Debug)]
struct Inner {
    url: String,
    script: Script,
    asked: Vec<Asked>,
    issued: usize,
}

/// Stops when it is dropped.
#[derive(Debug)]
pub(crate) struct FakeCloud {
    inner: Arc<Mutex<Inner>>,
    _server: JoinSet<()>,
}

impl FakeCloud {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(listener, url)
    }

    pub(crate) fn serve(listener: impl Listener<Addr = SocketAddr>, url: String) -> Self {
        let script = Script {
            token_life: time::Duration::HOUR,
            login_takes: Duration::ZERO,
            login_status: 201,
            catalog: None,
            nova_status: 200,
            revoked: 0,
        };
        let inner = Arc::new(Mutex::new(Inner { url, script, asked: Vec::new(), issued: 0 }));
        let router = Router::new().fallback(answer).with_state(inner.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { inner, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        self.lock().url.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.lock().script);
    }

    /// What Keystone was asked.
    pub(crate) fn logins(&self) -> Vec<Asked> {
        self.lock().asked.iter().filter(|asked| is_login(&asked.uri)).cloned().collect()
    }

    /// What Nova was asked.
    pub(crate) fn calls(&self) -> Vec<Asked> {
        self.lock().asked.iter().filter(|asked| asked.uri.path().contains("os-assisted")).cloned().collect()
    }

    /// The usual user, who asks here.
    pub(crate) fn options(&self) -> Options {
        let domain = || Domain::Name("Default".to_owned());
        options(Auth::Password {
            auth_url: self.url(),
            user: User::Named { name: "cinder".to_owned(), domain: domain() },
            password: PASSWORD.into(),
            scope: Some(Scope::Project { name: "service".to_owned(), domain: domain() }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

/// These and nothing special.
pub(crate) fn options(auth: Auth) -> Options {
    Options {
        auth,
        region_name: None,
        interface: Interface::Public,
        cafile: None,
        certfile: None,
        keyfile: None,
        insecure: false,
        timeout: Some(Duration::from_secs(20)),
    }
}

fn is_login(uri: &Uri) -> bool {
    uri.path().ends_with("/v3/auth/tokens")
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let login_takes = {
        let mut inner = inner.lock().unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        inner.asked.push(Asked { method, uri: uri.clone(), headers: headers.clone(), body });
        inner.script.login_takes
    };
    if is_login(&uri) {
        tokio::time::sleep(login_takes).await;
        return log_in(&mut inner.lock().unwrap());
    }
    if uri.path().starts_with("/v2.1/") {
        return nova(&inner.lock().unwrap(), &headers);
    }
    StatusCode::NOT_FOUND.into_response()
}

fn log_in(inner: &mut Inner) -> Response {
    let script = &inner.script;
    let status = StatusCode::from_u16(script.login_status).unwrap();
    if !status.is_success() {
        let body = json!({ "error": { "message": format!("'{PASSWORD}' is not what is wanted"), "title": "No" } });
        return (status, body.to_string()).into_response();
    }
    let url = format!("{}/v2.1", inner.url);
    let endpoint = json!({ "interface": "public", "region_id": "RegionOne", "region": "RegionOne", "url": url });
    let nova = json!([{ "type": "compute", "name": "nova", "id": "n", "endpoints": [endpoint] }]);
    let expires_at = (OffsetDateTime::now_utc() + script.token_life).format(&Rfc3339).unwrap();
    let token = json!({ "token": {
        "methods": ["password"],
        "user": { "id": "u", "name": "cinder", "domain": { "id": "default", "name": "Default" } },
        "expires_at": expires_at,
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "catalog": script.catalog.clone().unwrap_or(nova),
    } });
    inner.issued += 1;
    (status, [("X-Subject-Token", format!("token-{}", inner.issued))], token.to_string()).into_response()
}

fn nova(inner: &Inner, headers: &HeaderMap) -> Response {
    let token = headers.get("X-Auth-Token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    let number = token.strip_prefix("token-").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
    let status = if number <= inner.script.revoked { 401 } else { inner.script.nova_status };
    let body = match status {
        200..300 => json!({ "snapshot": { "id": 1, "volumeId": "v" } }),
        _ => json!({ "someFault": { "code": status, "message": "Nova's own words" } }),
    };
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}
