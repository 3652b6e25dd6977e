//! What a server does for a snapshot of the volume that it has attached: asked of Nova, told by the snapshot's row.
//!
//! Nova answers as soon as it has taken a request on; how it ended, nova-compute has cinder-api write into the snapshot's row
//! (`cinder/volume/drivers/remotefs.py: RemoteFSSnapDriverBase._create_snapshot_online`, `_delete_snapshot_online`). A second request for
//! the same thing would fail and be reported as the failure of the first, so the row says that Nova was asked before it is, and
//! whoever takes the operation over only waits.

use std::time::Duration;

use scoria_compute::{Compute, Error};
use scoria_db::{Expect, SnapshotChange, WorkerClaim};
use scoria_drivers::{AssistedSnapshots, Merge};
use scoria_model::{AttachStatus, Attachment, Fault, FaultClass, Snapshot, SnapshotId, SnapshotStatus, Volume};
use serde_json::json;
use tokio::time::Instant;

use super::rows::settled;
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::manager::VolumeManager;

/// `progress` of a snapshot for which a server was asked to write into another file; nobody else writes it.
const ASKED_TO_SWITCH: &str = "10%";
/// `progress` of a snapshot for which a server was asked to merge files; nobody else writes it.
const ASKED_TO_MERGE: &str = "20%";
/// `progress` as nova-compute reports that it is done.
const DONE: &str = "90%";
/// How long a server may take to write into another file.
const SWITCH_WITHIN: Duration = Duration::from_secs(600);
/// How long a server may take to merge files.
const MERGE_WITHIN: Duration = Duration::from_secs(7200);
/// The row is looked at after a quarter of the time waited so far, within these bounds.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How it ended.
pub(super) enum Outcome {
    Done,
    /// The server has not begun, and will not.
    NotDone(Fault),
    /// Nobody knows what the server does.
    Unknown(Fault),
}

/// One snapshot for which a server is needed.
pub(super) struct Assistance<'a> {
    pub(super) manager: &'a VolumeManager,
    pub(super) job: &'a Job,
    pub(super) held: &'a Held,
    pub(super) snapshot: &'a SnapshotId,
    pub(super) claim: &'a WorkerClaim,
}

/// Whether a server may have been asked to write into the overlay of a snapshot that is being made.
pub(super) fn was_asked(snapshot: &Snapshot) -> bool {
    matches!(snapshot.progress.as_deref(), Some(ASKED_TO_SWITCH | DONE))
}

/// The driver's part for volumes that servers have open; `None` when this one has no need of it.
pub(super) fn of<'m>(manager: &'m VolumeManager, volume: &Volume) -> Option<&'m dyn AssistedSnapshots> {
    manager.driver.assisted_snapshots().filter(|_| volume.attach_status == AttachStatus::Attached)
}

/// Nova, when it can be asked.
pub(super) fn nova<'m>(manager: &'m VolumeManager, volume: &Volume) -> Result<&'m dyn Compute, Fault> {
    manager.compute.as_deref().ok_or_else(|| {
        let message = format!(
            "Volume {} is attached: snapshots of it need the help of its server, and Nova cannot be asked for it because [nova] \
             auth_type is not set. Set it, with the credentials of a user who may use os-assisted-volume-snapshots, or detach \
             the volume.",
            volume.id
        );
        Fault::new(FaultClass::VolumeDriverException, message)
    })
}

/// The one attachment of a volume: two servers cannot write into one overlay.
pub(super) fn sole_attachment(volume: &Volume) -> Result<&Attachment, Fault> {
    let mut attached =
        volume.attachments.iter().filter(|attachment| attachment.attach_status == AttachStatus::Attached);
    match (attached.next(), attached.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            Err(Fault::invalid_volume(format!("Volume {} is attached, but no attachment says to what.", volume.id)))
        }
        (Some(_), Some(_)) => {
            let reason = format!("Volume {} is attached to several servers: detach all but one of them.", volume.id);
            Err(Fault::invalid_volume(reason))
        }
    }
}

impl Assistance<'_> {
    /// Has the server write into an overlay.
    pub(super) async fn switch_to(&self, overlay: &str, volume: &Volume) -> Result<Outcome, Failure> {
        let info = json!({"type": "qcow2", "new_file": overlay, "snapshot_id": self.snapshot});
        match self.progress().await?.as_deref() {
            Some(DONE) => return Ok(Outcome::Done),
            Some(ASKED_TO_SWITCH) => {}
            _ => {
                let nova = nova(self.manager, volume)?;
                self.record(ASKED_TO_SWITCH, SnapshotStatus::Creating).await?;
                let asked = nova.create_volume_snapshot(self.request_id(), volume.id.as_str(), &info).await;
                if let Some(refused) = refusal("create", asked) {
                    return Ok(refused);
                }
            }
        }
        self.wait(SnapshotStatus::Creating, SWITCH_WITHIN).await
    }

    /// Has the server merge files.
    pub(super) async fn merge(&self, merge: &Merge, volume: &Volume) -> Result<Outcome, Failure> {
        let info = json!({
            "type": "qcow2",
            "file_to_merge": merge.file_to_merge,
            "merge_target_file": merge.merge_target_file,
            "volume_id": volume.id,
        });
        // A mark that a new request finds is that of one which came to nothing.
        let carries_on = self.job.again || self.job.swept.is_some();
        if !carries_on || self.progress().await?.as_deref() != Some(ASKED_TO_MERGE) {
            let nova = nova(self.manager, volume)?;
            self.record(ASKED_TO_MERGE, SnapshotStatus::Deleting).await?;
            let asked = nova.delete_volume_snapshot(self.request_id(), self.snapshot.as_str(), &info).await;
            if let Some(refused) = refusal("delete", asked) {
                return Ok(refused);
            }
        }
        self.wait(SnapshotStatus::Deleting, MERGE_WITHIN).await
    }

    fn request_id(&self) -> Option<&str> {
        self.job.context.request_id.as_deref()
    }

    async fn progress(&self) -> Result<Option<String>, Failure> {
        let row = self.manager.db.snapshot_get(self.snapshot).await?;
        Ok(row.ok_or_else(|| Interruption::Superseded("gone".to_owned()))?.progress)
    }

    async fn record(&self, progress: &str, status: SnapshotStatus) -> Result<(), Failure> {
        let change = SnapshotChange { progress: Some(Some(progress.to_owned())), ..SnapshotChange::default() };
        let expect = Expect::status(status).by(Some(self.claim));
        settled(self.manager.db.snapshot_update(self.snapshot, &expect, &change).await?, &[])
    }

    /// Waits for nova-compute's report.
    async fn wait(&self, status: SnapshotStatus, within: Duration) -> Result<Outcome, Failure> {
        let began = Instant::now();
        loop {
            match self.held.check("waiting for the server") {
                Err(Failure::Fault(too_late)) => return Ok(Outcome::Unknown(too_late)),
                other => other?,
            }
            let row = self.manager.db.snapshot_get(self.snapshot).await?;
            let row = row.ok_or_else(|| Interruption::Superseded("gone".to_owned()))?;
            if row.status != status {
                return Ok(Outcome::Unknown(reported(self.snapshot, &status, &row.status)));
            }
            if row.progress.as_deref() == Some(DONE) {
                return Ok(Outcome::Done);
            }
            let waited = began.elapsed();
            if waited > within {
                let message = format!(
                    "Timed out: the server has reported nothing about snapshot {} for {} s. Look into nova-compute's log.",
                    self.snapshot,
                    within.as_secs()
                );
                return Ok(Outcome::Unknown(Fault::new(FaultClass::RemoteFSException, message)));
            }
            tokio::select! {
                () = tokio::time::sleep((waited / 4).clamp(BETWEEN_LOOKS.0, BETWEEN_LOOKS.1)) => {}
                () = self.held.work.cancel.cancelled() => {}
            }
        }
    }
}

/// What Nova's answer means when it is no success. One that did not come is waited for: the report will tell.
fn refusal(what: &str, answer: Result<(), Error>) -> Option<Outcome> {
    let fault = |error: Error| Fault::new(FaultClass::RemoteFSException, error.to_string());
    match answer {
        Ok(()) => None,
        Err(error @ Error::Unknown(_)) => {
            tracing::warn!(%error, "no answer from Nova to {what} an assisted snapshot: waiting for the server's report");
            None
        }
        Err(error) => Some(Outcome::NotDone(fault(error))),
    }
}

/// The row has left the status of the operation.
fn reported(snapshot: &SnapshotId, expected: &SnapshotStatus, found: &SnapshotStatus) -> Fault {
    let (class, message) = match (expected, found) {
        (SnapshotStatus::Creating, SnapshotStatus::Error) => {
            let message = "Nova returned \"error\" status while creating snapshot.".to_owned();
            (FaultClass::RemoteFSException, message)
        }
        (SnapshotStatus::Creating, SnapshotStatus::Deleting | SnapshotStatus::ErrorDeleting) => {
            let message = "A concurrent, possibly contradictory, request has been made.".to_owned();
            (FaultClass::RemoteFSConcurrentRequest, message)
        }
        (SnapshotStatus::Creating, _) => {
            (FaultClass::RemoteFSException, format!("Snapshot {snapshot} has become {found} while it was taken."))
        }
        _ => (FaultClass::RemoteFSException, format!("Unable to delete snapshot {snapshot}, status: {found}.")),
    };
    Fault::new(class, message)
}
