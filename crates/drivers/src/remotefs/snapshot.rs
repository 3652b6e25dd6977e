//! Snapshots of volumes that are not attached (contract: remotefs-nfs §11, §12).
//!
//! A snapshot freezes the active file: a new overlay on it takes the changes from then on and becomes the active one. To
//! delete a snapshot, its overlay's data are committed down into the file below.
//!
//! Either may die anywhere and is then simply run again:
//!
//! * Create: overlay built aside, renamed, then `.info`. Before `.info` names it nobody uses the overlay: it is built anew.
//!   After, there is nothing left to do but to tell the facts.
//! * Delete: commit, point the overlay above at the file below, `.info`, remove. Until the last step the overlay is there
//!   and whole, so a commit may be repeated, and reading through the chain gives the same bytes before, during and after
//!   it. When no file of the chain stands on the overlay any more, commit and repointing are done; when `.info` does not
//!   name it any more, only the file is left to be removed. (`.info` before the repointing would let a Python peer take the
//!   overlay for the volume's own file.)
//! * A Python peer removes the overlay right after the commit: a chain that ends at a missing overlay is one whose content
//!   is in the file below. Which one that was is told by the files: it is the one that no other of the rest stands on.

use scoria_model::{AttachStatus, FaultClass, Metadata, Snapshot, Volume, VolumeStatus};

use super::chain::{Chain, Layer};
use super::create::bytes;
use super::info::Info;
use super::inspect::Format;
use super::names;
use super::place::Place;
use crate::{Error, ErrorKind};

fn refuse_attached(volume: &Volume) -> Result<(), Error> {
    if volume.attach_status != AttachStatus::Attached {
        return Ok(());
    }
    let message = format!(
        "Volume {} is attached: snapshots of attached volumes need the assistance of Nova, which is not supported yet. \
         Detach the volume and try again.",
        volume.id
    );
    Err(Error::driver(ErrorKind::Unsupported, message))
}

fn wrong_status(volume: &Volume, allowed: &str) -> Error {
    Error::invalid_volume(format!("Volume {} must be {allowed}, but is {}.", volume.id, volume.status))
}

/// Whether a snapshot may be taken.
pub(crate) fn check_create(snapshot: &Snapshot, volume: &Volume) -> Result<(), Error> {
    refuse_attached(volume)?;
    let temporary = snapshot.display_name.as_deref().is_some_and(|name| name.starts_with("tmp-snap-"));
    match volume.status {
        VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::BackingUp => Ok(()),
        VolumeStatus::Downloading if temporary => Ok(()),
        _ => Err(wrong_status(volume, "available, in-use or backing-up")),
    }
}

/// Whether a snapshot may be deleted.
pub(crate) fn check_delete(volume: &Volume) -> Result<(), Error> {
    refuse_attached(volume)?;
    use VolumeStatus::{Available, BackingUp, Deleting, Downloading, InUse};
    match volume.status {
        Available | InUse | BackingUp | Deleting | Downloading => Ok(()),
        _ => Err(wrong_status(volume, "available, in-use, backing-up, deleting or downloading")),
    }
}

impl Place<'_> {
    /// Takes a snapshot. The answer is what becomes of the volume's admin metadata.
    pub(crate) async fn create_snapshot(&self, snapshot: &Snapshot, volume: &Volume) -> Result<Metadata, Error> {
        let mut info = self.read_info().await?;
        let id = snapshot.id.as_str();
        let is_first = info.snapshots().all(|(other, _)| other == id);
        let base_format = if info.forward(id).is_some() {
            // An earlier try came to its end: only its facts were lost.
            let chain = self.whole_chain(self.active(&info), volume).await?;
            chain.last().map(|base| base.format)
        } else {
            let chain = self.whole_chain(self.active(&info), volume).await?;
            let (Some(top), base) = (chain.first(), chain.last()) else { return Ok(Metadata::new()) };
            let overlay = names::overlay(&self.name, id);
            if !names::is_of(&overlay, &self.name) {
                // Python would refuse the file; so would we, the next time.
                return Err(Error::invalid_snapshot(format!("{id} cannot be a file name: use a UUID")));
            }
            let (aside, length) = (self.aside(), bytes(volume.size)?);
            self.build(&overlay, self.create_overlay(&aside, &top.file, top.format, length)).await?;
            info.insert(id, &overlay);
            info.set_active(&overlay);
            self.write_info(&info).await?;
            self.core.faults.at("snapshot.recorded").await;
            base.map(|base| base.format)
        };
        let mut facts = Metadata::from([("format".to_owned(), Format::Qcow2.to_string())]);
        if let Some(format) = base_format.filter(|_| is_first && !volume.admin_metadata.contains_key("base_format")) {
            facts.insert("base_format".to_owned(), format.to_string());
        }
        Ok(facts)
    }

    /// Deletes a snapshot. The answer is what becomes of the volume's admin metadata.
    pub(crate) async fn delete_snapshot(&self, snapshot: &Snapshot, volume: &Volume) -> Result<Metadata, Error> {
        let mut info = self.read_info().await?;
        let id = snapshot.id.as_str();
        let Some(forward) = info.forward(id).map(str::to_owned) else {
            self.remove_unrecorded(&names::overlay(&self.name, id), &info, volume).await?;
            return self.format_facts(&info, volume).await;
        };
        let chain = self.chain(self.active(&info), volume).await?;
        match chain.missing.as_deref() {
            None => self.fold(&forward, &chain, &mut info, volume).await?,
            Some(missing) if missing == forward => self.mend(&forward, &chain, &mut info, volume).await?,
            Some(missing) => {
                let path = self.path(missing);
                let message = format!("{} is not on the share: the volume's chain is broken", path.display());
                return Err(Error::driver(ErrorKind::Failed, message));
            }
        }
        info.remove(id);
        self.core.faults.at("delete.folded").await;
        self.write_info(&info).await?;
        self.core.faults.at("delete.recorded").await;
        if info.active() != Some(forward.as_str()) && !info.files().any(|file| file == forward) {
            self.remove(&forward).await?;
        }
        self.format_facts(&info, volume).await
    }

    /// Takes the overlay `forward` out of the chain, its data going into the file below.
    async fn fold(&self, forward: &str, chain: &Chain, info: &mut Info, volume: &Volume) -> Result<(), Error> {
        let Some(layer) = chain.layers.iter().find(|layer| layer.file == forward) else {
            // An earlier try has already taken it out.
            return Ok(());
        };
        let Some(below) = layer.backing.as_deref() else {
            // Everything was pulled up into it: there is no older content left that could be forgotten.
            return Ok(());
        };
        let below_format = self.format_in(&chain.layers, below, volume).await?;
        self.commit(forward, below).await?;
        self.core.faults.at("delete.committed").await;
        match chain.above(forward) {
            None => info.set_active(below),
            Some(above) => self.rebase(&above.file, below, below_format).await?,
        }
        Ok(())
    }

    /// Closes the gap that a Python peer left when it died after removing the overlay `forward`.
    async fn mend(&self, forward: &str, chain: &Chain, info: &mut Info, volume: &Volume) -> Result<(), Error> {
        let rest = self.rest_of_chain(forward, chain, info, volume).await?;
        let Some(below) = rest else {
            let class = FaultClass::RemoteFSException;
            let message = format!("the file below {} is not to be found", self.path(forward).display());
            return Err(Error::new(ErrorKind::Failed, class, message));
        };
        match chain.layers.last() {
            None => info.set_active(&below.file),
            Some(above) => self.rebase(&above.file, &below.file, below.format).await?,
        }
        Ok(())
    }

    /// The topmost of the volume's files that are not above the missing one: the one that no other of them stands on.
    async fn rest_of_chain(
        &self,
        forward: &str,
        chain: &Chain,
        info: &Info,
        volume: &Volume,
    ) -> Result<Option<Layer>, Error> {
        let mut rest: Vec<Layer> = Vec::new();
        for file in info.files().chain([self.name.as_str()]) {
            let is_known = rest.iter().any(|layer| layer.file == file);
            if file != forward && !is_known && !chain.has(file) {
                rest.extend(self.layer(file, volume).await?);
            }
        }
        let stood_on: Vec<_> = rest.iter().filter_map(|layer| layer.backing.clone()).collect();
        rest.retain(|layer| !stood_on.contains(&layer.file));
        // Two heads would mean two chains: nothing that could be told apart safely.
        Ok(if rest.len() == 1 { rest.pop() } else { None })
    }

    async fn format_in(&self, layers: &[Layer], file: &str, volume: &Volume) -> Result<Format, Error> {
        if let Some(layer) = layers.iter().find(|layer| layer.file == file) {
            return Ok(layer.format);
        }
        let layer = self.layer(file, volume).await?;
        layer.map(|layer| layer.format).ok_or_else(|| {
            Error::driver(ErrorKind::Failed, format!("{} is not on the share", self.path(file).display()))
        })
    }

    /// Removes an overlay that an interrupted try left, unless the chain needs it.
    async fn remove_unrecorded(&self, overlay: &str, info: &Info, volume: &Volume) -> Result<(), Error> {
        self.remove(&self.aside()).await?;
        self.remove(&names::info_aside(&self.name)).await?;
        if self.stat(overlay).await?.is_none() || info.files().any(|file| file == overlay) {
            return Ok(());
        }
        let chain = self.whole_chain(self.active(info), volume).await?;
        if chain.iter().all(|layer| layer.file != overlay) {
            self.remove(overlay).await?;
        }
        Ok(())
    }

    /// The format that the row has to record: that of the active file.
    async fn format_facts(&self, info: &Info, volume: &Volume) -> Result<Metadata, Error> {
        let facts = |format: &str| Metadata::from([("format".to_owned(), format.to_owned())]);
        match info.active() {
            // Never had a snapshot.
            None => Ok(Metadata::new()),
            Some(active) if active != self.name => Ok(facts(Format::Qcow2.as_str())),
            Some(active) => match volume.admin_metadata.get("base_format") {
                Some(format) => Ok(facts(format)),
                None => match self.layer(active, volume).await? {
                    Some(Layer { format: Format::Raw, .. }) => {
                        let mut facts = facts(Format::Raw.as_str());
                        facts.insert("base_format".to_owned(), Format::Raw.to_string());
                        Ok(facts)
                    }
                    _ => Ok(Metadata::new()),
                },
            },
        }
    }
}
