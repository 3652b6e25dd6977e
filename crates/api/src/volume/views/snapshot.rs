//! Snapshots (`cinder/api/v3/views/snapshots.py`).

use scoria_model::Snapshot;
use serde_json::{Map, Value, json};

use super::time;
use crate::volume::microversion::Microversion;

/// One line of a list without details.
pub(crate) fn summary(snapshot: &Snapshot) -> Map<String, Value> {
    let view = json!({
        "id": snapshot.id.as_str(),
        "created_at": time(snapshot.created_at),
        "updated_at": time(snapshot.updated_at),
        "name": snapshot.display_name,
        "description": snapshot.display_description,
        "volume_id": snapshot.volume_id.as_str(),
        "status": snapshot.status.as_str(),
        "size": snapshot.volume_size,
        "metadata": snapshot.metadata,
    });
    match view {
        Value::Object(view) => view,
        _ => Map::new(),
    }
}

/// A snapshot; `extended` adds what show and detailed lists have beyond the answers to create and update.
pub(crate) fn detail(snapshot: &Snapshot, version: Microversion, extended: bool) -> Map<String, Value> {
    let mut view = summary(snapshot);
    let mut set = |key: &str, value: Value| view.insert(key.to_owned(), value);
    if version.has(14) {
        set("group_snapshot_id", snapshot.group_snapshot_id.clone().into());
    }
    if version.has(41) {
        set("user_id", snapshot.user_id.clone().into());
    }
    if version.has(65) {
        set("consumes_quota", snapshot.use_quota.into());
    }
    if extended {
        set("os-extended-snapshot-attributes:project_id", snapshot.project_id.clone().into());
        set("os-extended-snapshot-attributes:progress", snapshot.progress.clone().into());
    }
    view
}

#[cfg(test)]
mod tests {
    use scoria_model::{SnapshotId, VolumeId};

    use super::*;

    #[test]
    fn fields_come_with_their_microversions() {
        let snapshot = Snapshot::new(SnapshotId::random(), VolumeId::random(), 3);
        let has = |minor, key| detail(&snapshot, Microversion::minor(minor), false).contains_key(key);
        for (minor, key) in [(14, "group_snapshot_id"), (41, "user_id"), (65, "consumes_quota")] {
            assert!(!has(minor - 1, key) && has(minor, key), "{key} comes with 3.{minor}");
        }
        let view = detail(&snapshot, Microversion::MIN, true);
        assert_eq!(view["size"], 3);
        assert_eq!(view["os-extended-snapshot-attributes:progress"], "0%");
    }
}
