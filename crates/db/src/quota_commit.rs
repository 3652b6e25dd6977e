//! What becomes of reservations: committed or rolled back.

use scoria_model::Timestamp;
use sea_query::Order;
use uuid::Uuid;

use crate::rows::{ReservationRow, UsageRow};
use crate::statement::{ColumnValue, col, is, live, one_of, soft_delete, update, val};
use crate::{Database, Result};

impl Database {
    /// Turns reservations into usage (`reservation_commit`). Ids that are unknown or already settled are skipped, so it may be
    /// run twice.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_commit(&self, reservations: &[Uuid], project: &str) -> Result<()> {
        self.quota_settle(reservations, project, true).await
    }

    /// Gives reservations back (`reservation_rollback`). May be run twice.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_rollback(&self, reservations: &[Uuid], project: &str) -> Result<()> {
        self.quota_settle(reservations, project, false).await
    }

    /// Reservations of a project that were made before a time and are neither committed nor given back.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_reserved_before(&self, project: &str, before: Timestamp) -> Result<Vec<Uuid>> {
        // Not for the whole file: it gives numbers other meanings of `min` and `max`.
        use sea_query::ExprTrait;
        let mut query = ReservationRow::select();
        query.and_where(is("project_id", project)).and_where(col("created_at").lt(val(&before))).and_where(live());
        let rows = self.retry("quota_reserved_before", |_| self.fetch_all::<ReservationRow>(&query)).await?;
        Ok(rows.iter().filter_map(|row| row.uuid.parse().ok()).collect())
    }

    async fn quota_settle(&self, reservations: &[Uuid], project: &str, commit: bool) -> Result<()> {
        if reservations.is_empty() {
            return Ok(());
        }
        let uuids: Vec<String> = reservations.iter().map(Uuid::to_string).collect();
        self.retry("quota_settle", |_| {
            let uuids = &uuids;
            async move {
                let mut transaction = self.begin().await?;
                // Usages first and by id: the order in which everybody locks them.
                let mut query = UsageRow::select();
                query
                    .and_where(is("project_id", project))
                    .and_where(live())
                    .order_by("id", Order::Asc)
                    .lock_exclusive();
                let mut usages = transaction.fetch_all::<UsageRow>(&query).await?;
                let mut query = ReservationRow::select();
                query.and_where(one_of("uuid", uuids)).and_where(live()).order_by("id", Order::Asc).lock_exclusive();
                let rows = transaction.fetch_all::<ReservationRow>(&query).await?;
                for row in &rows {
                    let Some(usage) = usages.iter_mut().find(|usage| Some(usage.id) == row.usage_id) else {
                        tracing::warn!(
                            reservation = row.uuid,
                            project,
                            "the reservation has no usage row in this project"
                        );
                        continue;
                    };
                    settle(usage, row.delta, commit);
                    let values = vec![
                        ("in_use", i64::from(usage.in_use).value()),
                        ("reserved", i64::from(usage.reserved).value()),
                    ];
                    let mut statement = update("quota_usages", values);
                    statement.and_where(is("id", &i64::from(usage.id)));
                    transaction.execute(&statement).await?;
                }
                let ids: Vec<i64> = rows.iter().map(|row| row.id.into()).collect();
                if !ids.is_empty() {
                    let mut statement = soft_delete("reservations", Vec::new());
                    statement.and_where(one_of("id", &ids));
                    transaction.execute(&statement).await?;
                }
                transaction.commit().await
            }
        })
        .await
    }
}

/// One reservation's part of a usage. Nothing goes below zero.
fn settle(usage: &mut UsageRow, delta: i32, commit: bool) {
    if delta >= 0 {
        usage.reserved -= delta.min(usage.reserved);
    }
    if commit {
        usage.in_use = usage.in_use.saturating_add(delta.max(-usage.in_use));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(in_use: i32, reserved: i32) -> UsageRow {
        UsageRow { id: 1, resource: None, in_use, reserved }
    }

    #[test]
    fn nothing_goes_below_zero() {
        for (before, delta, commit, after) in [
            ((5, 3), 2, true, (7, 1)),
            ((5, 3), 2, false, (5, 1)),
            ((5, 1), 2, true, (7, 0)),
            ((5, 0), -2, true, (3, 0)),
            ((1, 0), -2, true, (0, 0)),
            ((1, 0), -2, false, (1, 0)),
        ] {
            let mut row = usage(before.0, before.1);
            settle(&mut row, delta, commit);
            assert_eq!((row.in_use, row.reserved), after, "{before:?} {delta} {commit}");
        }
    }
}
