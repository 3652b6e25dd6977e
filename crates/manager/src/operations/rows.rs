//! What operations do to rows in the same way.

use std::time::Duration;

use scoria_db::{ServiceFilter, Swap, WorkerClaim};
use scoria_model::{
    Fault, FaultClass, MessageAction, MessageDetail, RequestContext, ResourceType, UserMessage, Worker,
};

use crate::deaths;
use crate::failure::{Failure, Interruption};
use crate::held::Job;
use crate::manager::VolumeManager;

/// How long an interrupted operation tries to say that it was. Where the database is what is away it cannot.
const PUT_DOWN_LIMIT: Duration = Duration::from_secs(5);

/// Reads the outcome of a compare-and-swap whose aim is `reached`: a row that is already there is done.
pub(super) fn settled<S: ToString>(swap: Swap<S>, reached: &[&str]) -> Result<(), Failure> {
    match swap {
        Swap::Done => Ok(()),
        Swap::Unexpected { status } if reached.contains(&status.to_string().as_str()) => Ok(()),
        Swap::Gone if reached.contains(&"deleted") => Ok(()),
        Swap::Unexpected { status } => Err(Interruption::Superseded(status.to_string()).into()),
        Swap::Gone => Err(Interruption::Superseded("gone".to_owned()).into()),
        Swap::Replaced => Err(Interruption::Replaced.into()),
    }
}

impl VolumeManager {
    /// Takes the `workers` row of a resource, under its lock. Whoever had it before writes nothing any more. Work that a sweep
    /// found is only taken from the holder that it was found with.
    pub(super) async fn claim(
        &self,
        job: &Job,
        resource: ResourceType,
        id: &str,
        status: &str,
        seen: Option<&Worker>,
    ) -> Result<WorkerClaim, Failure> {
        if job.resource == id && job.swept.as_ref().is_some_and(|swept| !swept.still_stands(seen)) {
            return Err(Interruption::Replaced.into());
        }
        let number = match seen {
            None => 0,
            Some(row) => deaths::number_after(row, self.holder_died(job, row, status).await?),
        };
        let claim = self.db.worker_claim_as(resource, id, status, seen, self.service().id, number).await?;
        let claim = claim.ok_or(Interruption::Replaced)?;
        if job.swept.is_some() {
            tracing::info!(
                resource = id,
                status,
                from = seen.and_then(|row| row.service_id),
                "taking over interrupted work"
            );
        }
        job.claimed(claim.clone());
        Ok(claim)
    }

    /// Whether the row's holder had this very work and never put it down.
    async fn holder_died(&self, job: &Job, row: &Worker, status: &str) -> Result<bool, Failure> {
        let Some(holder) = row.service_id else { return Ok(false) };
        if !job.again || row.status != status || deaths::was_put_down(row.race_preventer) {
            return Ok(false);
        }
        if holder == self.service().id {
            return Ok(true);
        }
        // Until a volume service takes a creation, its row is the scheduler's.
        let services = self.db.services(&ServiceFilter::default()).await?;
        let service = services.iter().find(|service| service.id == holder);
        Ok(service.is_none_or(|service| service.binary == self.service().binary))
    }

    /// Marks the work of an interrupted operation as put down in order: nobody died of it.
    pub(crate) async fn put_down(&self, job: &Job) {
        for claim in job.claims() {
            let number = deaths::number_put_down(claim.race_preventer);
            match tokio::time::timeout(PUT_DOWN_LIMIT, self.db.worker_renumber(&claim, number)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "workers row could not be marked as put down"),
                Err(_) => tracing::debug!("workers row could not be marked as put down in time"),
            }
        }
    }

    /// Leaves a message for the user. One that cannot be written is logged: no operation fails for its message.
    pub(super) async fn tell_user(
        &self,
        context: &RequestContext,
        resource_type: ResourceType,
        resource_id: &str,
        action: MessageAction,
        detail: MessageDetail,
    ) {
        let Some(project_id) = context.project_id.clone() else { return };
        let message = UserMessage {
            project_id,
            request_id: context.request_id.clone(),
            resource_type,
            resource_id: resource_id.to_owned(),
            action,
            detail,
            ttl: self.options.message_ttl,
        };
        if let Err(error) = self.db.message_create(&message).await {
            tracing::warn!(%error, event = message.event_id(), "user message could not be written");
        }
    }

    /// The detail that a user is told for a fault.
    pub(super) fn detail_of(fault: &Fault, otherwise: MessageDetail) -> MessageDetail {
        match fault.class {
            FaultClass::DriverNotInitialized => MessageDetail::DriverNotInitialized,
            FaultClass::SnapshotIsBusy => MessageDetail::SnapshotIsBusy,
            _ => otherwise,
        }
    }
}

/// Work that has brought down too many holders is put aside: it fails without another try.
pub(super) fn bearable(claim: &WorkerClaim) -> Result<(), Failure> {
    let deaths = deaths::told_by(claim.race_preventer);
    if deaths < deaths::LIMIT {
        return Ok(());
    }
    let message = format!("put aside: it has brought down {deaths} instances that worked on it");
    Err(Fault::new(FaultClass::CinderException, message).into())
}
