//! What is not carried on when its holder is gone, because only the lost request knew what was wanted: a creation from an
//! image or a backup, an extension, an upload. The contract has the volume say so (lifecycle.md §3). Also a reversion of
//! which only the volume's state is left.

use std::sync::Arc;

use scoria_db::{Expect, VolumeChange};
use scoria_model::{MessageAction, MessageDetail, ResourceType, Volume, VolumeId, VolumeStatus};

use super::rows::{bearable, settled};
use crate::failure::{Failure, Interruption};
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;

/// Gives up what went on with a volume in the state `from`: removes what was half made, and writes where that leaves it.
pub(crate) async fn abandon(
    manager: &Arc<VolumeManager>,
    job: &Job,
    id: &VolumeId,
    from: &VolumeStatus,
) -> Result<(), Failure> {
    let request = locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .exclusive(locks::driver(manager.lock_prefix(), id));
    let held = manager.hold(job, request).await?;
    let outcome = abandon_locked(manager, job, id, from, &held).await;
    held.release().await;
    outcome
}

async fn abandon_locked(
    manager: &VolumeManager,
    job: &Job,
    id: &VolumeId,
    from: &VolumeStatus,
    held: &Held,
) -> Result<(), Failure> {
    held.check("load")?;
    let loaded = manager.db.volume_load(id).await?.ok_or_else(|| Interruption::Superseded("gone".to_owned()))?;
    let volume = loaded.volume;
    if volume.status != *from {
        return Err(Interruption::Superseded(volume.status.to_string()).into());
    }
    let claim = manager.claim(job, ResourceType::Volume, id.as_str(), from.as_str(), loaded.worker.as_ref()).await?;
    let half_made = matches!(from, VolumeStatus::Creating | VolumeStatus::Downloading);
    // A deletion that brings us down is not tried for ever either: deleting the volume removes what is there.
    if half_made && bearable(&claim).is_ok() {
        manager.require_driver()?;
        held.check("remove volume")?;
        manager.driver.delete_volume(&held.work, &volume).await?;
    }
    if *from == VolumeStatus::Extending {
        give_back_reservations(manager, &volume).await?;
    }
    held.check("finish")?;
    let (to, told) = outcome(&volume);
    let expect = Expect::status(from.clone()).by(Some(&claim));
    let swap = manager.db.volume_finish(id, &expect, &VolumeChange::status(to.clone()), Some(&claim)).await?;
    settled(swap, &[to.as_str()])?;
    tracing::warn!(volume = %id, from = from.as_str(), to = to.as_str(), "interrupted work could not be carried on");
    if let Some((action, detail)) = told {
        manager.tell_user(&job.context, ResourceType::Volume, id.as_str(), action, detail).await;
    }
    Ok(())
}

/// Only the request knew which reservations were its own. Where requests stay in the process, all that are older than the
/// process are nobody's any more; elsewhere cinder-scheduler lets them expire.
async fn give_back_reservations(manager: &VolumeManager, volume: &Volume) -> Result<(), Failure> {
    let Some(project) = volume.project_id.as_deref().filter(|_| manager.options.messages_die_with_us) else {
        return Ok(());
    };
    let orphans = manager.db.quota_reserved_before(project, manager.born).await?;
    Ok(manager.db.quota_rollback(&orphans, project).await?)
}

/// Where a volume ends whose work was given up, and what its owner is told.
fn outcome(volume: &Volume) -> (VolumeStatus, Option<(MessageAction, MessageDetail)>) {
    match volume.status {
        VolumeStatus::Extending => {
            (VolumeStatus::ErrorExtending, Some((MessageAction::ExtendVolume, MessageDetail::DriverFailedExtend)))
        }
        // Its content is what it was to be: the snapshot was settled before, or not even asked for.
        VolumeStatus::Reverting => (VolumeStatus::Available, None),
        VolumeStatus::Uploading if volume.attachments.is_empty() => (VolumeStatus::Available, None),
        VolumeStatus::Uploading => (VolumeStatus::InUse, None),
        _ => (VolumeStatus::Error, Some((MessageAction::CreateVolumeFromBackend, MessageDetail::DriverFailedCreate))),
    }
}
