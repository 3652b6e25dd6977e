//! Volumes with the content of a snapshot or of another volume (contract: remotefs-nfs §13).
//!
//! Python clones through a temporary snapshot. Under the caller's lock nobody writes the source, so none is needed: its
//! chain is read as it stands. Unlike Python's, the new volume has the size that was asked for.

use scoria_model::{AttachStatus, Snapshot, SnapshotStatus, Volume, VolumeStatus};

use super::chain::Layer;
use super::create::bytes;
use super::inspect::Format;
use super::place::Place;
use crate::{Error, ErrorKind};

/// Whether a snapshot may be copied from.
pub(crate) fn check_snapshot(snapshot: &Snapshot) -> Result<(), Error> {
    match snapshot.status {
        SnapshotStatus::Available | SnapshotStatus::BackingUp | SnapshotStatus::Restoring => Ok(()),
        ref other => Err(Error::invalid_snapshot(format!(
            "Snapshot {} must be available, backing-up or restoring to be copied from, but is {other}.",
            snapshot.id
        ))),
    }
}

/// Whether a volume may be cloned.
pub(crate) fn check_source(source: &Volume) -> Result<(), Error> {
    let id = &source.id;
    if source.attach_status == AttachStatus::Attached {
        return Err(Error::invalid_volume(format!("Volume {id} is attached: detach it before it is cloned.")));
    }
    match source.status {
        VolumeStatus::Available | VolumeStatus::BackingUp | VolumeStatus::Downloading => Ok(()),
        ref other => Err(Error::invalid_volume(format!(
            "Volume {id} must be available, backing-up or downloading to be cloned, but is {other}."
        ))),
    }
}

impl Place<'_> {
    /// The chain of a snapshot's frozen content, top first.
    pub(crate) async fn frozen_chain(&self, snapshot: &Snapshot, volume: &Volume) -> Result<Vec<Layer>, Error> {
        let info = self.read_info().await?;
        let Some(forward) = info.forward(snapshot.id.as_str()) else {
            let message = format!("Snapshot {} is not in {}", snapshot.id, self.path(&self.info_name()).display());
            return Err(Error::driver(ErrorKind::Failed, message));
        };
        let mut chain = self.whole_chain(forward, volume).await?;
        chain.remove(0);
        if chain.is_empty() {
            return Err(Error::driver(ErrorKind::Failed, format!("Snapshot {} has lost its content", snapshot.id)));
        }
        Ok(chain)
    }

    /// Makes this volume, `size` GiB large, with the content of a chain of `source`.
    pub(crate) async fn create_from(&self, source: &Place<'_>, chain: &[Layer], size: u64) -> Result<(), Error> {
        let Some(top) = chain.first() else { return Err(Error::driver(ErrorKind::Failed, "nothing to copy from")) };
        let (length, aside, format) = (bytes(size)?, self.aside(), self.core.format());
        let build = async {
            let both_raw = top.format == Format::Raw && format == Format::Raw;
            if !(both_raw && self.copy_raw(source, &top.file, &aside).await?) {
                self.convert(source, chain, (&aside, format)).await?;
            }
            self.core.faults.at("clone.copied").await;
            match format {
                Format::Qcow2 if top.virtual_size < length => self.resize_qcow2(&aside, length).await,
                Format::Qcow2 => Ok(()),
                _ => self.grow(&aside, length).await,
            }
        };
        self.build(&self.name, build).await
    }
}
