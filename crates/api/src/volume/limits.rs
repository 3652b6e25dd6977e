//! Limits and quotas (`cinder/api/v3/limits.py`, `cinder/api/contrib/quotas.py`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use scoria_model::Fault;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::FrontDoor;
use super::body::Body;
use super::errors::{ApiError, ApiResult};
use super::request::Caller;

/// Names in the answer, of the limit and of what is used of it, and the resource.
const ABSOLUTE: [(&str, &str, &str); 5] = [
    ("maxTotalVolumes", "totalVolumesUsed", "volumes"),
    ("maxTotalVolumeGigabytes", "totalGigabytesUsed", "gigabytes"),
    ("maxTotalSnapshots", "totalSnapshotsUsed", "snapshots"),
    ("maxTotalBackups", "totalBackupsUsed", "backups"),
    ("maxTotalBackupGigabytes", "totalBackupGigabytesUsed", "backup_gigabytes"),
];

/// The project whose quota an address names, which need not be the caller's.
#[derive(Debug, Deserialize)]
pub(crate) struct ProjectPath {
    project: String,
}

/// `GET /limits`, since 3.39 also of another project.
pub(crate) async fn limits(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let mut query = caller.query();
    let named = query.take("project_id").or_else(|| query.take("tenant_id")).filter(|_| caller.version.has(39));
    let project = named.unwrap_or_else(|| caller.project.clone());
    let limits = door.database.quota_limits(&project, &door.quotas).await?;
    let usages = door.database.quota_usages(&project).await?;
    let mut absolute = Map::new();
    for (max, used, resource) in ABSOLUTE {
        absolute.insert(max.to_owned(), limits.get(resource).copied().unwrap_or(-1).into());
        absolute.insert(used.to_owned(), usages.get(resource).map_or(0, |usage| usage.in_use).into());
    }
    Ok(Json(json!({"limits": {"rate": [], "absolute": absolute}})))
}

/// `GET /os-quota-sets/{project}?usage=…`.
pub(crate) async fn quota_set(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<ProjectPath>,
) -> ApiResult<Json<Value>> {
    let with_usage = caller.query().take_flag("usage")?;
    let limits = door.database.quota_limits(&path.project, &door.quotas).await?;
    let mut set = Map::new();
    if with_usage {
        let usages = door.database.quota_usages(&path.project).await?;
        for (resource, limit) in limits {
            let (in_use, reserved) = usages.get(&resource).map_or((0, 0), |usage| (usage.in_use, usage.reserved));
            set.insert(resource, json!({"limit": limit, "in_use": in_use, "reserved": reserved}));
        }
    } else {
        set.extend(limits.into_iter().map(|(resource, limit)| (resource, limit.into())));
    }
    set.insert("id".to_owned(), path.project.into());
    Ok(Json(json!({"quota_set": set})))
}

/// `GET /os-quota-sets/{project}/defaults`.
pub(crate) async fn quota_defaults(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<ProjectPath>,
) -> ApiResult<Json<Value>> {
    // A project without a name has no limits of its own.
    let defaults = door.database.quota_limits("", &door.quotas).await?;
    let mut set: Map<String, Value> = defaults.into_iter().map(|(resource, limit)| (resource, limit.into())).collect();
    set.insert("id".to_owned(), path.project.into());
    Ok(Json(json!({"quota_set": set})))
}

/// Resources that have a limit in every project, whether one is written down or not.
const RESOURCES: [&str; 7] =
    ["volumes", "snapshots", "gigabytes", "per_volume_gigabytes", "backups", "backup_gigabytes", "groups"];
/// Those that have one for each volume type, too.
const BY_TYPE: [&str; 3] = ["volumes", "snapshots", "gigabytes"];

/// `PUT /os-quota-sets/{project}`: all of the limits are set, or none.
pub(crate) async fn change_quota_set(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<ProjectPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let set = body.object("quota_set", &[])?;
    set.not_empty()?;
    let usages = door.database.quota_usages(&path.project).await?;
    let (mut limits, mut unknown) = (BTreeMap::new(), Vec::new());
    for (resource, value) in set.map.iter().filter(|(key, _)| !["tenant_id", "id"].contains(&key.as_str())) {
        if !door.has_limit(resource).await? {
            unknown.push(resource.as_str());
            continue;
        }
        let limit = limit(resource, value)?;
        let used = usages.get(resource).map_or(0, |usage| usage.in_use + usage.reserved);
        if limit != -1 && limit < used && resource != "per_volume_gigabytes" {
            return Err(ApiError::bad_request(format!(
                "Quota {resource} limit must be equal or greater than existing resources. Current usage is {used} and the \
                 requested limit is {limit}."
            )));
        }
        limits.insert(resource.clone(), limit);
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(Fault::invalid_input(format_args!("Bad key(s) in quota set: {unknown}")).into());
    }
    door.database.quota_set_limits(&path.project, &limits).await?;
    let limits = door.database.quota_limits(&path.project, &door.quotas).await?;
    Ok(Json(json!({"quota_set": limits})))
}

/// `DELETE /os-quota-sets/{project}`: the defaults hold again.
pub(crate) async fn reset_quota_set(
    State(door): State<Arc<FrontDoor>>,
    _caller: Caller,
    Path(path): Path<ProjectPath>,
) -> ApiResult<()> {
    Ok(door.database.quota_reset_limits(&path.project).await?)
}

impl FrontDoor {
    async fn has_limit(&self, resource: &str) -> ApiResult<bool> {
        if RESOURCES.contains(&resource) {
            return Ok(true);
        }
        match resource.split_once('_') {
            Some((plain, name)) if BY_TYPE.contains(&plain) => {
                Ok(self.database.volume_type_by_name(name).await?.is_some())
            }
            _ => Ok(false),
        }
    }
}

/// From -1 to the largest integer of the schema's columns; digits in a text are a number, too.
fn limit(resource: &str, value: &Value) -> ApiResult<i64> {
    let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match number {
        Some(number) if number < -1 => Err(ApiError::bad_request(format!("{resource} must be >= -1"))),
        Some(number) if number > i64::from(i32::MAX) => {
            Err(ApiError::bad_request(format!("{resource} must be <= {}", i32::MAX)))
        }
        Some(number) => Ok(number),
        None => Err(ApiError::bad_request(format!("{resource} must be an integer"))),
    }
}
