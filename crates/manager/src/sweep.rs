//! Looking for work whose holder is gone: our own of a former life, and that of other members of the cluster that are down.
//!
//! Most of it comes back by itself: its message was not acknowledged, so the broker delivers it again, to anyone. What does
//! not come back (an acknowledged long runner, work of a Python member, a transport that lives in the process) is found here,
//! by its `workers` row or by a state in which it has been for too long. Any member may find it; the operation's locks and a
//! compare-and-swap on the row decide who takes it. Python's `work-cleanup` claims by the same compare-and-swap
//! (`cinder/db/api.py: worker_claim_for_cleanup`), so that the one that comes second finds nothing to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use scoria_db::{ServiceFilter, VolumeFilter, VolumeOwner, WorkerFilter};
use scoria_model::{Service, SnapshotStatus, Timestamp, VolumeStatus, Worker};

use crate::manager::VolumeManager;
use crate::recovery::{Kind, Left};

/// States in which a volume does not stay for long.
const VOLUMES_ON_THE_WAY: [VolumeStatus; 6] = [
    VolumeStatus::Creating,
    VolumeStatus::Deleting,
    VolumeStatus::Extending,
    VolumeStatus::Downloading,
    VolumeStatus::Uploading,
    VolumeStatus::Reverting,
];

/// The same of snapshots.
const SNAPSHOTS_ON_THE_WAY: [SnapshotStatus; 2] = [SnapshotStatus::Creating, SnapshotStatus::Deleting];

impl VolumeManager {
    /// Looks for such work again and again, first after the grace time.
    pub fn start_recovery(self: &Arc<Self>) {
        let manager = self.clone();
        self.tasks.spawn("recovery", async move {
            let mut wait = manager.options.recovery_grace;
            let mut first = true;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = manager.draining.cancelled() => return,
                }
                // Cut off from the locks nothing can be taken over.
                if !manager.opened().await {
                    return;
                }
                match manager.sweep(first).await {
                    Ok(()) => first = false,
                    Err(error) => tracing::error!(%error, "interrupted work could not be looked for"),
                }
                wait = manager.options.sweep_interval;
            }
        });
    }

    /// Takes up what nobody is at work on. The `first` time all of our own is a former process'.
    pub(crate) async fn sweep(self: &Arc<Self>, first: bool) -> Result<(), scoria_db::Error> {
        let services = self.db.services(&ServiceFilter::default()).await?;
        let rows = self.db.workers_stale(&WorkerFilter::default()).await?;
        let now = Timestamp::now();
        let fallen: Vec<&Service> = services.iter().filter(|service| self.is_fallen_member(service, now)).collect();
        let known: BTreeSet<String> = rows.iter().map(|row| row.resource_id.clone()).collect();
        let is_left = |row: &Worker| match row.service_id {
            // It waits in a queue, or a sender is about to put it there.
            None => false,
            Some(id) if id == self.service().id => first || self.is_old(row, now),
            Some(id) if fallen.iter().any(|service| service.id == id) => true,
            // The row of a service that was removed; whose resource it is will be seen.
            Some(id) => services.iter().all(|service| service.id != id),
        };
        let mut left: Vec<Left> = rows.into_iter().filter(is_left).filter_map(left).collect();
        for service in fallen {
            left.extend(self.left_in_states(&service.host, &known, now).await?);
        }
        if self.options.messages_die_with_us {
            left.extend(self.left_by_messages(&left, first).await?);
        }
        if !left.is_empty() {
            tracing::debug!(count = left.len(), "looking after interrupted work");
        }
        let at_a_time = usize::from(self.options.heavy_slots).max(1);
        stream::iter(left).for_each_concurrent(at_a_time, |left| self.take_up(left)).await;
        Ok(())
    }

    /// Whether it is another member of our cluster that has given no sign of life for too long.
    fn is_fallen_member(&self, service: &Service, now: Timestamp) -> bool {
        let ours = self.service();
        let is_member = service.cluster_name.is_some() && service.cluster_name == self.options.cluster_name();
        let last = service.updated_at.or(service.created_at);
        let limit = i64::try_from(self.options.service_down_time().as_secs()).unwrap_or(i64::MAX);
        is_member
            && service.id != ours.id
            && service.binary == ours.binary
            && last.is_none_or(|last| now.seconds_since(last) > limit)
    }

    /// Whether a row of our own has not changed for so long that its message would have come again.
    fn is_old(&self, row: &Worker, now: Timestamp) -> bool {
        let grace = i64::try_from(self.options.recovery_grace.as_secs()).unwrap_or(i64::MAX);
        row.updated_at.is_none_or(|at| now.seconds_since(at) > grace)
    }

    /// What a member that is down, and keeps no rows for what it does (a Python service extends and deletes snapshots without),
    /// has left in a state that nobody has touched for as long as any message may wait.
    async fn left_in_states(
        &self,
        host: &str,
        with_rows: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<Vec<Left>, scoria_db::Error> {
        let ceiling = i64::try_from(self.options.late_ack_ceiling.as_secs()).unwrap_or(i64::MAX);
        let is_left = |id: &str, changed: Option<Timestamp>| {
            !with_rows.contains(id) && changed.is_none_or(|at| now.seconds_since(at) > ceiling)
        };
        self.on_the_way(host, is_left).await
    }

    /// What was asked for and not yet begun when the process ended that carried the message: everything of ours that is on its
    /// way, beside what is known to be `left` already. After the `first` time this is what nobody has touched since we began,
    /// because somebody held its lock until now.
    async fn left_by_messages(&self, left: &[Left], first: bool) -> Result<Vec<Left>, scoria_db::Error> {
        let is_new = |id: &str, changed: Option<Timestamp>| {
            left.iter().all(|known| known.id != id) && (first || changed.is_none_or(|at| at <= self.born))
        };
        self.on_the_way(&self.options.service_host(), is_new).await
    }

    /// Volumes and snapshots of a service in states that do not last, of which `is_left` says so by id and last change.
    async fn on_the_way(
        &self,
        host: &str,
        is_left: impl Fn(&str, Option<Timestamp>) -> bool,
    ) -> Result<Vec<Left>, scoria_db::Error> {
        let wanted = VolumeFilter {
            all_tenants: true,
            host: Some(host.to_owned()),
            status: VOLUMES_ON_THE_WAY.to_vec(),
            ..VolumeFilter::default()
        };
        let volumes = self.db.volumes(&wanted).await?.into_iter();
        let volumes = volumes
            .filter(|volume| is_left(volume.id.as_str(), volume.updated_at.or(volume.created_at)))
            .map(|volume| without_row(Kind::Volume, volume.id.as_str()));
        let snapshots = self.db.snapshots_of_service(VolumeOwner::Host(host)).await?.into_iter();
        let snapshots = snapshots
            .filter(|snapshot| SNAPSHOTS_ON_THE_WAY.contains(&snapshot.status))
            .filter(|snapshot| is_left(snapshot.id.as_str(), snapshot.updated_at.or(snapshot.created_at)))
            .map(|snapshot| without_row(Kind::Snapshot, snapshot.id.as_str()));
        Ok(volumes.chain(snapshots).collect())
    }
}

fn without_row(kind: Kind, id: &str) -> Left {
    Left { kind, id: id.to_owned(), row: None }
}

/// Groups and backups are no work of ours.
fn left(row: Worker) -> Option<Left> {
    let kind = match row.resource_type.as_str() {
        "Volume" => Kind::Volume,
        "Snapshot" => Kind::Snapshot,
        _ => return None,
    };
    Some(Left { kind, id: row.resource_id.clone(), row: Some(row) })
}
