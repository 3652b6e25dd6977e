//! Quotas: usages, limits and reservations (`cinder/quota.py`, `cinder/db/api.py: quota_reserve`).
//!
//! Resources are `volumes`, `snapshots`, `gigabytes`, … and their variants per type, such as `gigabytes_<type name>`.

use std::collections::{BTreeMap, BTreeSet};

use scoria_model::Timestamp;
use sea_query::{CaseStatement, Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement};
use uuid::Uuid;

use crate::error::OverQuota;
use crate::pool::Tx;
use crate::rows::UsageRow;
use crate::statement::{ColumnValue, born, col, insert, is, live, one_of, update, val};
use crate::{Database, Dialect, Error, Result};

/// What a project uses of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use.
    pub in_use: i64,
    /// Reserved by requests under way.
    pub reserved: i64,
}

/// The configured limits of resources that have neither an override of the project nor a default class row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDefaults {
    /// Limit by resource (`quota_volumes`, `quota_gigabytes`, …); -1 is none.
    pub limits: BTreeMap<String, i64>,
    /// `use_default_quota_class`: whether the rows of class `default` count before these.
    pub use_default_class: bool,
}

impl Default for QuotaDefaults {
    /// Cinder's own defaults.
    fn default() -> Self {
        let limits = [("volumes", 10), ("snapshots", 10), ("gigabytes", 1000), ("per_volume_gigabytes", -1)];
        Self { limits: limits.map(|(name, limit)| (name.to_owned(), limit)).into(), use_default_class: true }
    }
}

/// What the deletion of a resource gives back to its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRelease {
    /// The project.
    pub project: String,
    /// Negative amounts by resource.
    pub deltas: BTreeMap<String, i64>,
}

impl QuotaRelease {
    /// A volume of `size` GiB (`delete_volume`).
    #[must_use]
    pub fn volume(project: &str, size: u64, volume_type: Option<&str>) -> Self {
        Self { project: project.to_owned(), deltas: deltas(&[("volumes", -1), ("gigabytes", -gib(size))], volume_type) }
    }

    /// A snapshot of a volume of `size` GiB, which counts as gigabytes unless `no_snapshot_gb_quota`.
    #[must_use]
    pub fn snapshot(project: &str, size: u64, volume_type: Option<&str>, no_snapshot_gb_quota: bool) -> Self {
        let mut plain = vec![("snapshots", -1)];
        if !no_snapshot_gb_quota {
            plain.push(("gigabytes", -gib(size)));
        }
        Self { project: project.to_owned(), deltas: deltas(&plain, volume_type) }
    }
}

fn gib(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The amounts for each resource and for its variant of the type (`QUOTAS.add_volume_type_opts`).
fn deltas(plain: &[(&str, i64)], volume_type: Option<&str>) -> BTreeMap<String, i64> {
    let typed = plain.iter().filter_map(|(name, delta)| volume_type.map(|of| (format!("{name}_{of}"), *delta)));
    plain.iter().map(|(name, delta)| ((*name).to_owned(), *delta)).chain(typed).collect()
}

/// Totals are 32 bits wide.
const MOST: i64 = i32::MAX as i64;

fn select_usages(project: &str) -> SelectStatement {
    let mut query = UsageRow::select();
    query.and_where(is("project_id", project)).and_where(live()).order_by("id", Order::Asc);
    query
}

impl UsageRow {
    fn usage(&self) -> Usage {
        Usage { in_use: self.in_use.into(), reserved: self.reserved.into() }
    }
}

impl Database {
    /// Reserves amounts for a project and answers the reservations' ids; `expire` is when an abandoned one is undone by
    /// the scheduler. Negative amounts are never refused.
    ///
    /// # Errors
    /// `OverQuota` (nothing is reserved then), `Unavailable`.
    pub async fn quota_reserve(
        &self,
        project: &str,
        deltas: &BTreeMap<String, i64>,
        defaults: &QuotaDefaults,
        expire: Timestamp,
    ) -> Result<Vec<Uuid>> {
        let uuids: Vec<Uuid> = deltas.keys().map(|_| Uuid::new_v4()).collect();
        let resources: Vec<&String> = deltas.keys().collect();
        let limits = self.quota_limits(project, defaults).await?;
        self.quota_ensure_usages(project, &resources).await?;
        self.retry("quota_reserve", |attempt| {
            let (uuids, resources, limits) = (&uuids, &resources, &limits);
            async move {
                let mut transaction = self.begin().await?;
                if attempt.ambiguous && transaction.reservations_exist(uuids).await? {
                    return Ok(());
                }
                let mut query = select_usages(project);
                query.and_where(one_of("resource", resources)).lock_exclusive();
                let rows = transaction.fetch_all::<UsageRow>(&query).await?;
                let rows: BTreeMap<String, UsageRow> =
                    rows.into_iter().map(|row| (row.resource.clone().unwrap_or_default(), row)).collect();
                refuse_overs(deltas, &rows, limits)?;
                for ((resource, delta), uuid) in deltas.iter().zip(uuids) {
                    let Some(usage) = rows.get(resource) else {
                        return Err(Error::not_found("quota usage", resource));
                    };
                    let usage_id = i64::from(usage.id);
                    let mut values = born();
                    values.extend([
                        ("uuid", uuid.to_string().value()),
                        ("usage_id", usage_id.value()),
                        ("project_id", project.value()),
                        ("resource", resource.value()),
                        ("delta", delta.value()),
                        ("expire", expire.value()),
                    ]);
                    transaction.execute(&insert("reservations", values)).await?;
                    if *delta > 0 {
                        let reserved = i64::from(usage.reserved) + delta;
                        let mut statement = update("quota_usages", vec![("reserved", reserved.value())]);
                        statement.and_where(is("id", &usage_id));
                        transaction.execute(&statement).await?;
                    }
                }
                transaction.commit().await
            }
        })
        .await?;
        Ok(uuids)
    }

    /// Makes the usage rows that are missing, counted from the resources that are there. In transactions of their own: two
    /// who count at once collide on the unique key, and the second takes the first one's row.
    async fn quota_ensure_usages(&self, project: &str, resources: &[&String]) -> Result<()> {
        self.retry("quota_ensure_usages", |_| async move {
            let rows = self.fetch_all::<UsageRow>(&select_usages(project)).await?;
            let present: BTreeSet<&str> = rows.iter().filter_map(|row| row.resource.as_deref()).collect();
            for resource in resources.iter().filter(|resource| !present.contains(resource.as_str())) {
                let in_use = self.quota_count(project, resource).await?;
                let mut values = born();
                values.extend([
                    ("project_id", project.value()),
                    ("resource", resource.value()),
                    ("in_use", in_use.value()),
                    ("reserved", 0_i64.value()),
                    ("race_preventer", true.value()),
                ]);
                match self.execute(&insert("quota_usages", values)).await {
                    Ok(_) | Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await
    }

    /// Counts what a project has of a resource (`cinder/db/api.py: _sync_volumes` and so on). Of resources that have no table here
    /// nothing is in use.
    async fn quota_count(&self, project: &str, resource: &str) -> Result<i64> {
        let (plain, volume_type) = match resource.split_once('_') {
            Some((plain @ ("volumes" | "snapshots" | "gigabytes"), name)) => {
                let Some(volume_type) = self.volume_type_by_name(name).await? else {
                    return Ok(0);
                };
                (plain, Some(volume_type.id))
            }
            _ => (resource, None),
        };
        let count = |table: &'static str, what: Expr| {
            let mut query = Query::select();
            query.expr(what).from(table).and_where(live()).and_where(is("project_id", project));
            query.and_where(is("use_quota", &true));
            query.and_where_option(volume_type.as_ref().map(|id| is("volume_type_id", id)));
            query
        };
        let sum = |column| match self.dialect() {
            // MySQL answers a sum as a decimal.
            Dialect::MySql => col(column).sum().cast_as("SIGNED"),
            _ => col(column).sum(),
        };
        let queries = match plain {
            "volumes" => vec![count("volumes", col("id").count())],
            "snapshots" => vec![count("snapshots", col("id").count())],
            "gigabytes" => vec![count("volumes", sum("size")), count("snapshots", sum("volume_size"))],
            _ => Vec::new(),
        };
        let mut total = 0;
        for query in queries {
            total += self.fetch_optional::<(Option<i64>,)>(&query).await?.and_then(|(count,)| count).unwrap_or(0);
        }
        Ok(total)
    }

    /// What a project uses, by resource.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_usages(&self, project: &str) -> Result<BTreeMap<String, Usage>> {
        let query = select_usages(project);
        self.retry("quota_usages", |_| async {
            let rows = self.fetch_all::<UsageRow>(&query).await?;
            Ok(rows.into_iter().map(|row| (row.resource.clone().unwrap_or_default(), row.usage())).collect())
        })
        .await
    }

    /// A project's limits, by resource: its overrides, else class `default`, else the configured ones. A resource that is in none
    /// of them (a variant of a type) has no limit.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_limits(&self, project: &str, defaults: &QuotaDefaults) -> Result<BTreeMap<String, i64>> {
        let limits = |table, owner, name: &str| {
            let mut query = Query::select();
            query.columns(["resource", "hard_limit"]).from(table).and_where(is(owner, name)).and_where(live());
            query
        };
        let class = limits("quota_classes", "class_name", "default");
        let own = limits("quotas", "project_id", project);
        self.retry("quota_limits", |_| async {
            let mut found = defaults.limits.clone();
            if defaults.use_default_class {
                found.extend(self.limit_rows(&class).await?);
            }
            found.extend(self.limit_rows(&own).await?);
            Ok(found)
        })
        .await
    }

    async fn limit_rows(&self, query: &SelectStatement) -> Result<Vec<(String, i64)>> {
        let rows = self.fetch_all::<(Option<String>, Option<i32>)>(query).await?;
        Ok(rows
            .into_iter()
            .map(|(resource, limit)| (resource.unwrap_or_default(), limit.map_or(-1, Into::into)))
            .collect())
    }
}

/// Refuses when any resource would pass its limit, or its 32 bits.
fn refuse_overs(
    deltas: &BTreeMap<String, i64>,
    rows: &BTreeMap<String, UsageRow>,
    limits: &BTreeMap<String, i64>,
) -> Result<()> {
    let usage = |resource: &String| rows.get(resource).map(UsageRow::usage).unwrap_or_default();
    let limit = |resource: &String| limits.get(resource).copied().unwrap_or(-1);
    let is_over = |(resource, delta): &(&String, &i64)| {
        let (used, limit) = (usage(resource), limit(resource));
        let total = used.in_use + used.reserved + **delta;
        **delta >= 0 && ((limit >= 0 && limit < total) || total > MOST)
    };
    let overs: Vec<String> = deltas.iter().filter(is_over).map(|(resource, _)| resource.clone()).collect();
    if overs.is_empty() {
        return Ok(());
    }
    let by_resource = deltas.keys();
    Err(Error::OverQuota(Box::new(OverQuota {
        overs,
        usages: by_resource.clone().map(|resource| (resource.clone(), usage(resource))).collect(),
        quotas: by_resource.map(|resource| (resource.clone(), limit(resource))).collect(),
    })))
}

/// `in_use` after the deltas, never below zero; one statement for all resources.
fn release(quota: &QuotaRelease) -> UpdateStatement {
    let mut after = CaseStatement::new();
    for (resource, delta) in &quota.deltas {
        let rest = col("in_use").add(val(delta));
        after = after
            .case(is("resource", resource).and(rest.clone().lt(0)), val(&0_i64))
            .case(is("resource", resource), rest);
    }
    let resources: Vec<&String> = quota.deltas.keys().collect();
    let mut statement = update("quota_usages", Vec::new());
    statement
        .value("in_use", after.finally(col("in_use")))
        .and_where(is("project_id", &quota.project))
        .and_where(one_of("resource", &resources))
        .and_where(live());
    statement
}

impl Tx {
    /// Gives back what a deleted resource used: the end result of reserving negative amounts and committing them, without the
    /// rows in between. A usage row that is not there yet is left for the next reservation, which counts.
    pub(crate) async fn release_quota(&mut self, quota: &QuotaRelease) -> Result<()> {
        if quota.deltas.is_empty() {
            return Ok(());
        }
        self.execute(&release(quota)).await.map(drop)
    }

    async fn reservations_exist(&mut self, uuids: &[Uuid]) -> Result<bool> {
        let uuids: Vec<String> = uuids.iter().map(Uuid::to_string).collect();
        let mut query = Query::select();
        query.column("uuid").from("reservations").and_where(one_of("uuid", &uuids)).limit(1);
        Ok(self.fetch_optional::<(String,)>(&query).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_the_variants_of_the_type() {
        let release = QuotaRelease::volume("p", 5, Some("gold"));
        let expected = [("gigabytes", -5), ("gigabytes_gold", -5), ("volumes", -1), ("volumes_gold", -1)];
        assert_eq!(release.deltas, expected.map(|(name, delta)| (name.to_owned(), delta)).into());
        let release = QuotaRelease::snapshot("p", 5, None, true);
        assert_eq!(release.deltas, [("snapshots".to_owned(), -1)].into());
    }
}
