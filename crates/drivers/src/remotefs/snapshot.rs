//! Snapshots (contract: remotefs-nfs §11, §12).
//!
//! A snapshot freezes the active file: a new overlay on it takes the changes from then on and becomes the active one. To
//! delete a snapshot, its overlay's data are committed down into the file below; while the volume is attached, its server
//! merges files instead ([`super::attached`]).
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

use super::attached;
use super::chain::{Chain, Layer};
use super::create::bytes;
use super::info::Info;
use super::inspect::Format;
use super::names;
use super::place::Place;
use crate::{Error, ErrorKind, SnapshotFacts};

fn wrong_status(volume: &Volume, allowed: &str) -> Error {
    Error::invalid_volume(format!("Volume {} must be {allowed}, but is {}.", volume.id, volume.status))
}

/// Whether a snapshot may be taken.
pub(crate) fn check_create(snapshot: &Snapshot, volume: &Volume) -> Result<(), Error> {
    let temporary = snapshot.display_name.as_deref().is_some_and(|name| name.starts_with("tmp-snap-"));
    match volume.status {
        VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::BackingUp => Ok(()),
        VolumeStatus::Downloading if temporary => Ok(()),
        _ => Err(wrong_status(volume, "available, in-use or backing-up")),
    }
}

/// Whether a snapshot may be deleted.
pub(crate) fn check_delete(volume: &Volume) -> Result<(), Error> {
    use VolumeStatus::{Available, BackingUp, Deleting, Downloading, InUse};
    match volume.status {
        Available | InUse | BackingUp | Deleting | Downloading => Ok(()),
        _ => Err(wrong_status(volume, "available, in-use, backing-up, deleting or downloading")),
    }
}

impl Place<'_> {
    /// Takes a snapshot. The answer is what becomes of the volume's admin metadata, and the overlay.
    pub(crate) async fn create_snapshot(&self, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        let mut info = self.read_info().await?;
        let id = snapshot.id.as_str();
        let chain = self.whole_chain(self.active(&info), volume).await?;
        let (Some(top), Some(base)) = (chain.first(), chain.last()) else { return Ok(SnapshotFacts::default()) };
        let is_first = info.snapshots().all(|(other, _)| other == id);
        let base_format = base.format;
        // When it is recorded, an earlier try came to its end: only its facts were lost.
        if info.forward(id).is_none() {
            let overlay = names::overlay(&self.name, id);
            if !names::is_of(&overlay, &self.name) {
                // Python would refuse the file; so would we, the next time.
                return Err(Error::invalid_snapshot(format!("{id} cannot be a file name: use a UUID")));
            }
            let useless = self.settle(&mut info, &chain, id, volume).await?;
            let (aside, length) = (self.aside(), bytes(volume.size)?);
            self.build(&overlay, self.create_overlay(&aside, &top.file, top.format, length)).await?;
            info.insert(id, &overlay);
            info.set_active(&overlay);
            self.write_info(&info).await?;
            self.core.faults.at("snapshot.recorded").await;
            self.remove_all(&useless).await?;
        }
        let mut facts = Metadata::from([("format".to_owned(), Format::Qcow2.to_string())]);
        if is_first && !volume.admin_metadata.contains_key("base_format") {
            facts.insert("base_format".to_owned(), base_format.to_string());
        }
        Ok(SnapshotFacts { volume_admin_metadata: facts, active: info.active().map(str::to_owned) })
    }

    /// Deletes a snapshot. The answer is what becomes of the volume's admin metadata.
    pub(crate) async fn delete_snapshot(&self, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        let mut info = self.read_info().await?;
        let id = snapshot.id.as_str();
        let Some(forward) = info.forward(id).map(str::to_owned) else {
            // A Python peer records an overlay only after the server writes into it: it may be in use.
            if volume.attach_status != AttachStatus::Attached {
                self.remove_unrecorded(&names::overlay(&self.name, id), &info, volume).await?;
            }
            return self.format_facts(&info, volume).await;
        };
        let chain = self.chain(self.active(&info), volume).await?;
        let mut useless = Vec::new();
        match chain.missing.as_deref() {
            None => {
                useless = self.settle(&mut info, &chain.layers, id, volume).await?;
                match attached::merge_of(&info, &chain.layers, id) {
                    None => useless.extend(self.without_use(&info, &chain.layers, id).await?),
                    Some(_) if volume.attach_status == AttachStatus::Attached => return Err(self.not_merged(id)),
                    Some(_) => {
                        self.fold(&forward, &chain, &mut info, volume).await?;
                        useless.push(forward);
                    }
                }
            }
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
        self.remove_all(&useless).await?;
        self.format_facts(&info, volume).await
    }

    /// Takes the overlay `forward` out of the chain, its data going into the file below.
    async fn fold(&self, forward: &str, chain: &Chain, info: &mut Info, volume: &Volume) -> Result<(), Error> {
        let below = chain.layers.iter().find(|layer| layer.file == forward).and_then(|layer| layer.backing.as_deref());
        let Some(below) = below else { return Ok(()) };
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

    pub(super) async fn remove_all(&self, files: &[String]) -> Result<(), Error> {
        for file in files {
            self.remove(file).await?;
        }
        Ok(())
    }

    /// The format that the row has to record: that of the active file.
    pub(super) async fn format_facts(&self, info: &Info, volume: &Volume) -> Result<SnapshotFacts, Error> {
        let mut facts = Metadata::new();
        match info.active() {
            // Never had a snapshot.
            None => {}
            Some(active) if active != self.name => {
                facts.insert("format".to_owned(), Format::Qcow2.to_string());
                // A server has pulled everything up into an overlay: that is what the volume stands on now.
                if self.stat(&self.name).await?.is_none() {
                    facts.insert("base_format".to_owned(), Format::Qcow2.to_string());
                }
            }
            Some(active) => match volume.admin_metadata.get("base_format") {
                Some(format) => drop(facts.insert("format".to_owned(), format.clone())),
                None => {
                    if let Some(Layer { format: Format::Raw, .. }) = self.layer(active, volume).await? {
                        facts.insert("format".to_owned(), Format::Raw.to_string());
                        facts.insert("base_format".to_owned(), Format::Raw.to_string());
                    }
                }
            },
        }
        Ok(SnapshotFacts { volume_admin_metadata: facts, active: None })
    }
}
