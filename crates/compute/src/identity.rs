//! Tokens of Keystone's identity API v3 (`keystoneauth1/identity/v3/base.py`).

use std::sync::Arc;
use std::time::Instant;

use reqwest::Client;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use url::Url;

use crate::catalog::{self, Service};
use crate::error::Error;
use crate::http::{self, refusal, shown, shown_text};
use crate::options::{Interface, Options};

/// How long before its end a token is not used any more (`keystoneauth1/access/access.py: STALE_TOKEN_DURATION`).
const STALE: Duration = Duration::seconds(30);

/// What a request to Nova needs.
#[derive(Debug)]
pub(crate) struct Session {
    /// `X-Auth-Token`; not shown by `Debug`.
    pub(crate) token: HeaderValue,
    /// Nova's URL.
    pub(crate) endpoint: Url,
    /// `None`: for ever.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl Session {
    fn is_good(&self) -> bool {
        self.expires_at.is_none_or(|end| OffsetDateTime::now_utc() + STALE < end)
    }
}

/// One user's sessions, one at a time.
#[derive(Debug)]
pub(crate) struct Identity {
    http: Client,
    /// `…/v3/auth/tokens`.
    tokens: Url,
    /// The body of the request for a token, and the secret in it.
    request: SecretString,
    secret: SecretString,
    interface: Interface,
    region: Option<String>,
    /// Held while a token is fetched, so that all who need one wait for the same.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// When and why the last token was not to be had.
    failed: Option<(Instant, String)>,
}

/// The part that we read of the answer to `POST /v3/auth/tokens`.
#[derive(Deserialize)]
struct Issued {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    /// ISO 8601 with microseconds, UTC.
    expires_at: String,
    /// Missing for a token without scope.
    #[serde(default)]
    catalog: Vec<Service>,
}

impl Identity {
    /// Nothing is sent yet.
    pub(crate) fn new(
        http: Client,
        auth_url: &str,
        request: &Value,
        secret: &SecretString,
        options: &Options,
    ) -> Result<Self, Error> {
        let tokens = tokens_url(auth_url)
            .map_err(|why| Error::Config(format!("auth_url = {}: it {why}", shown_text(auth_url))))?;
        Ok(Self {
            http,
            tokens,
            request: request.to_string().into(),
            secret: secret.clone(),
            interface: options.interface,
            region: options.region_name.clone(),
            state: Mutex::default(),
        })
    }

    /// The current session, or a new one where there is none or it is the one that Nova has refused. Whoever waited for a try
    /// that failed does not try again: a Keystone that does not answer would cost the last one the sum of all waits.
    pub(crate) async fn session(&self, refused: Option<&Arc<Session>>) -> Result<Arc<Session>, Error> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        let is_refused = |session: &Arc<Session>| refused.is_some_and(|refused| Arc::ptr_eq(refused, session));
        if let Some(session) = state.session.as_ref().filter(|session| session.is_good() && !is_refused(session)) {
            return Ok(session.clone());
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(Error::NotDone(why.clone()));
        }
        match self.log_in().await {
            Ok(session) => {
                let session = Arc::new(session);
                *state = State { session: Some(session.clone()), failed: None };
                Ok(session)
            }
            Err(why) => {
                let why = format!("no token from Keystone at {}: {why}", shown(&self.tokens));
                state.failed = Some((Instant::now(), why.clone()));
                Err(Error::NotDone(why))
            }
        }
    }

    async fn log_in(&self) -> Result<Session, String> {
        let request = self.http.post(self.tokens.clone());
        let request = request.header("Accept", "application/json").header("Content-Type", "application/json");
        let response = http::send(request.body(self.request.expose_secret().to_owned())).await;
        let response = response.map_err(http::Failure::into_text)?;
        let status = response.status();
        if !status.is_success() {
            let mut text = refusal(response).await;
            // Keystone quotes values that it does not like.
            let secret = self.secret.expose_secret();
            if !secret.is_empty() {
                text = text.replace(secret, "***");
            }
            return Err(match status.as_u16() {
                401 => format!("{text}; are user, domains, secret and scope right?"),
                404 => format!("{text}; is auth_url right?"),
                _ => text,
            });
        }
        let unusual = |what: &str| format!("an answer that is not Keystone's: {what}");
        let token = response.headers().get("X-Subject-Token").cloned();
        let mut token = token.ok_or_else(|| unusual("no header X-Subject-Token"))?;
        token.set_sensitive(true);
        let body = response.bytes().await.map_err(|_| "the answer breaks off".to_owned())?;
        let Issued { token: issued } = serde_json::from_slice(&body).map_err(|error| unusual(&error.to_string()))?;
        let expires_at = OffsetDateTime::parse(&issued.expires_at, &Rfc3339);
        let expires_at = expires_at.map_err(|error| unusual(&format!("expires_at: {error}")))?;
        let endpoint = catalog::compute(&issued.catalog, self.interface, self.region.as_deref())?;
        tracing::debug!(keystone = shown(&self.tokens), nova = shown(&endpoint), "a new token for Nova");
        Ok(Session { token, endpoint, expires_at: Some(expires_at) })
    }
}

/// Where tokens are. keystoneauth asks for the versions first; the only one left is v3.
fn tokens_url(auth_url: &str) -> Result<Url, String> {
    let mut url = http::parse(auth_url)?;
    url.set_query(None);
    url.set_fragment(None);
    let mut segments: Vec<_> =
        url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty()).collect();
    match segments.last().copied() {
        Some("v3") => {}
        Some("v2.0") => {
            return Err("names the identity API 2.0, which Keystone does not have any more: write /v3".to_owned());
        }
        _ => segments.push("v3"),
    }
    let path = format!("/{}/auth/tokens", segments.join("/"));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_added_where_it_is_missing() {
        let url = |auth_url| tokens_url(auth_url).unwrap().to_string();
        assert_eq!(url("http://h:5000"), "http://h:5000/v3/auth/tokens");
        assert_eq!(url("http://h:5000/v3/"), "http://h:5000/v3/auth/tokens");
        assert_eq!(url("https://h/identity?x"), "https://h/identity/v3/auth/tokens");
        assert_eq!(url("https://h/identity/v3"), "https://h/identity/v3/auth/tokens");
        assert!(tokens_url("http://h:5000/v2.0").unwrap_err().contains("/v3"));
        assert!(tokens_url("h:5000").is_err() && tokens_url("http://u:p@h").is_err());
    }

    #[test]
    fn a_token_is_not_used_to_its_very_end() {
        let session = |seconds| Session {
            token: HeaderValue::from_static("t"),
            endpoint: Url::parse("http://h").unwrap(),
            expires_at: Some(OffsetDateTime::now_utc() + Duration::seconds(seconds)),
        };
        assert!(session(35).is_good() && !session(29).is_good());
    }
}
