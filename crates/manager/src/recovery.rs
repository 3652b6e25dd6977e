//! Work that a former process of this service left behind.
//!
//! Most of it comes back by itself: its message was not acknowledged, so the broker delivers it again. What does not come
//! back within the grace time (an acknowledged long runner, a transport that lives in the process) is taken up from its
//! `workers` row: creations and deletions are carried on, an extension whose size nobody knows any more ends in
//! `error_extending`.

use std::sync::Arc;

use scoria_db::WorkerFilter;
use scoria_model::{RequestContext, SnapshotStatus, VolumeStatus, Worker};
use scoria_runtime::Deadline;
use serde_json::Value;

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

    /// Takes up every worker row of this service that nobody is at work on.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), scoria_db::Error> {
        let mine = WorkerFilter { service_id: Some(self.service().id), ..WorkerFilter::default() };
        let rows = self.db.workers_stale(&mine).await?;
        for row in rows.into_iter().filter(|row| !self.running.is_at_work_on(&row.resource_id)) {
            tracing::info!(resource = row.resource_id, status = row.status, "taking up interrupted work");
            if let Err(failure) = self.take_up(&row).await {
                tracing::error!(resource = row.resource_id, "interrupted work was not finished: {failure}");
            }
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>, row: &Worker) -> Result<(), Failure> {
        let context = RequestContext::admin();
        let entry = self
            .running
            .enter("recovery", &row.resource_id, context.request_id.as_deref())
            .map_err(|_| Failure::from(Interruption::Draining))?;
        let job = |operation: &'static str| Job {
            context: context.clone(),
            operation,
            resource: row.resource_id.clone(),
            deadline: Deadline::NEVER,
            entry: Arc::new(entry),
        };
        match row.resource_type.as_str() {
            "Volume" => {
                let Ok(id) = row.resource_id.parse() else { return self.forget(row).await };
                let Some(volume) = self.db.volume_get(&id).await? else { return self.forget(row).await };
                if volume.status.as_str() != row.status {
                    return self.forget(row).await;
                }
                match volume.status {
                    VolumeStatus::Creating => {
                        operations::resume_create_volume(self, &job("create_volume"), &volume).await
                    }
                    VolumeStatus::Deleting => {
                        operations::resume_delete_volume(self, &job("delete_volume"), &volume).await
                    }
                    VolumeStatus::Extending => {
                        operations::fail_extend(self, &id, None).await?;
                        self.forget(row).await.map(|()| Value::Null)
                    }
                    _ => Ok(Value::Null),
                }?;
            }
            "Snapshot" => {
                let Ok(id) = args::snapshot_id(&row.resource_id) else { return self.forget(row).await };
                let Some(snapshot) = self.db.snapshot_get(&id).await? else { return self.forget(row).await };
                if snapshot.status.as_str() != row.status {
                    return self.forget(row).await;
                }
                match snapshot.status {
                    SnapshotStatus::Creating => {
                        operations::resume_create_snapshot(self, &job("create_snapshot"), &snapshot).await
                    }
                    SnapshotStatus::Deleting => {
                        operations::resume_delete_snapshot(self, &job("delete_snapshot"), &snapshot).await
                    }
                    _ => Ok(Value::Null),
                }?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The row is about nothing any more.
    async fn forget(&self, row: &Worker) -> Result<(), Failure> {
        self.db.worker_remove(row).await?;
        Ok(())
    }
}
