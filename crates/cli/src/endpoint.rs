//! Asking over HTTP: the block-storage API and the admin port of a service.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Exit, Failure, Result};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take; cinder-api's own patience with the volume service (`rpc_response_timeout`) and a bit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(70);
/// How long somebody may take whom nobody has named.
const GUESS_TIMEOUT: Duration = Duration::from_secs(1);

/// An HTTP address.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    url: String,
    client: Client,
    whose: Whose,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The block-storage API.
    Api,
    /// The admin port.
    Admin,
}

impl Whose {
    /// The option that names its address, for errors.
    fn option(self) -> &'static str {
        match self {
            Self::Api => "--endpoint",
            Self::Admin => "--admin",
        }
    }
}

impl Endpoint {
    /// The block-storage API: the front door of a stand-alone service, or a cinder-api. A URL without a path gets `/v3`.
    pub(crate) fn new(url: &str, token: Option<SecretString>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        // The newest form that the server has; what we read of it has been there from the beginning.
        headers.insert("openstack-api-version", HeaderValue::from_static("volume latest"));
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token.expose_secret())
                .map_err(|_| Failure::usage("--os-token: the token has characters that no token has"))?;
            token.set_sensitive(true);
            headers.insert("x-auth-token", token);
        }
        let mut endpoint = Self::open(url, headers, Whose::Api)?;
        if Url::parse(&endpoint.url).is_ok_and(|url| url.path() == "/") {
            endpoint.url += "/v3";
        }
        Ok(endpoint)
    }

    /// The admin port of a service.
    pub(crate) fn admin(url: &str) -> Result<Self> {
        Self::open(url, HeaderMap::new(), Whose::Admin)
    }

    fn open(url: &str, headers: HeaderMap, whose: Whose) -> Result<Self> {
        let option = whose.option();
        let wrong = |what: &str| Failure::usage(format!("{option}: {what}; write it as http://HOST:PORT"));
        let parsed = Url::parse(url).map_err(|error| wrong(&format!("'{url}' is no URL ({error})")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("the URL must have no user and password in it"));
        }
        if parsed.scheme() != "http" {
            return Err(wrong(&format!("'{}' is not spoken here, only plain HTTP", parsed.scheme())));
        }
        let mut client =
            Client::builder().default_headers(headers).connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        if ["127.0.0.1", "[::1]", "localhost"].contains(&parsed.host_str().unwrap_or_default()) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| Failure::failed(format!("no HTTP client: {error}")))?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client, whose })
    }

    /// Whether anybody answers here at all.
    pub(crate) async fn answers(&self) -> bool {
        self.client.get(&self.url).timeout(GUESS_TIMEOUT).send().await.is_ok()
    }

    /// What stands under a key of the answer to a GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<T> {
        let mut answer = self.answer(Method::GET, path, None).await?;
        self.read(path, answer[key].take())
    }

    /// The whole answer to a GET.
    pub(crate) async fn get_whole<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.answer(Method::GET, path, None).await?;
        self.read(path, answer)
    }

    /// A whole list of the API, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        key: &str,
    ) -> Result<Vec<T>> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            let mut page = query.to_vec();
            let last = items.last().and_then(|last| last["id"].as_str()).unwrap_or_default().to_owned();
            if !items.is_empty() {
                page.push(("marker", &last));
            }
            let address = match Url::parse_with_params(&format!("{}{path}", self.url), &page) {
                Ok(url) => url.as_str().strip_prefix(&self.url).unwrap_or(path).to_owned(),
                Err(error) => return Err(Failure::usage(format!("{}: {error}", self.whose.option()))),
            };
            let mut answer = self.answer(Method::GET, &address, None).await?;
            let more = answer.get(format!("{key}_links")).is_some();
            match answer[key].take() {
                Value::Array(found) if more && !found.is_empty() => items.extend(found),
                Value::Array(found) => {
                    items.extend(found);
                    return items.into_iter().map(|item| self.read(path, item)).collect();
                }
                other => return self.read(path, other),
            }
        }
    }

    /// What stands under a key of the answer to a POST.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: Value, key: &str) -> Result<T> {
        let mut answer = self.answer(Method::POST, path, Some(body)).await?;
        self.read(path, answer[key].take())
    }

    /// A request whose answer says no more than that it was accepted.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<()> {
        self.answer(method, path, body).await.map(drop)
    }

    async fn answer(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response).await);
        }
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| self.strange(path, status))
    }

    fn read<T: DeserializeOwned>(&self, path: &str, value: Value) -> Result<T> {
        serde_json::from_value(value).map_err(|_| self.strange(path, StatusCode::OK))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let (url, option) = (&self.url, self.whose.option());
        Failure::unavailable(format!("{url} {why} ({cause}): start the service, or name another one with {option} URL"))
    }

    fn strange(&self, path: &str, status: StatusCode) -> Failure {
        let (url, option, status) = (&self.url, self.whose.option(), status.as_u16());
        Failure::unavailable(format!(
            "{url} answers {path} with {status} in a form that is not known here: see what {option} URL leads to"
        ))
    }

    /// The server's own words (`{"itemNotFound": {"message": …}}`, or `{"error": …}` on the admin port).
    async fn refused(&self, response: Response) -> Failure {
        let (status, path) = (response.status(), response.url().path().to_owned());
        let body: Value = response.json().await.unwrap_or_default();
        let fault = body.as_object().and_then(|body| body.values().next());
        let message = fault.and_then(|fault| fault["message"].as_str().or(fault.as_str()));
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": give a valid token with OS_TOKEN or --os-token",
            _ => "",
        };
        match (message, status) {
            (Some(message), StatusCode::NOT_FOUND) if self.whose == Whose::Admin => Failure::not_found(message),
            (Some(message), StatusCode::CONFLICT) if self.whose == Whose::Admin => {
                Failure::new(Exit::LockBusy, message)
            }
            (Some(message), StatusCode::NOT_FOUND) => {
                Failure::not_found(format!("{message} scoria volume list and scoria snapshot list show what there is"))
            }
            (Some(message), StatusCode::SERVICE_UNAVAILABLE) => Failure::unavailable(message),
            (Some(message), StatusCode::NOT_IMPLEMENTED) => Failure::failed(message),
            (Some(message), _) => Failure::new(Exit::Failed, format!("{message} (HTTP {}){hint}", status.as_u16())),
            (None, StatusCode::UNAUTHORIZED) => Failure::failed(format!("{} wants a token{hint}", self.url)),
            (None, _) => self.strange(&path, status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_any_form_and_wrong_ones_refused_without_passwords() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/v3", "http://h:1/v3/"] {
            assert_eq!(Endpoint::new(url, None).unwrap().url, "http://h:1/v3", "{url}");
        }
        assert_eq!(Endpoint::new("http://h:1/volume/v3/p", None).unwrap().url, "http://h:1/volume/v3/p");
        assert_eq!(Endpoint::admin("http://h:1/").unwrap().url, "http://h:1");
        for wrong in ["h:1", "https://h:1", "nonsense", "http://user:secret@h:1"] {
            let failure = Endpoint::new(wrong, None).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        assert!(Endpoint::new("http://h:1", Some("a\nb".to_owned().into())).is_err());
    }
}
