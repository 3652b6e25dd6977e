//! Carrying on with work whose holder is gone.
//!
//! What the row of the resource says is enough for deletions, snapshots, reversions and copies: they are carried on, by the
//! same steps over what is there. Where only the lost request knew what was wanted the work is given up in order (`abandon`).

use std::sync::Arc;

use scoria_model::{RequestContext, Snapshot, SnapshotStatus, Volume, VolumeStatus, Worker};
use scoria_runtime::Deadline;

use crate::args;
use crate::failure::{Failure, Interruption};
use crate::held::{Job, Swept};
use crate::manager::VolumeManager;
use crate::operations;

/// What was left behind: a resource, and its `workers` row if it has one.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) row: Option<Worker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
}

impl Left {
    /// Whether the resource is still in the state that its row is about.
    fn is_in(&self, status: &str) -> bool {
        self.row.as_ref().is_none_or(|row| row.status == status)
    }
}

impl VolumeManager {
    /// Carries on, unless somebody is at work after all.
    pub(crate) async fn take_up(self: &Arc<Self>, left: Left) {
        if self.running.is_at_work_on(&left.id) {
            return;
        }
        let Ok(_slot) = self.wait_for_slot(("heavy", &*self.heavy)).await else { return };
        let outcome = match left.kind {
            Kind::Volume => self.take_up_volume(&left).await,
            Kind::Snapshot => self.take_up_snapshot(&left).await,
        };
        match outcome {
            Ok(()) => {}
            Err(failure @ Failure::Fault(_)) => {
                tracing::error!(resource = left.id, "interrupted work was not finished: {failure}");
            }
            Err(failure) => tracing::debug!(resource = left.id, "interrupted work was left alone: {failure}"),
        }
    }

    async fn take_up_volume(self: &Arc<Self>, left: &Left) -> Result<(), Failure> {
        let volume = match left.id.parse() {
            Ok(id) => self.db.volume_get(&id).await?,
            Err(_) => None,
        };
        let Some(volume) = volume else { return self.forget(left).await };
        if !self.is_ours(&volume) {
            return Ok(());
        }
        if !left.is_in(volume.status.as_str()) {
            return self.forget(left).await;
        }
        let restoring = match volume.status {
            VolumeStatus::Reverting => self.restoring_snapshot(&volume).await?,
            _ => None,
        };
        let operation = match &volume.status {
            VolumeStatus::Creating if self.knows_the_source(&volume) => "create_volume",
            VolumeStatus::Deleting => "delete_volume",
            VolumeStatus::Reverting if restoring.is_some() => "revert_to_snapshot",
            VolumeStatus::Creating
            | VolumeStatus::Downloading
            | VolumeStatus::Extending
            | VolumeStatus::Uploading
            | VolumeStatus::Reverting => "abandon",
            _ => return Ok(()),
        };
        let job = self.job(operation, left, volume.project_id.clone())?;
        let outcome = match (operation, restoring) {
            ("create_volume", _) => operations::resume_create_volume(self, &job, &volume).await.map(drop),
            ("delete_volume", _) => operations::resume_delete_volume(self, &job, &volume).await.map(drop),
            (_, Some(snapshot)) => operations::resume_revert(self, &job, &snapshot).await.map(drop),
            _ => operations::abandon(self, &job, &volume.id, &volume.status).await,
        };
        self.ended(&job, outcome).await
    }

    /// Whether the row alone tells where a volume's content is to come from. Of images and backups only the request knew; where
    /// messages stay in the process no other service asks for them.
    fn knows_the_source(&self, volume: &Volume) -> bool {
        self.options.messages_die_with_us || volume.source_volid.is_some() || volume.snapshot_id.is_some()
    }

    /// The snapshot that a volume goes back to. There is none where that was settled already, or never asked for.
    async fn restoring_snapshot(&self, volume: &Volume) -> Result<Option<Snapshot>, Failure> {
        let snapshots = self.db.snapshots_of_volume(&volume.id).await?;
        Ok(snapshots.into_iter().find(|snapshot| snapshot.status == SnapshotStatus::Restoring))
    }

    async fn take_up_snapshot(self: &Arc<Self>, left: &Left) -> Result<(), Failure> {
        let snapshot = match args::snapshot_id(&left.id) {
            Ok(id) => self.db.snapshot_get(&id).await?,
            Err(_) => None,
        };
        let Some(snapshot) = snapshot else { return self.forget(left).await };
        if !self.is_ours_too(&snapshot).await? {
            return Ok(());
        }
        if !left.is_in(snapshot.status.as_str()) {
            return self.forget(left).await;
        }
        let operation = match snapshot.status {
            SnapshotStatus::Creating => "create_snapshot",
            SnapshotStatus::Deleting => "delete_snapshot",
            _ => return Ok(()),
        };
        let job = self.job(operation, left, snapshot.project_id.clone())?;
        let outcome = match operation {
            "create_snapshot" => operations::resume_create_snapshot(self, &job, &snapshot).await,
            _ => operations::resume_delete_snapshot(self, &job, &snapshot).await,
        };
        self.ended(&job, outcome.map(drop)).await
    }

    async fn is_ours_too(&self, snapshot: &Snapshot) -> Result<bool, Failure> {
        Ok(self.db.volume_get(&snapshot.volume_id).await?.is_some_and(|volume| self.is_ours(&volume)))
    }

    /// Our own request, in an administrator's name, for the owner of the resource.
    fn job(&self, operation: &'static str, left: &Left, project_id: Option<String>) -> Result<Job, Failure> {
        let context = RequestContext { project_id, ..RequestContext::admin() };
        let entry = self.running.enter(operation, &left.id, context.request_id.as_deref());
        let entry = entry.map_err(|_| Failure::from(Interruption::Draining))?;
        let mut job = Job::new(context, operation, left.id.clone(), Deadline::NEVER, entry, true);
        job.swept = Some(left.row.clone().map_or(Swept::State, Swept::Row));
        Ok(job)
    }

    async fn ended(&self, job: &Job, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if matches!(&outcome, Err(Failure::Interrupted(interruption)) if interruption.comes_again()) {
            self.put_down(job).await;
        }
        outcome
    }

    /// A row that is about nothing any more.
    async fn forget(&self, left: &Left) -> Result<(), Failure> {
        if let Some(row) = &left.row {
            self.db.worker_remove(row).await?;
        }
        Ok(())
    }
}
