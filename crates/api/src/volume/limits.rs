//! Limits and quotas (`cinder/api/v3/limits.py`, `cinder/api/contrib/quotas.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::FrontDoor;
use super::errors::ApiResult;
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
