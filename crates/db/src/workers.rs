//! `workers`: who is at work on what, and the number that fences whoever was replaced (`cinder/objects/cleanable.py`).

use scoria_model::{ResourceType, Timestamp, Worker};
use sea_query::{DeleteStatement, ExprTrait, Query, SelectStatement};

use crate::cas::one_more;
use crate::rows::WorkerRow;
use crate::statement::{ColumnValue, col, insert, is, is_opt, one_of, update, val};
use crate::{Database, Error, Result};

/// A row that Cinder keeps to find out whether the server stores fractions of seconds. It is no work.
const SENTINEL: &str = "SENTINEL";

/// Our hold on a `workers` row. Once another instance has taken the row over, it stands for nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerClaim {
    /// `workers.id`.
    pub id: i64,
    /// Our `services.id`.
    pub service_id: i64,
    /// The number that our taking gave the row.
    pub race_preventer: i64,
    /// The status that the row is labelled with.
    pub status: String,
}

impl WorkerClaim {
    pub(crate) fn delete(&self) -> DeleteStatement {
        let mut statement = Query::delete();
        statement.from_table("workers").cond_where(self.unchanged());
        statement
    }
}

/// Which rows [`Database::workers_stale`] is to find.
#[derive(Debug, Clone, Default)]
pub struct WorkerFilter {
    /// Kind of resource.
    pub resource_type: Option<ResourceType>,
    /// One resource.
    pub resource_id: Option<String>,
    /// Held by this service.
    pub service_id: Option<i64>,
    /// Held by one of these services. An empty list is none of them.
    pub service_ids: Option<Vec<i64>>,
    /// Only rows that nobody has taken yet.
    pub unclaimed: bool,
    /// Not changed after this time.
    pub until: Option<Timestamp>,
}

fn select(filter: &WorkerFilter) -> SelectStatement {
    let mut query = WorkerRow::select();
    query
        .and_where(col("resource_type").ne(SENTINEL))
        .and_where_option(filter.resource_type.map(|kind| is("resource_type", kind.worker_type())))
        .and_where_option(filter.resource_id.as_ref().map(|id| is("resource_id", id)))
        .and_where_option(filter.service_id.map(|id| is("service_id", &id)))
        .and_where_option(filter.service_ids.as_ref().map(|ids| one_of("service_id", ids)))
        .and_where_option(filter.unclaimed.then(|| col("service_id").is_null()))
        .and_where_option(filter.until.map(|until| col("updated_at").lte(val(&until))))
        .order_by("id", sea_query::Order::Asc);
    query
}

impl Database {
    /// Takes the work on a resource: inserts its row if there was none, or takes over the row that was `seen`, if nobody has changed
    /// it since. `None`: somebody else was faster. One round trip.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_claim(
        &self,
        resource_type: ResourceType,
        resource_id: &str,
        status: &str,
        seen: Option<&Worker>,
        service_id: i64,
    ) -> Result<Option<WorkerClaim>> {
        let number = seen.map_or(0, |worker| worker.race_preventer + 1);
        self.worker_claim_as(resource_type, resource_id, status, seen, service_id, number).await
    }

    /// As [`Database::worker_claim`]; a row that is taken over gets this `race_preventer`, which has to be higher than the one
    /// it has. A row that is inserted has 0, as all do.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_claim_as(
        &self,
        resource_type: ResourceType,
        resource_id: &str,
        status: &str,
        seen: Option<&Worker>,
        service_id: i64,
        number: i64,
    ) -> Result<Option<WorkerClaim>> {
        self.retry("worker_claim", |attempt| async move {
            let mut claim = WorkerClaim { id: 0, service_id, race_preventer: 0, status: status.to_owned() };
            let taken = match seen {
                None => match self.worker_insert(resource_type, resource_id, status, Some(service_id)).await {
                    Ok(id) => {
                        claim.id = id;
                        true
                    }
                    Err(Error::Conflict(_)) => false,
                    Err(error) => return Err(error),
                },
                Some(worker) => {
                    claim.id = worker.id;
                    claim.race_preventer = number;
                    self.worker_take(worker, &claim).await?
                }
            };
            if taken {
                return Ok(Some(claim));
            }
            if attempt.ambiguous {
                return self.worker_taken_before(resource_type, resource_id, &claim).await;
            }
            Ok(None)
        })
        .await
    }

    /// An earlier try may have done it although its answer never came: then the row is exactly as it would have left it.
    async fn worker_taken_before(
        &self,
        resource_type: ResourceType,
        resource_id: &str,
        claim: &WorkerClaim,
    ) -> Result<Option<WorkerClaim>> {
        let filter = WorkerFilter {
            resource_type: Some(resource_type),
            resource_id: Some(resource_id.to_owned()),
            service_id: Some(claim.service_id),
            ..WorkerFilter::default()
        };
        let row = self.fetch_optional::<WorkerRow>(&select(&filter)).await?.map(Worker::from);
        let ours = row.filter(|row| row.race_preventer == claim.race_preventer && row.status == claim.status);
        Ok(ours.map(|row| WorkerClaim { id: row.id, ..claim.clone() }))
    }

    async fn worker_insert(
        &self,
        resource_type: ResourceType,
        resource_id: &str,
        status: &str,
        service_id: Option<i64>,
    ) -> Result<i64> {
        let now = Timestamp::now();
        self.insert(insert(
            "workers",
            vec![
                ("resource_type", resource_type.worker_type().value()),
                ("resource_id", resource_id.value()),
                ("status", status.value()),
                ("service_id", service_id.value()),
                ("race_preventer", 0_i64.value()),
                ("created_at", now.value()),
                ("updated_at", now.value()),
                ("deleted", false.value()),
            ],
        ))
        .await
    }

    async fn worker_take(&self, seen: &Worker, claim: &WorkerClaim) -> Result<bool> {
        let values = vec![("service_id", claim.service_id.value()), ("status", claim.status.value())];
        let mut statement = update("workers", values);
        statement
            .value("race_preventer", val(&claim.race_preventer))
            .and_where(is("id", &seen.id))
            .and_where(is_opt("service_id", seen.service_id.as_ref()))
            .and_where(is("status", &seen.status))
            .and_where(is("race_preventer", &seen.race_preventer));
        Ok(self.execute(&statement).await? > 0)
    }

    /// Marks a resource as about to be worked on, by whoever gets the message: what the sender of a cast does just before it
    /// (`CinderCleanableObject.create_worker`). A row that is there already is taken away from its holder.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_create_unclaimed(
        &self,
        resource_type: ResourceType,
        resource_id: &str,
        status: &str,
    ) -> Result<()> {
        self.retry("worker_create_unclaimed", |_| async move {
            loop {
                match self.worker_insert(resource_type, resource_id, status, None).await {
                    Err(Error::Conflict(_)) => {}
                    other => return other.map(drop),
                }
                let values = vec![("service_id", None::<i64>.value()), ("status", status.value())];
                let mut statement = update("workers", values);
                statement
                    .value("race_preventer", one_more("race_preventer"))
                    .and_where(is("resource_type", resource_type.worker_type()))
                    .and_where(is("resource_id", resource_id));
                // Nothing matched: the row went away in between, so it can be inserted now.
                if self.execute(&statement).await? > 0 {
                    return Ok(());
                }
            }
        })
        .await
    }

    /// Labels our row with another status (`creating` to `downloading`). `None`: the row is no longer ours.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_relabel(&self, claim: &WorkerClaim, status: &str) -> Result<Option<WorkerClaim>> {
        self.retry("worker_relabel", |_| async move {
            let mut statement = update("workers", vec![("status", status.value())]);
            statement.cond_where(claim.unchanged());
            let matched = self.execute(&statement).await?;
            Ok((matched > 0).then(|| WorkerClaim { status: status.to_owned(), ..claim.clone() }))
        })
        .await
    }

    /// Gives our row a higher `race_preventer`: whoever wrote under the old one is shut out. False: it was no longer ours.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_renumber(&self, claim: &WorkerClaim, number: i64) -> Result<bool> {
        self.retry("worker_renumber", |_| async move {
            let mut statement = update("workers", Vec::new());
            statement.value("race_preventer", val(&number)).cond_where(claim.unchanged());
            Ok(self.execute(&statement).await? > 0)
        })
        .await
    }

    /// Removes our row. False: it was no longer ours (or is removed already).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_release(&self, claim: &WorkerClaim) -> Result<bool> {
        self.retry("worker_release", |_| async move { Ok(self.execute(&claim.delete()).await? > 0) }).await
    }

    /// Gives our row back as nobody's, so that any instance takes it at once (drain, failed clean-up).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_hand_back(&self, claim: &WorkerClaim) -> Result<bool> {
        self.retry("worker_hand_back", |_| async move {
            let mut statement = update("workers", vec![("service_id", None::<i64>.value())]);
            statement.value("race_preventer", one_more("race_preventer")).cond_where(claim.unchanged());
            Ok(self.execute(&statement).await? > 0)
        })
        .await
    }

    /// Removes a row that was `seen`, whoever holds it, if it is unchanged: work on a resource that is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_remove(&self, seen: &Worker) -> Result<bool> {
        self.retry("worker_remove", |_| async move {
            let mut statement = Query::delete();
            statement
                .from_table("workers")
                .and_where(is("id", &seen.id))
                .and_where(is_opt("service_id", seen.service_id.as_ref()))
                .and_where(is("race_preventer", &seen.race_preventer));
            Ok(self.execute(&statement).await? > 0)
        })
        .await
    }

    /// The row of one resource.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn worker_get(&self, resource_type: ResourceType, resource_id: &str) -> Result<Option<Worker>> {
        let filter = WorkerFilter {
            resource_type: Some(resource_type),
            resource_id: Some(resource_id.to_owned()),
            ..WorkerFilter::default()
        };
        Ok(self.workers_stale(&filter).await?.into_iter().next())
    }

    /// The rows that match, oldest id first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn workers_stale(&self, filter: &WorkerFilter) -> Result<Vec<Worker>> {
        let query = select(filter);
        self.retry("workers_stale", |_| async {
            Ok(self.fetch_all::<WorkerRow>(&query).await?.into_iter().map(Worker::from).collect())
        })
        .await
    }
}
