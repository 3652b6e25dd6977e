//! Listing, showing and renaming volumes (`cinder/api/v3/volumes.py`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use scoria_db::{Expect, Swap, VolumeChange};
use scoria_model::{Fault, Volume, VolumeStatus};
use serde_json::{Value, json};

use super::FrontDoor;
use super::body::Body;
use super::errors::ApiResult;
use super::lookup::IdPath;
use super::paging::{Page, next_query};
use super::request::Caller;
use super::views;
use super::volume_filter::Wanted;

/// `GET /volumes`.
pub(crate) async fn list(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_volumes(&caller).await?;
    let lines = found.volumes.iter().map(|volume| views::volume_summary(volume, &caller.links)).collect();
    Ok(Json(found.page(&caller, "volumes", lines)))
}

/// `GET /volumes/detail`.
pub(crate) async fn list_detailed(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_volumes(&caller).await?;
    let view = |volume| Value::Object(views::volume_full(volume, &caller.links, caller.version));
    let lines = found.volumes.iter().map(view).collect();
    Ok(Json(found.page(&caller, "volumes/detail", lines)))
}

/// `GET /volumes/summary` (since 3.12): how many, how large, and which metadata (since 3.36).
pub(crate) async fn overview(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.version.require(12)?;
    let wanted = Wanted::read(&caller, caller.query())?;
    let volumes = wanted.select(door.database.volumes(&wanted.unpaged()).await?);
    let size: u64 = volumes.iter().map(|volume| volume.size).sum();
    let mut summary = json!({"total_count": volumes.len(), "total_size": size});
    if caller.version.has(36) {
        let mut distinct: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in volumes.into_iter().flat_map(|volume| volume.metadata) {
            let values = distinct.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        summary["metadata"] = json!(distinct);
    }
    Ok(Json(json!({"volume-summary": summary})))
}

/// `GET /volumes/{id}`.
pub(crate) async fn show(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    let volume = door.volume(&path.id).await?;
    Ok(Json(json!({"volume": views::volume_full(&volume, &caller.links, caller.version)})))
}

/// `PUT /volumes/{id}`: name, description, metadata.
pub(crate) async fn update(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let known = ["name", "description", "display_name", "display_description", "metadata"];
    let fields = body.object("volume", &[])?.only(&known)?;
    if caller.version.has(53) {
        fields.not_empty()?;
    }
    let change = VolumeChange {
        display_name: fields.label("name", "display_name")?,
        display_description: fields.label("description", "display_description")?,
        ..VolumeChange::default()
    };
    let metadata = fields.metadata("metadata")?;

    let volume = door.volume(&path.id).await?;
    if volume.status == VolumeStatus::Maintenance {
        return Err(Fault::invalid_volume("The volume cannot be updated during maintenance.").into());
    }
    if let Some(metadata) = metadata {
        door.database.volume_metadata_update(&volume.id, &metadata, true).await?;
    }
    if door.database.volume_update(&volume.id, &Expect::any(), &change).await? == Swap::Gone {
        return Err(Fault::volume_not_found(&volume.id).into());
    }
    let volume = door.volume(&path.id).await?;
    Ok(Json(json!({"volume": views::volume_detail(&volume, &caller.links, caller.version)})))
}

/// One page of volumes.
struct Found {
    volumes: Vec<Volume>,
    page: Page,
    /// How many there are on all pages, where that was asked for.
    count: Option<usize>,
}

impl Found {
    fn page(&self, caller: &Caller, collection: &str, lines: Vec<Value>) -> Value {
        let mut view = json!({"volumes": lines});
        if let Some(last) = self.volumes.last()
            && self.volumes.len() as u64 >= self.page.limit
        {
            let query = next_query(&caller.query, last.id.as_str());
            view["volumes_links"] = caller.links.next(collection, &query);
        }
        if let Some(count) = self.count {
            view["count"] = count.into();
        }
        view
    }
}

impl FrontDoor {
    async fn find_volumes(&self, caller: &Caller) -> ApiResult<Found> {
        let mut query = caller.query();
        let page = query.take_page(self.page_limit)?;
        let with_count = caller.version.has(45) && query.take_flag("with_count")?;
        let wanted = Wanted::read(caller, query)?;
        let count = match with_count {
            true => Some(wanted.select(self.database.volumes(&wanted.unpaged()).await?).len()),
            false => None,
        };
        let mut volumes = match page.limit {
            0 => Vec::new(),
            _ => wanted.cut(self.database.volumes(&wanted.paged(&page)?).await?, &page)?,
        };
        // Lists come without their types: one query for all of them.
        let types = self.database.volume_types().await?;
        for volume in &mut volumes {
            volume.volume_type = types.iter().find(|one| Some(&one.id) == volume.volume_type_id.as_ref()).cloned();
        }
        Ok(Found { volumes, page, count })
    }
}
