//! Compare-and-swap on a row's status, fenced by its `workers` row.

use scoria_model::{SnapshotStatus, VolumeStatus};
use sea_query::{Expr, ExprTrait, Query, UpdateStatement};

use crate::statement::{col, is, one_of};
use crate::workers::WorkerClaim;

/// What must still be true for a change to be written.
#[derive(Debug, Clone)]
pub struct Expect<'a, S = VolumeStatus> {
    /// The row is in one of these; empty is any.
    pub status: Vec<S>,
    /// The `workers` row is still ours, with the same `race_preventer`.
    pub worker: Option<&'a WorkerClaim>,
}

impl<S> Expect<'_, S> {
    /// Nothing is expected, except that the row is there.
    #[must_use]
    pub fn any() -> Self {
        Self { status: Vec::new(), worker: None }
    }

    /// One status is expected.
    #[must_use]
    pub fn status(status: S) -> Self {
        Self { status: vec![status], worker: None }
    }
}

impl<'a, S> Expect<'a, S> {
    /// The same, and the worker's row must still be ours.
    #[must_use]
    pub fn by(mut self, worker: Option<&'a WorkerClaim>) -> Self {
        self.worker = worker;
        self
    }
}

/// What became of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap<S = VolumeStatus> {
    /// Written.
    Done,
    /// Nothing was written: the row is in another state.
    Unexpected {
        /// The state it is in.
        status: S,
    },
    /// Nothing was written: the `workers` row is no longer ours.
    Replaced,
    /// Nothing was written: the row is gone.
    Gone,
}

impl<S> Swap<S> {
    /// Whether it was written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// A table whose status is swapped.
pub(crate) trait Swapped:
    crate::statement::ColumnValue + Clone + PartialEq + From<String> + Send + Sync
{
    const TABLE: &'static str;
}

impl Swapped for VolumeStatus {
    const TABLE: &'static str = "volumes";
}

impl Swapped for SnapshotStatus {
    const TABLE: &'static str = "snapshots";
}

/// Adds the conditions of `expect` to an update of the row `id`.
pub(crate) fn expecting<S: Swapped>(statement: &mut UpdateStatement, id: &str, expect: &Expect<'_, S>) {
    statement.and_where(is("id", id)).and_where(is("deleted", &false));
    if !expect.status.is_empty() {
        statement.and_where(one_of("status", &expect.status));
    }
    if let Some(claim) = expect.worker {
        statement.and_where(claim_is_ours(claim));
    }
}

/// `EXISTS` of the worker's row as we know it.
fn claim_is_ours(claim: &WorkerClaim) -> Expr {
    let mut ours = Query::select();
    ours.expr(Expr::cust("1")).from("workers").cond_where(claim.unchanged());
    Expr::exists(ours)
}

/// Why a compare-and-swap matched nothing, in one query: status, and whether the claim still stands.
#[derive(sqlx::FromRow)]
struct WhyRow {
    status: Option<String>,
    deleted: Option<bool>,
    worker_id: Option<i32>,
}

/// What the second query of a swap found.
pub(crate) enum Why<S> {
    /// The swap matched nothing for this reason.
    Refused(Swap<S>),
    /// The row has what this swap was to write, and an earlier try may well have done so.
    AlreadyDone,
}

impl crate::Database {
    /// Says why a swap matched nothing. `target` is the status it was to write; `ambiguous` tells whether an earlier try
    /// may have written it; `releases` whether the swap also removes the claim's row.
    pub(crate) async fn why<S: Swapped>(
        &self,
        id: &str,
        expect: &Expect<'_, S>,
        target: Option<&S>,
        ambiguous: bool,
        releases: bool,
    ) -> crate::Result<Why<S>> {
        let mut query = Query::select();
        query
            .columns([(S::TABLE, "status"), (S::TABLE, "deleted")])
            .expr_as(Expr::col(("workers", "id")), "worker_id")
            .from(S::TABLE)
            .and_where(Expr::col((S::TABLE, "id")).eq(id));
        let joined = match expect.worker {
            Some(claim) => claim.unchanged().and(Expr::col((S::TABLE, "id")).equals(("workers", "resource_id"))),
            None => Expr::cust("1 = 0"),
        };
        query.left_join("workers", joined);
        let Some(row) = self.fetch_optional::<WhyRow>(&query).await? else {
            return Ok(Why::Refused(Swap::Gone));
        };
        let status = S::from(row.status.unwrap_or_default());
        let gone = row.deleted.unwrap_or(false);
        let ours = expect.worker.is_none() || row.worker_id.is_some();
        let written = target.is_some_and(|target| *target == status);
        if ambiguous && written && (ours || releases) {
            return Ok(Why::AlreadyDone);
        }
        Ok(Why::Refused(match (gone, ours) {
            (true, _) => Swap::Gone,
            (false, false) => Swap::Replaced,
            (false, true) => Swap::Unexpected { status },
        }))
    }
}

/// Rows of `workers` are told apart by these columns; the table is joined with others, so they are qualified.
impl WorkerClaim {
    pub(crate) fn unchanged(&self) -> Expr {
        let column = |name: &'static str| Expr::col(("workers", name));
        column("id")
            .eq(crate::statement::val(&self.id))
            .and(column("service_id").eq(crate::statement::val(&self.service_id)))
            .and(column("race_preventer").eq(crate::statement::val(&self.race_preventer)))
    }
}

/// `column = column + 1`.
pub(crate) fn one_more(column: &'static str) -> Expr {
    col(column).add(1)
}
