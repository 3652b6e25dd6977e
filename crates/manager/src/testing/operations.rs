//! Every operation with steps, judged by the laws.

use std::sync::Mutex;

use async_trait::async_trait;
use scoria_model::{Snapshot, SnapshotStatus, Volume, VolumeStatus, object};
use scoria_rpc::Request;
use serde_json::json;

use super::laws::{Case, judge};
use super::world::{World, create_request, request};

/// What `arrange` made, for the checks.
pub(super) struct Made<T>(Mutex<Option<T>>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Made<T> {
    pub(super) fn set(&self, value: T) {
        *self.0.lock().unwrap() = Some(value);
    }
    pub(super) fn get(&self) -> T {
        self.0.lock().unwrap().clone().expect("arranged")
    }
}

#[derive(Clone, Copy, PartialEq)]
enum From {
    Nothing,
    Volume,
    Snapshot,
}

struct CreateVolume {
    from: From,
    made: Made<Volume>,
}

#[async_trait]
impl Case for CreateVolume {
    async fn arrange(&self, world: &World) -> Request {
        let volume = match self.from {
            From::Nothing => world.row(1, |_| {}).await,
            From::Volume => {
                let source = world.volume(1).await;
                world.write(&source, b"source data");
                world.row(2, |volume| volume.source_volid = Some(source.id.clone())).await
            }
            From::Snapshot => {
                let source = world.volume(1).await;
                world.write(&source, b"source data");
                let snapshot = world.snapshot(&source).await;
                world.row(2, |volume| volume.snapshot_id = Some(snapshot.id.clone())).await
            }
        };
        self.made.set(volume.clone());
        create_request(&volume, json!({}))
    }

    async fn worked(&self, world: &World) {
        let volume = world.get(&self.made.get().id).await;
        assert_eq!(volume.status, VolumeStatus::Available);
        assert!(volume.launched_at.is_some() && volume.provider_location.is_some());
        assert_eq!(volume.shared_targets, Some(false));
        let (data, length) = world.read(&volume);
        assert_eq!(length, volume.size * scoria_model::GIB, "the size that was asked for");
        let expected: &[u8] = if self.from == From::Nothing { &[0; 11] } else { b"source data" };
        assert_eq!(data, expected);
    }

    async fn failed(&self, world: &World) {
        let volume = world.get(&self.made.get().id).await;
        assert_eq!(volume.status, VolumeStatus::Error);
        assert!(!world.files().contains(&format!("volume-{}", volume.id)));
    }
}

#[derive(Default)]
struct DeleteVolume {
    cascade: bool,
    made: Made<Volume>,
}

#[async_trait]
impl Case for DeleteVolume {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        if self.cascade {
            for _ in 0..2 {
                let snapshot = world.snapshot(&world.get(&volume.id).await).await;
                world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
            }
        }
        world.set_status(&volume.id, VolumeStatus::Deleting).await;
        self.made.set(volume.clone());
        request("delete_volume", json!({"volume": object::encode_volume(&volume), "cascade": self.cascade}))
    }

    async fn worked(&self, world: &World) {
        assert_eq!(world.db.volume_get(&self.made.get().id).await.unwrap(), None);
        assert_eq!(world.files(), Vec::<String>::new());
    }

    async fn failed(&self, world: &World) {
        assert_eq!(world.get(&self.made.get().id).await.status, VolumeStatus::ErrorDeleting);
    }
}

#[derive(Default)]
struct CreateSnapshot(Made<Snapshot>);

#[async_trait]
impl Case for CreateSnapshot {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        let snapshot = world.snapshot_row(&volume).await;
        self.0.set(snapshot.clone());
        request("create_snapshot", json!({"snapshot": object::encode_snapshot(&snapshot)}))
    }

    async fn worked(&self, world: &World) {
        let snapshot = world.db.snapshot_get(&self.0.get().id).await.unwrap().unwrap();
        assert_eq!((snapshot.status, snapshot.progress.as_deref()), (SnapshotStatus::Available, Some("100%")));
        let volume = world.get(&snapshot.volume_id).await;
        assert_eq!(volume.admin_metadata["format"], "qcow2");
        assert_eq!(volume.admin_metadata["base_format"], "raw");
        assert_eq!(world.files().len(), 3, "base, overlay and info: {:?}", world.files());
    }

    async fn failed(&self, world: &World) {
        let snapshot = world.db.snapshot_get(&self.0.get().id).await.unwrap().unwrap();
        assert_eq!(snapshot.status, SnapshotStatus::Error);
        let volume = world.get(&snapshot.volume_id).await;
        assert_eq!(volume.admin_metadata["format"], "raw", "what the volume is attached as");
        assert!(!world.files().iter().any(|file| file.ends_with(snapshot.id.as_str())), "{:?}", world.files());
    }
}

#[derive(Default)]
struct DeleteSnapshot(Made<Snapshot>);

#[async_trait]
impl Case for DeleteSnapshot {
    async fn arrange(&self, world: &World) -> Request {
        let snapshot = world.snapshot(&world.volume(1).await).await;
        world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
        self.0.set(snapshot.clone());
        request("delete_snapshot", json!({"snapshot": object::encode_snapshot(&snapshot)}))
    }

    async fn worked(&self, world: &World) {
        let snapshot = self.0.get();
        assert_eq!(world.db.snapshot_get(&snapshot.id).await.unwrap(), None);
        let volume = world.get(&snapshot.volume_id).await;
        assert_eq!(volume.admin_metadata["format"], "raw");
        assert!(!world.files().iter().any(|file| file.ends_with(snapshot.id.as_str())), "{:?}", world.files());
    }

    async fn failed(&self, world: &World) {
        let snapshot = world.db.snapshot_get(&self.0.get().id).await.unwrap().unwrap();
        assert_eq!(snapshot.status, SnapshotStatus::ErrorDeleting);
    }
}

#[derive(Default)]
struct ExtendVolume(Made<Volume>);

#[async_trait]
impl Case for ExtendVolume {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        world.set_status(&volume.id, VolumeStatus::Extending).await;
        self.0.set(volume.clone());
        let args = json!({"volume": object::encode_volume(&volume), "new_size": 3, "reservations": []});
        request("extend_volume", args)
    }

    async fn worked(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!((volume.status, volume.size), (VolumeStatus::Available, 3));
        let file = world.share().join(format!("volume-{}", volume.id));
        assert_eq!(std::fs::metadata(file).unwrap().len(), 3 * scoria_model::GIB);
    }

    async fn failed(&self, world: &World) {
        let volume = world.get(&self.0.get().id).await;
        assert_eq!((volume.status, volume.size), (VolumeStatus::ErrorExtending, 1));
    }
}

#[derive(Default)]
struct RevertToSnapshot(Made<Snapshot>);

impl RevertToSnapshot {
    /// What the volume's file has where [`World::write`] writes, read through the chain.
    fn content(world: &World, snapshot: &Snapshot) -> bool {
        let overlay = world.share().join(format!("volume-{}.{}", snapshot.volume_id, snapshot.id));
        let read = "read -P 0x2a 4096 512";
        let out = std::process::Command::new("qemu-io").args(["-r", "-f", "qcow2", "-c", read]).arg(overlay).output();
        let out = out.expect("qemu-io (Debian package qemu-utils)");
        out.status.success() && !String::from_utf8_lossy(&out.stdout).contains("verification failed")
    }
}

#[async_trait]
impl Case for RevertToSnapshot {
    async fn arrange(&self, world: &World) -> Request {
        let volume = world.volume(1).await;
        world.write(&volume, &[0x2a; 512]);
        let snapshot = world.snapshot(&volume).await;
        let overlay = world.share().join(format!("volume-{}.{}", volume.id, snapshot.id));
        let write = ["-f", "qcow2", "-c", "write -P 0x77 4096 512"];
        let written = std::process::Command::new("qemu-io").args(write).arg(overlay).output();
        assert!(written.expect("qemu-io (Debian package qemu-utils)").status.success());
        assert!(!Self::content(world, &snapshot));
        world.set_status(&volume.id, VolumeStatus::Reverting).await;
        world.set_snapshot_status(&snapshot.id, SnapshotStatus::Restoring).await;
        self.0.set(snapshot.clone());
        let volume = world.get(&volume.id).await;
        let (volume, snapshot) = (object::encode_volume(&volume), object::encode_snapshot(&snapshot));
        request("revert_to_snapshot", json!({"volume": volume, "snapshot": snapshot}))
    }

    async fn worked(&self, world: &World) {
        let snapshot = world.db.snapshot_get(&self.0.get().id).await.unwrap().unwrap();
        assert_eq!(snapshot.status, SnapshotStatus::Available);
        assert_eq!(world.get(&snapshot.volume_id).await.status, VolumeStatus::Available);
        assert!(Self::content(world, &snapshot), "the content at the snapshot");
    }

    async fn failed(&self, world: &World) {
        let snapshot = world.db.snapshot_get(&self.0.get().id).await.unwrap().unwrap();
        assert_eq!(snapshot.status, SnapshotStatus::Available);
        let volume = world.get(&snapshot.volume_id).await;
        assert_eq!((volume.status, volume.admin_metadata["format"].as_str()), (VolumeStatus::Error, "qcow2"));
    }
}

#[tokio::test]
async fn create_blank_volume() {
    judge(&CreateVolume { from: From::Nothing, made: Made::default() }).await;
}

#[tokio::test]
async fn create_volume_from_volume() {
    judge(&CreateVolume { from: From::Volume, made: Made::default() }).await;
}

#[tokio::test]
async fn create_volume_from_snapshot() {
    judge(&CreateVolume { from: From::Snapshot, made: Made::default() }).await;
}

#[tokio::test]
async fn delete_volume() {
    judge(&DeleteVolume::default()).await;
}

#[tokio::test]
async fn delete_volume_with_its_snapshots() {
    judge(&DeleteVolume { cascade: true, made: Made::default() }).await;
}

#[tokio::test]
async fn create_snapshot() {
    judge(&CreateSnapshot::default()).await;
}

#[tokio::test]
async fn delete_snapshot() {
    judge(&DeleteSnapshot::default()).await;
}

#[tokio::test]
async fn extend_volume() {
    judge(&ExtendVolume::default()).await;
}

#[tokio::test]
async fn revert_to_snapshot() {
    judge(&RevertToSnapshot::default()).await;
}
