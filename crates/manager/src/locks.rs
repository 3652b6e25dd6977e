//! The names of the locks that operations take (lock-map: without the `cinder-` prefix).

use scoria_coordination::{LockRequest, Owner};
use scoria_model::{SnapshotId, VolumeId};

/// `cinder/volume/manager.py: VolumeManager.delete_volume`; clones of the volume read under it.
pub(crate) fn delete_volume(id: &VolumeId) -> String {
    format!("{id}-delete_volume")
}

/// `VolumeManager.delete_snapshot`; volumes made from the snapshot read under it.
pub(crate) fn delete_snapshot(id: &SnapshotId) -> String {
    format!("{id}-delete_snapshot")
}

/// The driver's lock of a volume: its files and their chain
/// (`cinder/volume/drivers/remotefs.py: RemoteFSSnapDriverDistributed`).
pub(crate) fn driver(prefix: &str, id: &VolumeId) -> String {
    format!("{prefix}-{id}")
}

/// `VolumeManager.attach_volume`.
pub(crate) fn attach_volume(id: &VolumeId) -> String {
    id.to_string()
}

/// Of whoever makes or ends exports of a volume. It is the name that `VolumeManager.detach_volume` holds while it removes
/// the export, so that a Python member excludes us and we exclude it.
pub(crate) fn exports(id: &VolumeId) -> String {
    format!("{id}-detach_volume")
}

/// An empty request of an operation.
pub(crate) fn request(operation: &str, request_id: Option<&str>, resource: &str) -> LockRequest {
    LockRequest::new(Owner {
        operation: operation.to_owned(),
        request_id: request_id.map(str::to_owned),
        resource: Some(resource.to_owned()),
    })
}
