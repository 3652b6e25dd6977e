//! Going back to a volume's latest snapshot.
//!
//! The snapshot's content is in the file below the active overlay, and everything that was written since is in the overlay:
//! it is replaced by an empty one, in one rename. The contract copies the snapshot's bytes over the overlay itself, and the
//! chain is lost (peer defect 17).

use scoria_model::{AttachStatus, Snapshot, Volume, VolumeStatus};

use super::create::bytes;
use super::names;
use super::place::Place;
use crate::Error;

/// Whether a volume may go back.
pub(crate) fn check(volume: &Volume) -> Result<(), Error> {
    let id = &volume.id;
    if volume.attach_status == AttachStatus::Attached {
        return Err(Error::invalid_volume(format!("Volume {id} is attached: detach it before it is reverted.")));
    }
    match volume.status {
        VolumeStatus::Available | VolumeStatus::Reverting => Ok(()),
        ref other => Err(Error::invalid_volume(format!("Volume {id} must be available or reverting, but is {other}."))),
    }
}

impl Place<'_> {
    /// Puts an empty overlay in the place of the snapshot's.
    pub(crate) async fn revert(&self, snapshot: &Snapshot, volume: &Volume) -> Result<(), Error> {
        let below = self.frozen_chain(snapshot, volume).await?.swap_remove(0);
        let overlay = names::overlay(&self.name, snapshot.id.as_str());
        let info = self.read_info().await?;
        if self.active(&info) != overlay {
            let (id, volume) = (&snapshot.id, &volume.id);
            let message =
                format!("Snapshot {id} is not the latest one of volume {volume}: delete the later ones first.");
            return Err(Error::invalid_snapshot(message));
        }
        let (aside, length) = (self.aside(), bytes(volume.size)?);
        self.build(&overlay, self.create_overlay(&aside, &below.file, below.format, length)).await
    }
}
