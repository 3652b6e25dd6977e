//! Snapshots (`cinder/api/v3/snapshots.py`, `cinder/volume/api.py: API.create_snapshot`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use scoria_db::{Expect, SnapshotChange, SnapshotFilter, Swap};
use scoria_model::{Fault, ResourceType, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeStatus};
use serde_json::{Value, json};

use super::FrontDoor;
use super::body::{Body, Fields};
use super::errors::{ApiError, ApiResult};
use super::lookup::IdPath;
use super::paging::{Page, next_query};
use super::quota::Kind;
use super::request::Caller;
use super::views;
use super::volume_filter::{parse_metadata, project};

/// `GET /snapshots`.
pub(crate) async fn list(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_snapshots(&caller).await?;
    let lines = found.snapshots.iter().map(|snapshot| views::snapshot_summary(snapshot).into()).collect();
    Ok(Json(found.page(&caller, "snapshots", lines)))
}

/// `GET /snapshots/detail`.
pub(crate) async fn list_detailed(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_snapshots(&caller).await?;
    let view = |snapshot| Value::Object(views::snapshot_detail(snapshot, caller.version, true));
    let lines = found.snapshots.iter().map(view).collect();
    Ok(Json(found.page(&caller, "snapshots/detail", lines)))
}

/// `GET /snapshots/{id}`.
pub(crate) async fn show(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    let snapshot = door.snapshot(&path.id).await?;
    Ok(Json(json!({"snapshot": views::snapshot_detail(&snapshot, caller.version, true)})))
}

/// `POST /snapshots`.
pub(crate) async fn create(State(door): State<Arc<FrontDoor>>, caller: Caller, body: Body) -> ApiResult {
    let known = ["name", "display_name", "description", "volume_id", "force", "metadata"];
    let fields = body.object("snapshot", &[])?.only(&known)?;
    fields.require("volume_id")?;
    let id = fields.uuid("volume_id")?.unwrap_or_default();
    let name = fields.label("name", "display_name")?.flatten();
    let description = fields.label("description", "description")?.flatten();
    let metadata = fields.metadata("metadata")?.unwrap_or_default();
    let force = fields.boolean("force")?;
    // Since 3.66 attached volumes need no force, and the flag may only say so.
    let always = caller.version.has(66);
    if always && force == Some(false) {
        return Err(ApiError::bad_request(
            "Invalid value for attribute 'force': since microversion 3.66 a snapshot of an attached volume needs no force \
             flag, and 'false' is not accepted; leave the flag out.",
        ));
    }
    let allowed: &[VolumeStatus] = match always || force.unwrap_or(false) {
        true => &[VolumeStatus::Available, VolumeStatus::InUse],
        false => &[VolumeStatus::Available],
    };

    let volume = door.volume(&id).await?;
    let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size);
    snapshot.display_name = name;
    snapshot.display_description = description;
    snapshot.metadata = metadata;
    let snapshot = door.create_snapshot(&caller, &volume, snapshot, allowed).await?;
    let view = views::snapshot_detail(&snapshot, caller.version, false);
    Ok((StatusCode::ACCEPTED, Json(json!({"snapshot": view}))).into_response())
}

/// `PUT /snapshots/{id}`: name and description.
pub(crate) async fn update(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let known = ["name", "description", "display_name", "display_description"];
    let fields = body.object("snapshot", &[])?.only(&known)?;
    fields.not_empty()?;
    let change = SnapshotChange {
        display_name: fields.label("name", "display_name")?,
        display_description: fields.label("description", "display_description")?,
        ..SnapshotChange::default()
    };
    let snapshot = door.snapshot(&path.id).await?;
    if door.database.snapshot_update(&snapshot.id, &Expect::any(), &change).await? == Swap::Gone {
        return Err(Fault::snapshot_not_found(&snapshot.id).into());
    }
    let snapshot = door.snapshot(&path.id).await?;
    Ok(Json(json!({"snapshot": views::snapshot_detail(&snapshot, caller.version, false)})))
}

/// `DELETE /snapshots/{id}`.
pub(crate) async fn delete(State(door): State<Arc<FrontDoor>>, caller: Caller, Path(path): Path<IdPath>) -> ApiResult {
    let snapshot = door.snapshot(&path.id).await?;
    door.delete_snapshot(&caller, snapshot, false).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// `POST /snapshots/{id}/action`: `os-reset_status` and `os-force_delete`.
pub(crate) async fn act(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult {
    let (action, arguments) = body.action()?;
    match action {
        "os-reset_status" => {
            let fields = Fields::of_action(action, arguments)?.only(&["status"])?;
            fields.require("status")?;
            let status = fields.text("status")?.unwrap_or_default().to_lowercase();
            if !SnapshotStatus::KNOWN.contains(&status.as_str()) {
                return Err(super::body::invalid(
                    "status",
                    &status.as_str().into(),
                    format_args!("'{status}' is not a snapshot status"),
                ));
            }
            door.reset_snapshot(&path.id, SnapshotStatus::from(status)).await?;
        }
        "os-force_delete" => {
            let snapshot = door.snapshot(&path.id).await?;
            door.delete_snapshot(&caller, snapshot, true).await?;
        }
        other => return Err(unknown_action(other)),
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// An action that there is not.
pub(crate) fn unknown_action(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "There is no such action: {name}. Verify the request body and Content-Type header and try again."
    ))
}

/// One page of snapshots.
struct Found {
    snapshots: Vec<Snapshot>,
    page: Page,
    count: Option<usize>,
}

impl Found {
    fn page(&self, caller: &Caller, collection: &str, lines: Vec<Value>) -> Value {
        let mut view = json!({"snapshots": lines});
        if let Some(last) = self.snapshots.last()
            && self.snapshots.len() as u64 >= self.page.limit
        {
            let query = next_query(&caller.query, last.id.as_str());
            view["snapshots_links"] = caller.links.next(collection, &query);
        }
        if let Some(count) = self.count {
            view["count"] = count.into();
        }
        view
    }
}

impl FrontDoor {
    async fn find_snapshots(&self, caller: &Caller) -> ApiResult<Found> {
        let mut query = caller.query();
        let page = query.take_page(self.page_limit)?;
        let with_count = caller.version.has(45) && query.take_flag("with_count")?;
        let filter = SnapshotFilter {
            project_id: project(caller, &mut query)?,
            volume_id: query.take("volume_id").map(|id| id.parse()).transpose()?,
            status: query.take("status").map(SnapshotStatus::from).into_iter().collect(),
            name: query.take("name").or_else(|| query.take("display_name")),
            ..SnapshotFilter::default()
        };
        let metadata = query.take("metadata").map(|text| parse_metadata(&text)).transpose()?.unwrap_or_default();
        query.done()?;

        // The database gives pages of the newest; whoever wants it otherwise gets it from the whole list.
        let newest = page.sort == [("created_at".to_owned(), true)];
        if newest && page.offset == 0 && metadata.is_empty() && !with_count && page.limit > 0 {
            let marker = page.marker.as_deref().map(str::parse).transpose()?;
            let filter = SnapshotFilter { limit: Some(page.limit), marker, ..filter };
            return Ok(Found { snapshots: self.database.snapshots(&filter).await?, page, count: None });
        }
        let mut all = self.database.snapshots(&filter).await?;
        all.retain(|snapshot| metadata.iter().all(|(key, value)| snapshot.metadata.get(key) == Some(value)));
        sort(&mut all, &page.sort)?;
        let count = with_count.then_some(all.len());
        let snapshots = page.cut(all, |snapshot| snapshot.id.as_str())?;
        Ok(Found { snapshots, page, count })
    }

    async fn create_snapshot(
        &self,
        caller: &Caller,
        volume: &Volume,
        mut snapshot: Snapshot,
        allowed: &[VolumeStatus],
    ) -> ApiResult<Snapshot> {
        check_source(volume, allowed)?;
        snapshot.user_id = caller.context.user_id.clone();
        snapshot.project_id = Some(caller.project.clone());
        snapshot.volume_type_id = volume.volume_type_id.clone();
        snapshot.encryption_key_id = volume.encryption_key_id.clone();

        let all = [("snapshots", 1), ("gigabytes", volume.size)];
        let resources = if self.snapshots_use_gigabytes { &all[..] } else { &all[..1] };
        let of_type = volume.volume_type.as_ref();
        let reservation = self.reserve(&caller.project, Kind::Snapshot, resources, of_type).await?;
        match self.write_snapshot(&snapshot, allowed).await {
            Ok(written) => snapshot = written,
            Err(error) => {
                self.roll_back(reservation).await;
                return Err(error);
            }
        }
        self.commit(reservation).await?;
        self.send_create_snapshot(caller, volume, &snapshot).await?;
        Ok(snapshot)
    }

    /// The row first, then a look at the volume's status: see [`FrontDoor::delete_volume`].
    async fn write_snapshot(&self, snapshot: &Snapshot, allowed: &[VolumeStatus]) -> ApiResult<Snapshot> {
        let written = self.database.snapshot_create(snapshot).await?;
        let checked = match self.volume(snapshot.volume_id.as_str()).await {
            Ok(volume) => check_source(&volume, allowed),
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            let any = Expect::any();
            if let Err(error) = self.database.snapshot_destroy(&written.id, &any, None, None).await {
                tracing::error!(%error, snapshot = %written.id, "a snapshot that may not be made could not be removed");
            }
            return Err(error);
        }
        Ok(written)
    }

    async fn send_create_snapshot(&self, caller: &Caller, volume: &Volume, snapshot: &Snapshot) -> ApiResult<()> {
        let sent = async {
            self.worker_for_snapshot(snapshot).await?;
            Ok::<_, ApiError>(self.rpc.create_snapshot(&caller.context, volume, snapshot).await?)
        };
        let Err(error) = sent.await else { return Ok(()) };
        if self.forget_work(ResourceType::Snapshot, snapshot.id.as_str()).await? {
            let failed = SnapshotChange { status: Some(SnapshotStatus::Error), ..SnapshotChange::default() };
            let expect = Expect::status(SnapshotStatus::Creating);
            self.database.snapshot_update(&snapshot.id, &expect, &failed).await?;
        }
        Err(error)
    }

    async fn delete_snapshot(&self, caller: &Caller, snapshot: Snapshot, force: bool) -> ApiResult<()> {
        let deletable = [SnapshotStatus::Available, SnapshotStatus::Error];
        let grouped = snapshot.cgsnapshot_id.is_some() || snapshot.group_snapshot_id.is_some();
        let refused = || {
            let status = if force { "" } else { "status must be available or error and" };
            Fault::invalid_snapshot(format_args!("Snapshot {status} must not be part of a group."))
        };
        if grouped {
            return Err(refused().into());
        }
        let before = snapshot.status.clone();
        let expect = Expect { status: if force { vec![before.clone()] } else { deletable.to_vec() }, worker: None };
        let change = SnapshotChange { status: Some(SnapshotStatus::Deleting), ..SnapshotChange::default() };
        match self.database.snapshot_update(&snapshot.id, &expect, &change).await? {
            Swap::Done => {}
            Swap::Gone => return Err(Fault::snapshot_not_found(&snapshot.id).into()),
            Swap::Unexpected { .. } | Swap::Replaced => return Err(refused().into()),
        }
        let snapshot = Snapshot { status: SnapshotStatus::Deleting, ..snapshot };
        let sent = async {
            let volume = self.volume(snapshot.volume_id.as_str()).await?;
            Ok::<_, ApiError>(self.rpc.delete_snapshot(&caller.context, &volume, &snapshot, false).await?)
        };
        let Err(error) = sent.await else { return Ok(()) };
        let change = SnapshotChange { status: Some(before), ..SnapshotChange::default() };
        let expect = Expect::status(SnapshotStatus::Deleting);
        self.database.snapshot_update(&snapshot.id, &expect, &change).await?;
        Err(error)
    }

    async fn reset_snapshot(&self, id: &str, status: SnapshotStatus) -> ApiResult<()> {
        let snapshot = self.snapshot(id).await?;
        let change = SnapshotChange { status: Some(status), ..SnapshotChange::default() };
        match self.database.snapshot_update(&snapshot.id, &Expect::any(), &change).await? {
            Swap::Gone => Err(Fault::snapshot_not_found(id).into()),
            _ => Ok(()),
        }
    }
}

/// Sorts by the keys that `cinder/api/v3/snapshots.py` documents.
fn sort(snapshots: &mut [Snapshot], keys: &[(String, bool)]) -> ApiResult<()> {
    type Key = fn(&Snapshot) -> (Option<u64>, String);
    // The last key first: the sort is stable.
    for (key, descending) in keys.iter().rev() {
        let key: Key = match key.as_str() {
            "created_at" => |snapshot| (None, snapshot.created_at.map(|at| at.to_iso_micros()).unwrap_or_default()),
            "updated_at" => |snapshot| (None, snapshot.updated_at.map(|at| at.to_iso_micros()).unwrap_or_default()),
            "name" | "display_name" => |snapshot| (None, snapshot.display_name.clone().unwrap_or_default()),
            "status" => |snapshot| (None, snapshot.status.to_string()),
            "volume_id" => |snapshot| (None, snapshot.volume_id.to_string()),
            "volume_size" | "size" => |snapshot| (Some(snapshot.volume_size), String::new()),
            "id" => |snapshot| (None, snapshot.id.to_string()),
            _ => return Err(Fault::invalid_input("Invalid sort key").into()),
        };
        snapshots.sort_by_key(key);
        if *descending {
            snapshots.reverse();
        }
    }
    Ok(())
}

/// Whether a snapshot of this volume may be made (`_create_snapshot_in_db_validate`).
fn check_source(volume: &Volume, allowed: &[VolumeStatus]) -> ApiResult<()> {
    let migrating = !matches!(volume.migration_status.as_deref(), None | Some("deleting" | "error" | "success"));
    let reason = match &volume.status {
        _ if volume.host.is_none() => {
            "The snapshot cannot be created because volume has not been scheduled to any host.".to_owned()
        }
        VolumeStatus::Maintenance => {
            "The snapshot cannot be created when the volume is in maintenance mode.".to_owned()
        }
        _ if migrating => "Snapshot cannot be created while volume is migrating.".to_owned(),
        VolumeStatus::Error => "The snapshot cannot be created when the volume is in error status.".to_owned(),
        status if allowed.contains(status) => return Ok(()),
        status => {
            let allowed = allowed.iter().map(VolumeStatus::as_str).collect::<Vec<_>>().join(", ");
            format!("Volume {} status must be {allowed}, but current status is: {status}.", volume.id)
        }
    };
    Err(Fault::invalid_volume(reason).into())
}
