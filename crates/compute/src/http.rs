//! HTTP to Keystone and Nova: the client, what a failure says of the request, and texts without secrets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use url::Url;

use crate::error::Error;
use crate::options::Options;

/// For one request, where the operator says nothing. keystoneauth waits for ever then, which no operation under a lock may.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most characters that are quoted of what a server says.
const QUOTED: usize = 300;

/// Why there is no answer, and what that says of the request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not get there.
    Unsent(String),
    /// It may have got there.
    Unanswered(String),
}

impl Failure {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Unsent(why) | Self::Unanswered(why) => why,
        }
    }
}

/// Nothing is sent yet. Proxies of the environment are honoured, as Python services do.
pub(crate) fn client(options: &Options) -> Result<Client, Error> {
    let presented = presented(options)?;
    let client = match (&options.cafile, options.insecure) {
        (_, true) => basic(options).tls_danger_accept_invalid_certs(true),
        (Some(file), false) => basic(options).tls_certs_only(authorities(file)?),
        (None, false) => basic(options),
    };
    let client = match presented {
        Some(identity) => client.identity(identity),
        None => client,
    };
    let failed = |error: reqwest::Error| Error::Config(format!("TLS cannot be set up: {}", with_causes(&error)));
    match client.build() {
        // A system without certificates: http:// can do without, and https:// is told what is missing when it is used.
        Err(_) if options.cafile.is_none() && !options.insecure => {
            basic(options).tls_backend_preconfigured(without_authorities()?).build().map_err(failed)
        }
        built => built.map_err(failed),
    }
}

fn basic(options: &Options) -> ClientBuilder {
    let timeout = options.timeout.unwrap_or(TIMEOUT);
    Client::builder()
        .user_agent("scoria-volume")
        .timeout(timeout)
        // Well before the whole time is over: who has no connection by then has certainly sent nothing.
        .connect_timeout(timeout / 2)
        // A kept connection that the server closes while a request sets out leaves open whether it was done. Requests are rare.
        .pool_max_idle_per_host(0)
        // Following one would turn POST into GET or hand the token to somebody else.
        .redirect(Policy::none())
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, Error> {
    let found =
        Certificate::from_pem_bundle(&contents("cafile", file)?).map_err(|error| wrong("cafile", file, &error))?;
    if found.is_empty() { Err(wrong("cafile", file, &"no certificate in it")) } else { Ok(found) }
}

fn presented(options: &Options) -> Result<Option<Identity>, Error> {
    let Some(certificate) = &options.certfile else {
        return match &options.keyfile {
            None => Ok(None),
            Some(key) => Err(wrong("keyfile", key, &"it needs a certificate, option certfile")),
        };
    };
    let mut pem = contents("certfile", certificate)?;
    if let Some(key) = &options.keyfile {
        pem.push(b'\n');
        pem.extend(contents("keyfile", key)?);
    }
    let identity = Identity::from_pem(&pem);
    identity.map(Some).map_err(|error| wrong("certfile", certificate, &with_causes(&error)))
}

fn without_authorities() -> Result<ClientConfig, Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn contents(option: &str, file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| wrong(option, file, &error))
}

fn wrong(option: &str, file: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("{option} = {}: {error}", file.display()))
}

/// Sends it, and waits for the head of the answer.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    request.send().await.map_err(|error| {
        let error = error.without_url();
        let text = with_causes(&error);
        match error.is_connect() || error.is_builder() {
            true if text.contains("certificate") => Failure::Unsent(format!(
                "no connection: {text}; option cafile names the authorities that may sign its certificate"
            )),
            true => Failure::Unsent(format!("no connection: {text}")),
            false if error.is_timeout() => Failure::Unanswered("no answer in time, option timeout".to_owned()),
            false => Failure::Unanswered(format!("no answer: {text}")),
        }
    })
}

/// What an answer that is no success says: the status and the server's own words, as far as they are its usual ones.
pub(crate) async fn refusal(response: Response) -> String {
    let status = response.status();
    let mut text = format!("answers {status}");
    if status.is_redirection() {
        let location = response.headers().get("location").and_then(|location| location.to_str().ok());
        text.push_str(&format!(", which is not followed (to {})", location.map_or("nowhere".to_owned(), shown_text)));
    } else if let Some(message) = response.bytes().await.ok().and_then(|body| message(&body)) {
        text.push_str(&format!(": {message}"));
    }
    text
}

/// Keystone says `{"error": {"message": …}}`, Nova `{"badRequest": {"message": …}}` and the like (`nova/api/openstack/wsgi.py: Fault`).
fn message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let message = body.as_object()?.values().find_map(|fault| fault.get("message")?.as_str())?;
    let words: Vec<_> = message.split_whitespace().collect();
    Some(words.join(" ").chars().take(QUOTED).collect())
}

/// Reads the URL of a server. The error is half a sentence that follows the URL.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("has to begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user".to_owned());
    }
    Ok(url)
}

/// A URL for messages: without what might be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both refuse only what has no host, where nothing is to be hidden.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// The same for what may be no URL, or one without `//`, whose parts are not told apart then.
pub(crate) fn shown_text(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => shown(&url),
        _ if text.contains('@') => "***".to_owned(),
        _ => text.to_owned(),
    }
}

/// An error with what caused it: reqwest's own words say very little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_words_of_a_server_are_quoted() {
        let keystone =
            br#"{"error": {"code": 401, "message": "The request\n you have made", "title": "Unauthorized"}}"#;
        assert_eq!(message(keystone).unwrap(), "The request you have made");
        assert_eq!(message(br#"{"badRequest": {"message": "no", "code": 400}}"#).unwrap(), "no");
        assert_eq!(
            message(format!(r#"{{"e": {{"message": "{}"}}}}"#, "x".repeat(999)).as_bytes()).unwrap().len(),
            QUOTED
        );
        for other in ["<html>", "", "[]", "{}", r#"{"error": "x"}"#, r#"{"message": "x"}"#] {
            assert_eq!(message(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(shown_text("https://u:p@h:1/v3?token=x#y"), "https://h:1/v3");
        assert_eq!((shown_text("http://u:p@h:port"), shown_text("u:p@h")), ("***".to_owned(), "***".to_owned()));
        assert_eq!(shown_text("keystone"), "keystone");
        assert!(parse("http://u@h").unwrap_err().contains("user"));
        assert!(parse("ftp://h").unwrap_err().contains("http://"));
    }
}
