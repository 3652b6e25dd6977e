//! Services and their switches, availability zones, extensions (`cinder/api/v3/services.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use scoria_db::{ServiceChange, ServiceFilter};
use scoria_model::{Fault, FaultClass, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::FrontDoor;
use super::body::Body;
use super::errors::{ApiError, ApiResult};
use super::request::Caller;
use super::views;

/// The switch in an address.
#[derive(Debug, Deserialize)]
pub(crate) struct ActionPath {
    action: String,
}

/// `GET /os-services?host=…&binary=…`.
pub(crate) async fn list(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let mut query = caller.query();
    let filter = ServiceFilter { host: query.take("host"), binary: query.take("binary"), ..ServiceFilter::default() };
    let now = Timestamp::now();
    let services = door.database.services(&filter).await?;
    let view = |service| views::service(service, now, door.service_down_time, caller.version);
    Ok(Json(json!({"services": services.iter().map(view).collect::<Vec<_>>()})))
}

/// `PUT /os-services/{enable,disable,disable-log-reason}`.
pub(crate) async fn change(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<ActionPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let fields = body.fields();
    let host = fields
        .text("host")?
        .filter(|host| !host.is_empty())
        .ok_or_else(|| ApiError::from(Fault::invalid_input("Host field is missing.")))?;
    let service = fields.text("service")?.unwrap_or_default();
    let binary = fields.text("binary")?.unwrap_or_default();
    let reason = fields.text("disabled_reason")?;
    let (disabled, reason) = match path.action.as_str() {
        "enable" => (false, None),
        "disable" => (true, None),
        "disable-log-reason" => (true, reason),
        _ => return Err(ApiError::no_such_resource()),
    };

    let wanted = if binary.is_empty() { service } else { binary };
    let filter =
        ServiceFilter { host: Some(host.to_owned()), binary: Some(wanted.to_owned()), ..ServiceFilter::default() };
    let found = door.database.services(&filter).await?;
    let Some(row) = found.first() else {
        let message = format!("Service {wanted} could not be found on host {host}.");
        return Err(Fault::new(FaultClass::ServiceNotFound, message).into());
    };
    let change = ServiceChange {
        disabled: Some(disabled),
        disabled_reason: Some(reason.map(str::to_owned)),
        ..ServiceChange::default()
    };
    door.database.service_update(row.id, &change).await?;
    let mut view = json!({
        "host": host,
        "service": service,
        "binary": binary,
        "status": if disabled { "disabled" } else { "enabled" },
        "disabled": disabled,
    });
    if path.action == "disable-log-reason" {
        view["disabled_reason"] = reason.into();
    }
    Ok(Json(view))
}

/// `GET /os-availability-zone`: the one there is.
pub(crate) async fn availability_zones(State(door): State<Arc<FrontDoor>>, _caller: Caller) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [
        {"zoneName": door.availability_zone, "zoneState": {"available": true}},
    ]}))
}

/// `GET /extensions`: none to speak of.
pub(crate) async fn extensions(_caller: Caller) -> Json<Value> {
    Json(json!({"extensions": []}))
}
