//! Requests to Nova (`novaclient/v2/assisted_volume_snapshots.py`).

use std::sync::Arc;

use async_trait::async_trait;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::Compute;
use crate::error::Error;
use crate::http::{self, Failure, refusal, shown, shown_text};
use crate::identity::{Identity, Session};
use crate::options::{Auth, Options};
use crate::token_request::{by_application_credential, by_password};

/// The version of Nova's API that Cinder speaks (`cinder/compute/nova.py: NOVA_API_VERSION`).
const VERSION: &str = "2.1";
/// What keystoneauth says where no token is wanted (`keystoneauth1/noauth.py`); Nova's own `noauth` wants the header.
const NO_TOKEN: &str = "notused";
const SNAPSHOTS: &str = "os-assisted-volume-snapshots";

/// Nova over HTTP. `Debug` shows no secret.
#[derive(Debug)]
pub struct Nova {
    http: Client,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Keystone(Box<Identity>),
    Fixed(Arc<Session>),
}

/// A request, whichever endpoint it goes to.
struct Request<'a> {
    method: Method,
    /// What follows in the path of [`SNAPSHOTS`].
    id: Option<&'a str>,
    query: Option<String>,
    body: Option<Value>,
    request_id: Option<&'a str>,
}

impl Nova {
    /// Reads the certificates; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL, a file or a set of options that cannot be.
    pub fn new(options: Options) -> Result<Self, Error> {
        let http = http::client(&options)?;
        let (auth_url, request, secret) = match &options.auth {
            Auth::Password { auth_url, user, password, scope } => {
                (auth_url, by_password(user, password, scope.as_ref()), password)
            }
            Auth::ApplicationCredential { auth_url, credential, secret } => {
                (auth_url, by_application_credential(credential, secret), secret)
            }
            Auth::None { endpoint } => {
                let url = http::parse(endpoint)
                    .map_err(|why| Error::Config(format!("endpoint = {}: it {why}", shown_text(endpoint))))?;
                let token = HeaderValue::from_static(NO_TOKEN);
                let session = Session { token, endpoint: url, expires_at: None };
                return Ok(Self { http, access: Access::Fixed(Arc::new(session)) });
            }
        };
        let identity = Identity::new(http.clone(), auth_url, &request, secret, &options)?;
        Ok(Self { http, access: Access::Keystone(Box::new(identity)) })
    }

    async fn ask(&self, request: Request<'_>) -> Result<(), Error> {
        let session = match &self.access {
            Access::Fixed(session) => session.clone(),
            Access::Keystone(identity) => identity.session(None).await?,
        };
        let mut url = request.url(&session.endpoint);
        let mut response = self.send(&session, &url, &request).await?;
        // The token was revoked, or Keystone has changed its keys.
        if response.status() == StatusCode::UNAUTHORIZED
            && let Access::Keystone(identity) = &self.access
        {
            let session = identity.session(Some(&session)).await?;
            url = request.url(&session.endpoint);
            response = self.send(&session, &url, &request).await?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let text = format!("Nova at {} {}", shown(&url), refusal(response).await);
        Err(match status {
            StatusCode::FORBIDDEN => {
                Error::NotDone(format!("{text}; the user needs a role that Nova's policy of {SNAPSHOTS} lets in"))
            }
            StatusCode::SERVICE_UNAVAILABLE => Error::NotDone(text),
            // The fault may be in what came after the deed, or in a proxy before Nova.
            status if status.is_server_error() => Error::Unknown(text),
            _ => Error::NotDone(text),
        })
    }

    async fn send(&self, session: &Session, url: &Url, request: &Request<'_>) -> Result<Response, Error> {
        let mut sent = self
            .http
            .request(request.method.clone(), url.clone())
            .header("X-Auth-Token", session.token.clone())
            .header("Accept", "application/json")
            .header("OpenStack-API-Version", format!("compute {VERSION}"))
            .header("X-OpenStack-Nova-API-Version", VERSION);
        // It is for Nova's log only: one that cannot be sent keeps nothing from being done.
        if let Some(id) = request.request_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            sent = sent.header("X-OpenStack-Request-ID", id);
        }
        if let Some(body) = &request.body {
            sent = sent.json(body);
        }
        http::send(sent).await.map_err(|failure| match failure {
            Failure::Unsent(why) => Error::NotDone(format!("Nova at {}: {why}", shown(url))),
            Failure::Unanswered(why) => Error::Unknown(format!("Nova at {}: {why}", shown(url))),
        })
    }
}

impl Request<'_> {
    fn url(&self, endpoint: &Url) -> Url {
        let mut url = endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(SNAPSHOTS).extend(self.id);
        }
        url.set_query(self.query.as_deref());
        url
    }
}

#[async_trait]
impl Compute for Nova {
    async fn create_volume_snapshot(
        &self,
        request_id: Option<&str>,
        volume_id: &str,
        create_info: &Value,
    ) -> Result<(), Error> {
        let body = json!({ "snapshot": { "volume_id": volume_id, "create_info": create_info } });
        self.ask(Request { method: Method::POST, id: None, query: None, body: Some(body), request_id }).await
    }

    async fn delete_volume_snapshot(
        &self,
        request_id: Option<&str>,
        snapshot_id: &str,
        delete_info: &Value,
    ) -> Result<(), Error> {
        let delete_info = delete_info.to_string();
        // Everything but letters and digits: Nova reads '+' as a blank.
        let query = Some(format!("delete_info={}", utf8_percent_encode(&delete_info, NON_ALPHANUMERIC)));
        self.ask(Request { method: Method::DELETE, id: Some(snapshot_id), query, body: None, request_id }).await
    }
}
