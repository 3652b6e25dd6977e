//! Work that a former process of this service left behind.
//!
//! Most of it comes back by itself: its message was not acknowledged, so the broker delivers it again. What does not come
//! back within the grace time (an acknowledged long runner, a transport that lives in the process) is taken up from its
//! `workers` row: creations and deletions are carried on, an extension whose size nobody knows any more ends in
//! `error_extending`.

use std::sync::Arc;

use scoria_db::{VolumeOwner, WorkerFilter};
use scoria_model::{RequestContext, SnapshotStatus, VolumeStatus, Worker};
use scoria_runtime::Deadline;

use crate::args;
use crate::failure::{Failure, Interruption};
use crate::held::Job;
use crate::manager::VolumeManager;
use crate::operations;

impl VolumeManager {
    /// Looks once, after the grace time, for work that nobody does.
    pub fn start_recovery(self: &Arc<Self>) {
        let manager = self.clone();
        self.tasks.spawn("recovery", async move {
            tokio::select! {
                () = tokio::time::sleep(manager.options.recovery_grace) => {}
                () = manager.draining.cancelled() => return,
            }
            if let Err(error) = manager.recover().await {
                tracing::error!(%error, "interrupted work could not be looked for");
            }
        });
    }

    /// Takes up everything of this service that nobody is at work on.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), scoria_db::Error> {
        let mine = WorkerFilter { service_id: Some(self.service().id), ..WorkerFilter::default() };
        for row in self.db.workers_stale(&mine).await? {
            match row.resource_type.as_str() {
                "Volume" => self.take_up(Left::Volume(&row.resource_id), Some(&row)).await,
                "Snapshot" => self.take_up(Left::Snapshot(&row.resource_id), Some(&row)).await,
                other => tracing::warn!(resource_type = other, "a workers row of a kind that is not known here"),
            }
        }
        if !self.options.messages_die_with_us {
            return Ok(());
        }
        // What was asked for and not yet begun is lost with the process that carried the message: only the states are left.
        let host = self.options.service_host();
        for volume in self.db.volumes_of_service(VolumeOwner::Host(&host), None, None).await? {
            if matches!(volume.status, VolumeStatus::Creating | VolumeStatus::Deleting | VolumeStatus::Extending) {
                self.take_up(Left::Volume(volume.id.as_str()), None).await;
            }
        }
        for snapshot in self.db.snapshots_of_service(VolumeOwner::Host(&host)).await? {
            if matches!(snapshot.status, SnapshotStatus::Creating | SnapshotStatus::Deleting) {
                self.take_up(Left::Snapshot(snapshot.id.as_str()), None).await;
            }
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>, left: Left<'_>, row: Option<&Worker>) {
        let (Left::Volume(resource) | Left::Snapshot(resource)) = left;
        if self.running.is_at_work_on(resource) {
            return;
        }
        tracing::info!(resource, status = row.map(|row| row.status.as_str()), "taking up interrupted work");
        let outcome = match left {
            Left::Volume(id) => self.take_up_volume(id, row).await,
            Left::Snapshot(id) => self.take_up_snapshot(id, row).await,
        };
        if let Err(failure) = outcome {
            tracing::error!(resource, "interrupted work was not finished: {failure}");
        }
    }

    async fn take_up_volume(self: &Arc<Self>, id: &str, row: Option<&Worker>) -> Result<(), Failure> {
        let volume = match id.parse() {
            Ok(id) => self.db.volume_get(&id).await?,
            Err(_) => None,
        };
        let Some(volume) = volume.filter(|volume| stands_for(row, volume.status.as_str())) else {
            return self.forget(row).await;
        };
        match volume.status {
            VolumeStatus::Creating => {
                operations::resume_create_volume(self, &self.job("create_volume", id)?, &volume).await.map(drop)
            }
            VolumeStatus::Deleting => {
                operations::resume_delete_volume(self, &self.job("delete_volume", id)?, &volume).await.map(drop)
            }
            VolumeStatus::Extending => {
                operations::fail_extend(self, &volume.id, None).await?;
                self.forget(row).await
            }
            _ => Ok(()),
        }
    }

    async fn take_up_snapshot(self: &Arc<Self>, id: &str, row: Option<&Worker>) -> Result<(), Failure> {
        let snapshot = match args::snapshot_id(id) {
            Ok(id) => self.db.snapshot_get(&id).await?,
            Err(_) => None,
        };
        let Some(snapshot) = snapshot.filter(|snapshot| stands_for(row, snapshot.status.as_str())) else {
            return self.forget(row).await;
        };
        match snapshot.status {
            SnapshotStatus::Creating => {
                operations::resume_create_snapshot(self, &self.job("create_snapshot", id)?, &snapshot).await.map(drop)
            }
            SnapshotStatus::Deleting => {
                operations::resume_delete_snapshot(self, &self.job("delete_snapshot", id)?, &snapshot).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Our own request, in an administrator's name.
    fn job(&self, operation: &'static str, resource: &str) -> Result<Job, Failure> {
        let context = RequestContext::admin();
        let entry = self.running.enter(operation, resource, context.request_id.as_deref());
        let entry = entry.map_err(|_| Failure::from(Interruption::Draining))?;
        Ok(Job { context, operation, resource: resource.to_owned(), deadline: Deadline::NEVER, entry: Arc::new(entry) })
    }

    /// A row that is about nothing any more.
    async fn forget(&self, row: Option<&Worker>) -> Result<(), Failure> {
        if let Some(row) = row {
            self.db.worker_remove(row).await?;
        }
        Ok(())
    }
}

/// What was left behind, by id.
#[derive(Clone, Copy)]
enum Left<'a> {
    Volume(&'a str),
    Snapshot(&'a str),
}

/// Whether the resource is still in the state that its row is about.
fn stands_for(row: Option<&Worker>, status: &str) -> bool {
    row.is_none_or(|row| row.status == status)
}
