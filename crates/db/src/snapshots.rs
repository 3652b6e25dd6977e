//! Snapshots: the same pattern as volumes.

use scoria_model::{Snapshot, SnapshotId, SnapshotStatus, Timestamp, VolumeId, VolumeTypeId, Worker};
use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};

use crate::cas::{Expect, Swap, Why, expecting};
use crate::metadata::SnapshotMetadata;
use crate::quotas::QuotaRelease;
use crate::retry::Attempt;
use crate::rows::{SnapshotRow, WorkerRow};
use crate::statement::{Assignments, ColumnValue, col, insert, is, live, of, one_of, soft_delete, update, val};
use crate::volume_load::JoinedWorker;
use crate::volume_update::change;
use crate::volumes::VolumeOwner;
use crate::workers::WorkerClaim;
use crate::{Database, Error, Result};

/// A snapshot and what an operation on it wants to know first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// The row with its metadata.
    pub snapshot: Snapshot,
    /// Its `workers` row.
    pub worker: Option<Worker>,
}

change! {
    /// What to write into a snapshot's row: `None` leaves a column as it is, `Some(None)` makes it null.
    SnapshotChange {
        /// Whether it counts against quotas.
        use_quota as "use_quota": bool,
        /// Status.
        status as "status": SnapshotStatus,
        /// `0%` to `100%`.
        progress as "progress": Option<String>,
        /// Size of the volume, GiB.
        volume_size as "volume_size": u64,
        /// Name given by the user.
        display_name as "display_name": Option<String>,
        /// Description given by the user.
        display_description as "display_description": Option<String>,
        /// Key in the key manager.
        encryption_key_id as "encryption_key_id": Option<String>,
        /// Type of the volume.
        volume_type_id as "volume_type_id": VolumeTypeId,
        /// The driver's location.
        provider_location as "provider_location": Option<String>,
        /// The driver's id.
        provider_id as "provider_id": Option<String>,
        /// The driver's credentials.
        provider_auth as "provider_auth": Option<String>,
        /// The volume it belongs to (after a migration).
        volume_id as "volume_id": VolumeId,
    }
}

impl SnapshotChange {
    /// Only a status.
    #[must_use]
    pub fn status(status: SnapshotStatus) -> Self {
        Self { status: Some(status), ..Self::default() }
    }
}

/// Which snapshots a list shows; the default is all of them, newest first.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// Of this project, unless `all_tenants`.
    pub project_id: Option<String>,
    /// Of every project.
    pub all_tenants: bool,
    /// Of this volume.
    pub volume_id: Option<VolumeId>,
    /// In one of these states; empty is any.
    pub status: Vec<SnapshotStatus>,
    /// With this name.
    pub name: Option<String>,
    /// One of these; empty is any.
    pub ids: Vec<SnapshotId>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Older than this one: the last of the page before.
    pub marker: Option<SnapshotId>,
}

fn assignments(snapshot: &Snapshot, now: Timestamp) -> Assignments {
    vec![
        ("id", snapshot.id.value()),
        ("volume_id", snapshot.volume_id.value()),
        ("use_quota", snapshot.use_quota.value()),
        ("user_id", snapshot.user_id.value()),
        ("project_id", snapshot.project_id.value()),
        ("cgsnapshot_id", snapshot.cgsnapshot_id.value()),
        ("group_snapshot_id", snapshot.group_snapshot_id.value()),
        ("status", snapshot.status.value()),
        ("progress", snapshot.progress.value()),
        ("volume_size", snapshot.volume_size.value()),
        ("display_name", snapshot.display_name.value()),
        ("display_description", snapshot.display_description.value()),
        ("encryption_key_id", snapshot.encryption_key_id.value()),
        ("volume_type_id", snapshot.volume_type_id.value()),
        ("provider_location", snapshot.provider_location.value()),
        ("provider_id", snapshot.provider_id.value()),
        ("provider_auth", snapshot.provider_auth.value()),
        ("created_at", now.value()),
        ("deleted", false.value()),
    ]
}

fn select() -> SelectStatement {
    let mut query = SnapshotRow::select();
    query.and_where(live());
    query
}

/// A row and its worker.
#[derive(sqlx::FromRow)]
struct JoinedRow {
    #[sqlx(flatten)]
    snapshot: SnapshotRow,
    #[sqlx(flatten)]
    worker: JoinedWorker,
}

fn select_joined(id: &SnapshotId) -> SelectStatement {
    let column = |table: &'static str, name: &'static str| Expr::col((table, name));
    let mut query = Query::select();
    query.columns(of("snapshots", SnapshotRow::COLUMNS));
    for (name, alias) in WorkerRow::COLUMNS.iter().zip(JoinedWorker::ALIASES) {
        query.expr_as(column("workers", name), *alias);
    }
    let of_snapshot = column("workers", "resource_id").equals(("snapshots", "id"));
    query
        .from("snapshots")
        .left_join("workers", of_snapshot.and(column("workers", "resource_type").eq("Snapshot")))
        .and_where(column("snapshots", "id").eq(val(id)))
        .and_where(column("snapshots", "deleted").eq(val(&false)));
    query
}

fn swap_snapshot(
    id: &SnapshotId,
    expect: &Expect<'_, SnapshotStatus>,
    change: &SnapshotChange,
) -> sea_query::UpdateStatement {
    let mut statement = update("snapshots", change.assignments());
    expecting(&mut statement, id.as_str(), expect);
    statement
}

impl Database {
    /// One live snapshot; `None` if it is gone. Two round trips.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn snapshot_load(&self, id: &SnapshotId) -> Result<Option<LoadedSnapshot>> {
        let query = select_joined(id);
        self.retry("snapshot_load", |_| async {
            let Some(row) = self.fetch_optional::<JoinedRow>(&query).await? else {
                return Ok(None);
            };
            let mut snapshot = row.snapshot.into_snapshot()?;
            for (_, key, value) in self.metadata_of::<SnapshotMetadata>(&[id.to_string()]).await? {
                snapshot.metadata.insert(key, value);
            }
            Ok(Some(LoadedSnapshot { snapshot, worker: row.worker.into_row().map(Worker::from) }))
        })
        .await
    }

    /// One live snapshot with its metadata; `None` if it is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn snapshot_get(&self, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let mut query = select();
        query.and_where(is("id", id));
        Ok(self.snapshot_list(&query).await?.into_iter().next())
    }

    async fn snapshot_list(&self, query: &SelectStatement) -> Result<Vec<Snapshot>> {
        self.retry("snapshots", |_| async {
            let mut snapshots = Vec::new();
            for row in self.fetch_all::<SnapshotRow>(query).await? {
                snapshots.push(row.into_snapshot()?);
            }
            let ids: Vec<String> = snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect();
            for (owner, key, value) in self.metadata_of::<SnapshotMetadata>(&ids).await? {
                for snapshot in snapshots.iter_mut().filter(|snapshot| snapshot.id.as_str() == owner) {
                    snapshot.metadata.insert(key.clone(), value.clone());
                }
            }
            Ok(snapshots)
        })
        .await
    }

    /// Makes a snapshot's row with its metadata, and reads it back. A snapshot without a type gets its volume's.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, `NotFound` when the volume is gone, `Unavailable`.
    pub async fn snapshot_create(&self, snapshot: &Snapshot) -> Result<Snapshot> {
        let now = Timestamp::now();
        self.retry("snapshot_create", |attempt| async move {
            let mut transaction = self.begin().await?;
            let volume_id = snapshot.volume_id.as_str();
            transaction.lock_row("volumes", "volume", volume_id).await?;
            let mut values = assignments(snapshot, now);
            if snapshot.volume_type_id.is_none() {
                let mut query = Query::select();
                query.column("volume_type_id").from("volumes").and_where(is("id", volume_id));
                let volume_type = transaction.fetch_optional::<(String,)>(&query).await?.map(|(id,)| id);
                for (column, value) in &mut values {
                    if *column == "volume_type_id" {
                        *value = volume_type.value();
                    }
                }
            }
            match transaction.execute(&insert("snapshots", values)).await {
                Ok(_) => {}
                Err(Error::Conflict(_)) if attempt.ambiguous => return Ok(()),
                Err(error) => return Err(error),
            }
            transaction.insert_metadata::<SnapshotMetadata>(snapshot.id.as_str(), &snapshot.metadata).await?;
            transaction.commit().await
        })
        .await?;
        self.snapshot_get(&snapshot.id).await?.ok_or_else(|| Error::not_found("snapshot", &snapshot.id))
    }

    /// Writes `change` if the snapshot is as `expect` says: one compare-and-swap.
    ///
    /// # Errors
    /// `Unavailable`, `Statement` (a value too long for its column).
    pub async fn snapshot_update(
        &self,
        id: &SnapshotId,
        expect: &Expect<'_, SnapshotStatus>,
        change: &SnapshotChange,
    ) -> Result<Swap<SnapshotStatus>> {
        self.retry("snapshot_update", |attempt| async move {
            if self.execute(&swap_snapshot(id, expect, change)).await? > 0 {
                return Ok(Swap::Done);
            }
            self.snapshot_why(id, expect, change.status.as_ref(), attempt, false).await
        })
        .await
    }

    /// The end of an operation: as [`Database::snapshot_update`], and `claim`'s `workers` row is removed in the same
    /// transaction.
    ///
    /// # Errors
    /// As `snapshot_update`.
    pub async fn snapshot_finish(
        &self,
        id: &SnapshotId,
        expect: &Expect<'_, SnapshotStatus>,
        change: &SnapshotChange,
        claim: Option<&WorkerClaim>,
    ) -> Result<Swap<SnapshotStatus>> {
        self.retry("snapshot_finish", |attempt| async move {
            let mut transaction = self.begin().await?;
            if transaction.execute(&swap_snapshot(id, expect, change)).await? == 0 {
                transaction.rollback().await?;
                return self.snapshot_why(id, expect, change.status.as_ref(), attempt, claim.is_some()).await;
            }
            if let Some(claim) = claim {
                transaction.execute(&claim.delete()).await?;
            }
            transaction.commit().await?;
            Ok(Swap::Done)
        })
        .await
    }

    /// Soft-deletes a snapshot with its metadata (the user's, and the image's), takes it out of the project's usage, removes
    /// `claim`'s `workers` row. One transaction, at most six round trips.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn snapshot_destroy(
        &self,
        id: &SnapshotId,
        expect: &Expect<'_, SnapshotStatus>,
        quota: Option<&QuotaRelease>,
        claim: Option<&WorkerClaim>,
    ) -> Result<Swap<SnapshotStatus>> {
        let dependents = ["snapshot_metadata", "volume_glance_metadata"].map(|table| {
            let mut statement = soft_delete(table, Vec::new());
            statement.and_where(is("snapshot_id", id)).and_where(live());
            statement
        });
        self.retry("snapshot_destroy", |attempt| {
            let dependents = &dependents;
            async move {
                let mut transaction = self.begin().await?;
                let mut statement = soft_delete("snapshots", vec![("status", SnapshotStatus::Deleted.value())]);
                expecting(&mut statement, id.as_str(), expect);
                if transaction.execute(&statement).await? == 0 {
                    transaction.rollback().await?;
                    let gone = SnapshotStatus::Deleted;
                    return self.snapshot_why(id, expect, Some(&gone), attempt, claim.is_some()).await;
                }
                transaction.execute_together(dependents).await?;
                if let Some(quota) = quota {
                    transaction.release_quota(quota).await?;
                }
                if let Some(claim) = claim {
                    transaction.execute(&claim.delete()).await?;
                }
                transaction.commit().await?;
                Ok(Swap::Done)
            }
        })
        .await
    }

    async fn snapshot_why(
        &self,
        id: &SnapshotId,
        expect: &Expect<'_, SnapshotStatus>,
        target: Option<&SnapshotStatus>,
        attempt: Attempt,
        releases: bool,
    ) -> Result<Swap<SnapshotStatus>> {
        match self.why(id.as_str(), expect, target, attempt.ambiguous, releases).await? {
            Why::AlreadyDone => Ok(Swap::Done),
            Why::Refused(swap) => Ok(swap),
        }
    }

    /// The snapshots that match, newest first, with their metadata.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn snapshots(&self, filter: &SnapshotFilter) -> Result<Vec<Snapshot>> {
        let project = filter.project_id.as_ref().filter(|_| !filter.all_tenants);
        let mut query = select();
        query
            .and_where_option(project.map(|project| is("project_id", project)))
            .and_where_option(filter.volume_id.as_ref().map(|id| is("volume_id", id)))
            .and_where_option((!filter.status.is_empty()).then(|| one_of("status", &filter.status)))
            .and_where_option(filter.name.as_ref().map(|name| is("display_name", name)))
            .and_where_option((!filter.ids.is_empty()).then(|| one_of("id", &filter.ids)));
        if let Some(marker) = &filter.marker {
            let mut born = Query::select();
            born.column("created_at").from("snapshots").and_where(is("id", marker));
            let born = Expr::from(born);
            let older = col("created_at").lt(born.clone());
            query.and_where(older.or(col("created_at").eq(born).and(col("id").lt(val(marker)))));
        }
        query.order_by("created_at", Order::Desc).order_by("id", Order::Desc);
        if let Some(limit) = filter.limit {
            query.limit(limit);
        }
        self.snapshot_list(&query).await
    }

    /// The live snapshots of one volume, oldest first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn snapshots_of_volume(&self, id: &VolumeId) -> Result<Vec<Snapshot>> {
        let mut query = select();
        query.and_where(is("volume_id", id)).order_by("created_at", Order::Asc).order_by("id", Order::Asc);
        self.snapshot_list(&query).await
    }

    /// The live snapshots of a service's own volumes, oldest first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn snapshots_of_service(&self, owner: VolumeOwner<'_>) -> Result<Vec<Snapshot>> {
        let mut volumes = Query::select();
        volumes.column("id").from("volumes").and_where(live()).and_where(owner.condition(self.dialect()));
        let mut query = select();
        query
            .and_where(col("volume_id").in_subquery(volumes))
            .order_by("created_at", Order::Asc)
            .order_by("id", Order::Asc);
        self.snapshot_list(&query).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_writes_only_what_it_names() {
        let change = SnapshotChange { provider_id: Some(None), ..SnapshotChange::status(SnapshotStatus::Available) };
        let columns: Vec<_> = change.assignments().into_iter().map(|(column, _)| column).collect();
        assert_eq!(columns, ["status", "provider_id"]);
    }
}
