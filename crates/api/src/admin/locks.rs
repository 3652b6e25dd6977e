//! `/v1/locks`: who holds which lock, waiting until one is free, taking one away from its holder.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use scoria_coordination::{Coordinator, Error, Holder, Listing, LockRequest, Owner, WaitPolicy};
use scoria_runtime::Deadline;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminState;

/// The longest one request may wait: shorter than the patience of clients and of what stands between. Who wants to wait
/// longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/v1/locks", get(list))
        .route("/v1/locks/{name}", get(show).delete(take_away))
        .route("/v1/locks/{name}/wait", post(wait))
}

async fn list(State(state): State<AdminState>) -> Response {
    match state.coordinator.holders().await {
        Ok(holders) => {
            let listing = listing(&state.coordinator);
            Json(json!({"locks": views(&holders, |_| true), "listing": listing})).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn show(State(state): State<AdminState>, Path(name): Path<String>) -> Response {
    let holders = match of(&state.coordinator, &name).await {
        Ok(holders) => holders,
        Err(error) => return failed(&error),
    };
    if holders.is_empty() {
        let limit = match state.coordinator.features().listing {
            Listing::Own => " in this service; this lock service does not tell of others",
            Listing::Holders | Listing::All => "",
        };
        return refused(StatusCode::NOT_FOUND, format!("nobody holds lock '{name}' or waits for it{limit}"));
    }
    let listing = listing(&state.coordinator);
    let (held, waiting) = (views(&holders, |holder| holder.held), views(&holders, |holder| !holder.held));
    Json(json!({"lock": {"name": name, "holders": held, "waiters": waiting, "listing": listing}})).into_response()
}

#[derive(Debug, Deserialize)]
struct Waiting {
    /// For how long, seconds.
    seconds: Option<String>,
}

/// Takes the lock and gives it back: the only proof that it was free which every lock service can give, without polling.
async fn wait(State(state): State<AdminState>, Path(name): Path<String>, Query(waiting): Query<Waiting>) -> Response {
    let seconds = waiting.seconds.and_then(|seconds| seconds.parse().ok());
    let Some(limit) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return refused(StatusCode::BAD_REQUEST, "say how long to wait: ?seconds=NUMBER".to_owned());
    };
    let owner = Owner { operation: "locks wait".to_owned(), ..Owner::default() };
    let until = WaitPolicy::Until(Deadline::after(limit.min(LONGEST_WAIT)));
    match state.coordinator.acquire(LockRequest::new(owner).exclusive(name).wait(until)).await {
        Ok(lock) => match lock.release().await {
            Ok(()) | Err(Error::Lost { .. }) => Json(json!({"free": true})).into_response(),
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

#[derive(Debug, Deserialize)]
struct Breaking {
    /// `yes`, or nothing is done.
    confirm: Option<String>,
    /// Who does it, for the log.
    by: Option<String>,
}

async fn take_away(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(breaking): Query<Breaking>,
) -> Response {
    if breaking.confirm.as_deref() != Some("yes") {
        return refused(
            StatusCode::BAD_REQUEST,
            format!(
                "whoever holds lock '{name}' would lose it in the middle of work: add ?confirm=yes if that is meant"
            ),
        );
    }
    let broken = async {
        let mut holders = of(&state.coordinator, &name).await?;
        holders.retain(|holder| holder.held);
        state.coordinator.break_lock(&name).await.map(|broken| (broken, holders))
    };
    match broken.await {
        Ok((true, holders)) => {
            let by = breaking.by.as_deref().unwrap_or("somebody on the admin port");
            let from = holders.iter().map(whom).collect::<Vec<_>>().join("; ");
            tracing::warn!(lock = name, by, from, "lock was taken away from its holder");
            Json(json!({"broken": views(&holders, |_| true)})).into_response()
        }
        Ok((false, _)) => refused(StatusCode::NOT_FOUND, format!("nobody holds lock '{name}'")),
        Err(error) => failed(&error),
    }
}

/// Of whom the lock service tells: the service's `own` holders and waiters, all `holders`, or `all` holders and waiters.
fn listing(locks: &Coordinator) -> &'static str {
    match locks.features().listing {
        Listing::Own => "own",
        Listing::Holders => "holders",
        Listing::All => "all",
    }
}

/// Who holds a lock and who waits for it.
async fn of(coordinator: &Coordinator, name: &str) -> Result<Vec<Holder>, Error> {
    let mut holders = coordinator.holders().await?;
    holders.retain(|holder| holder.name == name);
    Ok(holders)
}

fn failed(error: &Error) -> Response {
    let status = match error {
        Error::Busy { .. } => StatusCode::CONFLICT,
        Error::Name { .. } => StatusCode::BAD_REQUEST,
        Error::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        Error::Lost { .. } | Error::Unavailable(_) | Error::Config(_) | Error::Closed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    refused(status, error.to_string())
}

fn refused(status: StatusCode, message: String) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}

/// A holder in words, for the log.
fn whom(holder: &Holder) -> String {
    let mut text = holder.instance.clone();
    let Owner { operation, request_id, resource } = &holder.owner;
    let known = [("host", holder.host.as_ref()), ("request", request_id.as_ref()), ("resource", resource.as_ref())];
    let operation = Some(("operation", operation)).filter(|(_, operation)| !operation.is_empty());
    for (what, value) in operation.into_iter().chain(known.into_iter().filter_map(|(what, value)| Some((what, value?))))
    {
        text.push_str(&format!(", {what} {value}"));
    }
    text
}

fn views(holders: &[Holder], which: impl Fn(&Holder) -> bool) -> Vec<Value> {
    holders.iter().filter(|holder| which(holder)).map(view).collect()
}

fn view(holder: &Holder) -> Value {
    json!({
        "name": holder.name,
        "mode": holder.mode.as_str(),
        "held": holder.held,
        "instance": holder.instance,
        "host": holder.host,
        "operation": holder.owner.operation,
        "request_id": holder.owner.request_id,
        "resource": holder.owner.resource,
        "seconds": holder.since.map(|since| since.as_secs_f64()),
        "token": holder.token,
    })
}
