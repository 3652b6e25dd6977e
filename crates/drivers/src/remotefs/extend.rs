//! Growing a volume (contract: remotefs-nfs §14).

use scoria_model::{AttachStatus, FaultClass, Volume};

use super::create::bytes;
use super::inspect::Format;
use super::place::Place;
use crate::{Error, ErrorKind};

fn failed(kind: ErrorKind, reason: String) -> Error {
    Error::new(kind, FaultClass::ExtendVolumeError, reason)
}

impl Place<'_> {
    /// Grows the volume's active file. One that has the size already (a second try) is left alone.
    pub(crate) async fn extend(&self, volume: &Volume, new_size: u64) -> Result<(), Error> {
        let id = &volume.id;
        if volume.attach_status == AttachStatus::Attached {
            let reason = format!("Cannot extend volume {id} while it is attached.");
            return Err(failed(ErrorKind::Unsupported, reason));
        }
        let length = bytes(new_size)?;
        let info = self.read_info().await?;
        let chain = self.whole_chain(self.active(&info), volume).await?;
        let Some(active) = chain.first() else { return Ok(()) };
        if active.virtual_size == length {
            return Ok(());
        }
        if active.virtual_size > length {
            let reason = format!("Volume {id} is already larger than {new_size}G: it cannot shrink.");
            return Err(failed(ErrorKind::Invalid, reason));
        }
        let more = length.saturating_sub(bytes(volume.size)?);
        if !self.capacity().await?.has_room(&self.core.settings, more) {
            let reason = format!("Insufficient space to extend volume {id} to {new_size}G");
            return Err(failed(ErrorKind::NoSpace, reason));
        }
        match active.format {
            Format::Qcow2 => self.resize_qcow2(&active.file, length).await?,
            _ => self.grow(&active.file, length).await?,
        }
        self.core.faults.at("extend.grown").await;
        match self.layer(&active.file, volume).await? {
            Some(layer) if layer.virtual_size == length => {
                self.usage().add(more);
                Ok(())
            }
            _ => Err(failed(ErrorKind::Failed, "Resizing image file failed.".to_owned())),
        }
    }
}
