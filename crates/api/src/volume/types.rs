//! Volume types: listed and shown; making them is for `scoria db` (`cinder/api/v3/types.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::FrontDoor;
use super::errors::ApiResult;
use super::lookup::IdPath;
use super::request::Caller;
use super::views;

/// `GET /types`.
pub(crate) async fn list(State(door): State<Arc<FrontDoor>>, _caller: Caller) -> ApiResult<Json<Value>> {
    let types = door.database.volume_types().await?;
    Ok(Json(json!({"volume_types": types.iter().map(views::volume_type).collect::<Vec<_>>()})))
}

/// `GET /types/{id}`; the id `default` is the type that volumes get whose creator names none.
pub(crate) async fn show(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    let found = match path.id.as_str() {
        "default" => door.volume_type_by_any(&door.default_volume_type).await?,
        id => door.volume_type(id).await?,
    };
    Ok(Json(json!({"volume_type": views::volume_type(&found)})))
}

/// `GET /types/{id}/extra_specs`.
pub(crate) async fn extra_specs(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    let found = door.volume_type(&path.id).await?;
    Ok(Json(json!({"extra_specs": found.extra_specs})))
}
