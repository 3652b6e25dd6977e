//! The users' metadata of volumes and snapshots (`cinder/api/v3/volume_metadata.py`, `snapshot_metadata.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use scoria_model::{Fault, FaultClass, Metadata, Volume, VolumeStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use super::FrontDoor;
use super::body::Body;
use super::errors::{ApiError, ApiResult};
use super::lookup::IdPath;
use super::request::Caller;

/// The resource and the key in an address.
#[derive(Debug, Deserialize)]
pub(crate) struct KeyPath {
    id: String,
    key: String,
}

/// Whether keys that are not named stay or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Stay,
    Go,
}

type Door = State<Arc<FrontDoor>>;

/// `GET /volumes/{id}/metadata`.
pub(crate) async fn of_volume(State(door): Door, _: Caller, Path(path): Path<IdPath>) -> ApiResult<Json<Value>> {
    Ok(all(door.volume(&path.id).await?.metadata))
}

/// `POST /volumes/{id}/metadata`.
pub(crate) async fn add_to_volume(
    State(door): Door,
    _: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    door.change_volume_metadata(&path.id, read_all(&body)?, Others::Stay).await.map(all)
}

/// `PUT /volumes/{id}/metadata`.
pub(crate) async fn replace_of_volume(
    State(door): Door,
    _: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    door.change_volume_metadata(&path.id, read_all(&body)?, Others::Go).await.map(all)
}

/// `GET /volumes/{id}/metadata/{key}`.
pub(crate) async fn one_of_volume(State(door): Door, _: Caller, Path(path): Path<KeyPath>) -> ApiResult<Json<Value>> {
    let volume = door.volume(&path.id).await?;
    one(&volume.metadata, &path.key).ok_or_else(|| no_key("Volume", &path))
}

/// `PUT /volumes/{id}/metadata/{key}`.
pub(crate) async fn set_of_volume(
    State(door): Door,
    _: Caller,
    Path(path): Path<KeyPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let metadata = read_one(&body, &path.key)?;
    door.change_volume_metadata(&path.id, metadata.clone(), Others::Stay).await?;
    Ok(Json(json!({"meta": metadata})))
}

/// `DELETE /volumes/{id}/metadata/{key}`.
pub(crate) async fn remove_from_volume(
    State(door): Door,
    _: Caller,
    Path(path): Path<KeyPath>,
) -> ApiResult<StatusCode> {
    let volume = door.volume(&path.id).await?;
    if !volume.metadata.contains_key(&path.key) {
        return Err(no_key("Volume", &path));
    }
    changeable(&volume, "Deleting")?;
    let mut metadata = volume.metadata;
    metadata.remove(&path.key);
    door.database.volume_metadata_update(&volume.id, &metadata, true).await?;
    Ok(StatusCode::OK)
}

/// `GET /snapshots/{id}/metadata`.
pub(crate) async fn of_snapshot(State(door): Door, _: Caller, Path(path): Path<IdPath>) -> ApiResult<Json<Value>> {
    Ok(all(door.snapshot(&path.id).await?.metadata))
}

/// `POST /snapshots/{id}/metadata`.
pub(crate) async fn add_to_snapshot(
    State(door): Door,
    _: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    door.change_snapshot_metadata(&path.id, read_all(&body)?, Others::Stay).await.map(all)
}

/// `PUT /snapshots/{id}/metadata`.
pub(crate) async fn replace_of_snapshot(
    State(door): Door,
    _: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    door.change_snapshot_metadata(&path.id, read_all(&body)?, Others::Go).await.map(all)
}

/// `GET /snapshots/{id}/metadata/{key}`.
pub(crate) async fn one_of_snapshot(State(door): Door, _: Caller, Path(path): Path<KeyPath>) -> ApiResult<Json<Value>> {
    let snapshot = door.snapshot(&path.id).await?;
    one(&snapshot.metadata, &path.key).ok_or_else(|| no_key("Snapshot", &path))
}

/// `PUT /snapshots/{id}/metadata/{key}`.
pub(crate) async fn set_of_snapshot(
    State(door): Door,
    _: Caller,
    Path(path): Path<KeyPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let metadata = read_one(&body, &path.key)?;
    door.change_snapshot_metadata(&path.id, metadata.clone(), Others::Stay).await?;
    Ok(Json(json!({"meta": metadata})))
}

/// `DELETE /snapshots/{id}/metadata/{key}`.
pub(crate) async fn remove_from_snapshot(
    State(door): Door,
    _: Caller,
    Path(path): Path<KeyPath>,
) -> ApiResult<StatusCode> {
    let snapshot = door.snapshot(&path.id).await?;
    let mut metadata = snapshot.metadata;
    if metadata.remove(&path.key).is_none() {
        return Err(no_key("Snapshot", &path));
    }
    door.database.snapshot_metadata_update(&snapshot.id, &metadata, true).await?;
    Ok(StatusCode::OK)
}

impl FrontDoor {
    async fn change_volume_metadata(&self, id: &str, metadata: Metadata, others: Others) -> ApiResult<Metadata> {
        let volume = self.volume(id).await?;
        changeable(&volume, "Updating")?;
        self.database.volume_metadata_update(&volume.id, &metadata, others == Others::Go).await?;
        Ok(merged(volume.metadata, metadata, others))
    }

    async fn change_snapshot_metadata(&self, id: &str, metadata: Metadata, others: Others) -> ApiResult<Metadata> {
        let snapshot = self.snapshot(id).await?;
        self.database.snapshot_metadata_update(&snapshot.id, &metadata, others == Others::Go).await?;
        Ok(merged(snapshot.metadata, metadata, others))
    }
}

fn merged(mut before: Metadata, given: Metadata, others: Others) -> Metadata {
    match others {
        Others::Go => given,
        Others::Stay => {
            before.extend(given);
            before
        }
    }
}

fn changeable(volume: &Volume, doing: &str) -> ApiResult<()> {
    if [VolumeStatus::Maintenance, VolumeStatus::Uploading].contains(&volume.status) {
        let status = &volume.status;
        let reason = format!("{doing} volume metadata is not allowed for volumes in {status} status.");
        return Err(Fault::invalid_volume(reason).into());
    }
    Ok(())
}

fn read_all(body: &Body) -> ApiResult<Metadata> {
    let fields = body.fields().only(&["metadata"])?;
    fields.object("metadata")?;
    Ok(fields.metadata("metadata")?.unwrap_or_default())
}

fn read_one(body: &Body, key: &str) -> ApiResult<Metadata> {
    let fields = body.fields().only(&["meta"])?;
    fields.object("meta")?;
    let metadata = fields.metadata("meta")?.unwrap_or_default();
    if !metadata.contains_key(key) {
        return Err(ApiError::bad_request("Request body and URI mismatch"));
    }
    if metadata.len() > 1 {
        return Err(ApiError::bad_request("Request body contains too many items"));
    }
    Ok(metadata)
}

fn all(metadata: Metadata) -> Json<Value> {
    Json(json!({"metadata": metadata}))
}

fn one(metadata: &Metadata, key: &str) -> Option<Json<Value>> {
    metadata.get(key).map(|value| Json(json!({"meta": {key: value}})))
}

fn no_key(what: &str, path: &KeyPath) -> ApiError {
    let message = format!("{what} {} has no metadata with key {}.", path.id, path.key);
    Fault::new(FaultClass::NotFound, message).into()
}
