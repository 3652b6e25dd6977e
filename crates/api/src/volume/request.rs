//! Who asks, for which project, in which microversion; and what every answer carries.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use scoria_model::RequestContext;
use secrecy::ExposeSecret;

use super::FrontDoor;
use super::errors::ApiError;
use super::microversion::{self, Microversion};
use super::paging::Query;
use super::views::Links;

/// User and project of somebody who does not say (`cinder/api/middleware/auth.py: NoAuthMiddlewareBase`).
const NOBODY: &str = "admin";

/// Longest user or project that the schema's columns hold.
const MAX_NAME: usize = 255;

/// What is known of a request before its handler is chosen.
#[derive(Debug, Clone)]
struct Arrival {
    request_id: String,
    version: Microversion,
}

/// Who asks, for which project, in which microversion.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The context that travels with messages.
    pub(crate) context: RequestContext,
    /// The caller's project.
    pub(crate) project: String,
    /// The form of the API.
    pub(crate) version: Microversion,
    /// How links to this server begin.
    pub(crate) links: Links,
    /// The query, undecoded.
    pub(crate) query: String,
}

impl Caller {
    /// The query, key by key.
    pub(crate) fn query(&self) -> Query {
        Query::parse(&self.query)
    }
}

impl FromRequestParts<Arc<FrontDoor>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<FrontDoor>) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, door).await.map_err(ApiError::hidden)?;
        let in_path = params.iter().find(|(name, _)| *name == "project_id").map(|(_, value)| value.to_owned());
        let (user, project) = identify(&parts.headers, door, in_path.as_deref())?;
        if user.len() > MAX_NAME || project.len() > MAX_NAME {
            return Err(ApiError::bad_request(format!("User and project may have {MAX_NAME} characters at most.")));
        }
        let arrival = parts.extensions.get::<Arrival>().cloned().ok_or_else(|| ApiError::hidden("no arrival"))?;

        let mut context = RequestContext::user(&user, &project).elevated();
        context.request_id = Some(arrival.request_id);
        context.global_request_id = global_request_id(&parts.headers);
        Ok(Self {
            context,
            project,
            version: arrival.version,
            links: Links::new(&base_url(&parts.headers), in_path.as_deref()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
        })
    }
}

/// User and project. Without a configured token nobody is turned away: `user:project` is taken at its word, and who sends
/// nothing is the default user. With one, only its bearer comes in.
fn identify(headers: &HeaderMap, door: &FrontDoor, in_path: Option<&str>) -> Result<(String, String), ApiError> {
    let token = text(headers, "x-auth-token");
    if let Some(expected) = &door.token {
        if !token.is_some_and(|token| same(token, expected.expose_secret())) {
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "The request you have made requires authentication."));
        }
        let project = in_path.or_else(|| text(headers, "x-project-id")).unwrap_or(NOBODY);
        return Ok((text(headers, "x-user-id").unwrap_or(NOBODY).to_owned(), project.to_owned()));
    }
    match token.map(|token| token.split_once(':').unwrap_or((token, ""))) {
        // Cinder takes the user for the project here; an address with a project in it knows better.
        Some((user, "")) => Ok((user.to_owned(), in_path.unwrap_or(user).to_owned())),
        Some((_, project)) if in_path.is_some_and(|named| named != project) => {
            Err(ApiError::bad_request("Malformed request url"))
        }
        Some((user, project)) => Ok((user.to_owned(), project.to_owned())),
        None => Ok((NOBODY.to_owned(), in_path.unwrap_or(NOBODY).to_owned())),
    }
}

/// Compares without telling by the time it takes how much of a guess was right.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

/// The id that a caller gave to a request of its own that ours belongs to: `req-<uuid>`, or it is not taken.
fn global_request_id(headers: &HeaderMap) -> Option<String> {
    let id = text(headers, "x-openstack-request-id")?;
    let uuid = id.strip_prefix("req-")?;
    uuid::Uuid::parse_str(uuid).ok().map(|_| id.to_owned())
}

/// `http://host:port` as the caller wrote it.
pub(crate) fn base_url(headers: &HeaderMap) -> String {
    format!("http://{}", text(headers, header::HOST.as_str()).unwrap_or("localhost"))
}

/// The noauth middleware's answer to a client that says who it is and has no token yet: a token to come back with
/// (`cinder/api/middleware/auth.py: NoAuthMiddlewareBase.base_call`). Cinder answers everybody like that who has no token; here,
/// somebody who says nothing at all is let in, so that a plain `curl` sees something.
pub(crate) async fn shake_hands(State(door): State<Arc<FrontDoor>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let says_who = ["x-auth-user", "x-auth-project-id", "x-auth-key"].iter().any(|name| headers.contains_key(*name));
    let path = request.uri().path();
    if door.token.is_some() || headers.contains_key("x-auth-token") || !says_who || !path.starts_with("/v3") {
        return next.run(request).await;
    }
    let said = |name: &str| text(headers, name).unwrap_or(NOBODY);
    let token = format!("{}:{}", said("x-auth-user"), said("x-auth-project-id"));
    let address = format!("{}{}", base_url(headers), path.trim_end_matches('/'));
    [("x-auth-token", token), ("x-server-management-url", address), ("content-type", "text/plain".to_owned())]
        .into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?)))
        .fold(StatusCode::NO_CONTENT.into_response(), |mut response, (name, value)| {
            response.headers_mut().insert(name, value);
            response
        })
}

/// Around every request of the API: gives it an id, settles the microversion, and puts both into the answer.
pub(crate) async fn arrive(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let negotiated = Microversion::negotiate(request.headers());
    let mut response = match &negotiated {
        Ok(version) => {
            request.extensions_mut().insert(Arrival { request_id: request_id.clone(), version: *version });
            next.run(request).await
        }
        Err(error) => error.clone().into_response(),
    };

    let version = negotiated.ok().map(|version| format!("volume {version}"));
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-openstack-request-id", Some(request_id.clone())),
        ("x-compute-request-id", Some(request_id.clone())),
        (microversion::HEADER, version),
        ("vary", Some("OpenStack-API-Version".to_owned())),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let (status, took) = (response.status().as_u16(), started.elapsed());
    tracing::info!(%method, path, status, ?took, request_id, "request answered");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        assert!(same("secret", "secret"));
        for other in ["", "secre", "secret2", "Secret"] {
            assert!(!same(other, "secret"), "{other}");
        }
    }

    #[test]
    fn a_foreign_request_id_is_taken_only_in_its_own_form() {
        let headers =
            |id: &str| HeaderMap::from_iter([("x-openstack-request-id".parse().unwrap(), id.parse().unwrap())]);
        let good = "req-3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11";
        assert_eq!(global_request_id(&headers(good)).as_deref(), Some(good));
        assert_eq!(global_request_id(&headers("req-<script>")), None);
    }
}
