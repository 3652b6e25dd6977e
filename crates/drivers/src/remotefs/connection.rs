//! What is told to those who attach (contract: remotefs-nfs §17).

use scoria_model::{GIB, Volume};

use super::chain::Layer;
use super::place::Place;
use crate::Error;

impl Place<'_> {
    /// The file to attach. Its format is what a driver recorded, never what the content pretends: `.info` names overlays,
    /// which are qcow2; the volume's own file is what the row says.
    ///
    /// # Errors
    /// `InvalidVolume` when the disk in the file is larger than the volume: only somebody inside could have made it so.
    pub(crate) async fn attachable(&self, volume: &Volume) -> Result<Layer, Error> {
        let info = self.read_info().await?;
        let chain = self.whole_chain(self.active(&info), volume).await?;
        let active = chain.into_iter().next().ok_or_else(|| Error::invalid_volume("it has no file"))?;
        if active.virtual_size.div_ceil(GIB) > volume.size {
            return Err(Error::invalid_volume(
                "The volume virtual_size does not match the size in cinder, aborting as we suspect an exploit.",
            ));
        }
        Ok(active)
    }
}
