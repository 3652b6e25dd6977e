//! What operations do to rows in the same way.

use scoria_db::{Expect, Swap, VolumeChange, WorkerClaim};
use scoria_model::{
    Fault, MessageAction, MessageDetail, RequestContext, ResourceType, UserMessage, VolumeId, VolumeStatus, Worker,
};

use crate::failure::{Failure, Interruption};
use crate::manager::VolumeManager;

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
    /// Takes the `workers` row of a resource, under its lock. Whoever had it before writes nothing any more.
    pub(super) async fn claim(
        &self,
        resource: ResourceType,
        id: &str,
        status: &str,
        seen: Option<&Worker>,
    ) -> Result<WorkerClaim, Failure> {
        let claim = self.db.worker_claim(resource, id, status, seen, self.service().id).await?;
        claim.ok_or_else(|| Interruption::Replaced.into())
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
            scoria_model::FaultClass::DriverNotInitialized => MessageDetail::DriverNotInitialized,
            scoria_model::FaultClass::SnapshotIsBusy => MessageDetail::SnapshotIsBusy,
            _ => otherwise,
        }
    }
}

/// An extend that failed, or that was interrupted in a process that is gone: `error_extending`. Reservations are the
/// caller's to give back, where it still knows them; cinder-scheduler expires the others.
pub(crate) async fn fail_extend(
    manager: &VolumeManager,
    id: &VolumeId,
    claim: Option<&WorkerClaim>,
) -> Result<(), Failure> {
    let change = VolumeChange::status(VolumeStatus::ErrorExtending);
    let swap = manager.db.volume_finish(id, &Expect::status(VolumeStatus::Extending), &change, claim).await?;
    settled(swap, &["error_extending"])
}
