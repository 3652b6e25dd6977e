//! Removing a volume with everything of it (contract: remotefs-nfs §8).
//!
//! Python removes the active file only. Here the whole chain goes, with what interrupted tries left; `.info` goes last but
//! one, so that a second try still knows what there was, and the fence goes last.

use std::collections::BTreeSet;

use scoria_model::Volume;

use super::names;
use super::place::Place;
use crate::{Error, ErrorKind};

impl Place<'_> {
    /// Whether anything of the volume is on this share.
    pub(crate) async fn has_anything(&self) -> Result<bool, Error> {
        for name in [self.name.clone(), self.info_name(), self.aside()] {
            if self.stat(&name).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the volume's files.
    pub(crate) async fn delete(&self, volume: &Volume) -> Result<(), Error> {
        let mut files = BTreeSet::from([self.name.clone()]);
        if self.stat(&self.info_name()).await?.is_some() {
            files.extend(self.files_with_info(volume).await?);
        }
        let mut freed = 0;
        for file in files {
            freed += self.stat(&file).await?.map_or(0, |stat| stat.length);
            self.remove(&file).await?;
            self.core.faults.at("delete.file").await;
        }
        self.usage().subtract(freed);
        for name in [self.aside(), names::info_aside(&self.name), self.info_name(), names::fence(&self.name)] {
            self.remove(&name).await?;
            self.core.faults.at("delete.leftover").await;
        }
        Ok(())
    }

    /// The files of a volume that has (or had) snapshots: what `.info` names, what the chain says, and what else of it lies
    /// in the directory. A damaged `.info` or chain must not keep a volume from being deleted.
    async fn files_with_info(&self, volume: &Volume) -> Result<BTreeSet<String>, Error> {
        let info = match self.read_info().await {
            Ok(info) => info,
            Err(error) if error.kind == ErrorKind::Failed => {
                tracing::warn!(volume = self.name, %error, "deleting by file names");
                super::info::Info::default()
            }
            Err(error) => return Err(error),
        };
        let mut files: BTreeSet<String> = info.files().map(str::to_owned).collect();
        if let Ok(chain) = self.chain(self.active(&info), volume).await {
            files.extend(chain.layers.into_iter().map(|layer| layer.file));
        }
        files.extend(self.files_on_share().await?);
        Ok(files)
    }

    /// The volume's own file and its overlays, as they lie in the directory.
    pub(super) async fn files_on_share(&self) -> Result<Vec<String>, Error> {
        let (root, name) = (self.share.root.clone(), self.name.clone());
        let list = move || {
            let names = std::fs::read_dir(root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let all: std::io::Result<Vec<String>> = names.collect();
            Ok(all?.into_iter().filter(|file| names::is_of(file, &name)).collect::<Vec<_>>())
        };
        self.call(list).await?.map_err(|error| Error::io("list", &self.share.root, &error))
    }
}
