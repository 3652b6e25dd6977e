//! How the service is: health, metrics, what is running, who holds what.

mod locks;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use scoria_coordination::Coordinator;
use serde_json::{Map, Value, json};

/// Media type of the Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the volume service tells of itself. Both answer at once, from what is known, and ask nobody.
pub trait Status: Send + Sync {
    /// Each part that the service cannot work without (lock service, broker, database, driver, …), and what is wrong
    /// with it, for an operator.
    fn health(&self) -> Vec<(String, Result<(), String>)>;

    /// The requests being worked on, as JSON.
    fn operations(&self) -> Value;
}

/// What the addresses of this router look at.
#[derive(Clone)]
pub struct AdminState {
    /// The volume service.
    pub status: Arc<dyn Status>,
    /// The metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The locks.
    pub coordinator: Coordinator,
}

/// `GET /healthcheck`, `/metrics`, `/v1/operations`, `/v1/locks` and `/v1/locks/{name}`; `POST /v1/locks/{name}/wait?seconds=N`
/// and `DELETE /v1/locks/{name}?confirm=yes&by=WHO`.
///
/// `/healthcheck` is 200 with `OK`, or 503 with one line per part that fails; with `Accept: application/json` the body is
/// `{"healthy": …, "parts": {"<part>": null | "<reason>"}}`.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthcheck", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/operations", get(operations))
        .merge(locks::routes())
        .with_state(state)
}

async fn health(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let parts = state.status.health();
    let healthy = parts.iter().all(|(_, health)| health.is_ok());
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        let parts: Map<String, Value> = parts.into_iter().map(|(part, health)| (part, health.err().into())).collect();
        return (code, Json(json!({"healthy": healthy, "parts": parts}))).into_response();
    }
    if healthy {
        return (code, "OK").into_response();
    }
    let reasons = parts.iter().filter_map(|(part, health)| Some(format!("{part}: {}\n", health.as_ref().err()?)));
    (code, reasons.collect::<String>()).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], (state.metrics)()).into_response()
}

async fn operations(State(state): State<AdminState>) -> Json<Value> {
    Json(json!({"operations": state.status.operations()}))
}
