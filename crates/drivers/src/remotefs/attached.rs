//! Snapshots of attached volumes (contract: remotefs-nfs §11.3, §12.2).
//!
//! A server has the chain open: it alone can change what it writes to, and merge files of it. To take a snapshot we put the overlay
//! on top and record it, and the server takes it up. To delete one, the server merges its files, and we take out of `.info` and off the share what
//! is no longer in the chain.
//!
//! Python records the overlay only when the server writes into it: dying in between, it leaves `.info` naming a file that is no
//! longer the newest, and the next attachment loses what was written. The other way round nothing is lost: as long as the server writes below the
//! overlay, that is empty.
//!
//! Whether a merge is done is told by the files alone, so that it does not matter who asks, how often, and whether the
//! volume is still attached by then.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use scoria_model::{Snapshot, Volume};

use super::chain::Layer;
use super::info::Info;
use super::names;
use super::place::Place;
use crate::{Error, ErrorKind, Merge, SnapshotFacts};

/// The byte on which QEMU holds a lock as long as it may write to a file (`block/file-posix.c: RAW_LOCK_PERM_BASE` and the number of
/// `BLK_PERM_WRITE`). Whoever only reads it, as copies of snapshots do, holds others.
const QEMU_WRITES: i64 = 101;

/// What has to be merged before a snapshot is out of the chain. `None`: none of its files is in it, or what is there belongs to
/// another snapshot too, or has nothing below that could be forgotten.
pub(super) fn merge_of(info: &Info, chain: &[Layer], id: &str) -> Option<Merge> {
    let forward = info.forward(id)?;
    let is_shared = info.snapshots().any(|(other, file)| other != id && file == forward);
    let layer = |file: &str| chain.iter().find(|layer| layer.file == file);
    let below = layer(forward).filter(|_| !is_shared)?.backing.clone()?;
    if chain.first().is_some_and(|top| top.file != forward) {
        return Some(Merge { file_to_merge: Some(forward.to_owned()), merge_target_file: Some(below) });
    }
    // Down into the file that the server writes to nothing can be merged. Up to it: what is frozen for another snapshot stays.
    let is_of_another = info.snapshots().any(|(_, file)| file == below);
    let stays = layer(&below).filter(|_| is_of_another).and_then(|layer| layer.backing.clone());
    Some(Merge { file_to_merge: stays, merge_target_file: None })
}

impl Place<'_> {
    /// What the server still has to merge for a snapshot.
    pub(crate) async fn merge_for(&self, snapshot: &Snapshot, volume: &Volume) -> Result<Option<Merge>, Error> {
        let mut info = self.read_info().await?;
        let id = snapshot.id.as_str();
        if info.forward(id).is_none() {
            return Ok(None);
        }
        let chain = self.whole_chain(self.active(&info), volume).await?;
        self.settle(&mut info, &chain, id, volume).await?;
        Ok(merge_of(&info, &chain, id))
    }

    /// Follows what servers have merged for other snapshots than `id`. One whose file is in the chain no more, while what it froze
    /// still is, has the file that now stands on that. The answer is the files that have become useless by it.
    pub(super) async fn settle(
        &self,
        info: &mut Info,
        chain: &[Layer],
        id: &str,
        volume: &Volume,
    ) -> Result<Vec<String>, Error> {
        let in_chain = |file: &str| chain.iter().any(|layer| layer.file == file);
        let outside = info.snapshots().filter(|(other, file)| *other != id && !in_chain(file));
        let outside: Vec<_> = outside.map(|(id, file)| (id.to_owned(), file.to_owned())).collect();
        let mut useless = Vec::new();
        for (id, file) in outside {
            let Some(frozen) = self.layer(&file, volume).await?.and_then(|layer| layer.backing) else { continue };
            if let Some(above) = chain.iter().find(|layer| layer.backing.as_deref() == Some(&frozen)) {
                info.insert(&id, &above.file);
                useless.push(file);
            }
        }
        Ok(useless)
    }

    /// The files that nobody needs when a snapshot goes that has nothing left to merge.
    pub(super) async fn without_use(&self, info: &Info, chain: &[Layer], id: &str) -> Result<Vec<String>, Error> {
        let Some(forward) = info.forward(id) else { return Ok(Vec::new()) };
        let has_use = |file: &str| {
            let is_of_another = info.snapshots().any(|(other, known)| other != id && known == file);
            is_of_another || chain.iter().any(|layer| layer.file == file)
        };
        let mut files = match chain {
            // Everything was pulled up into it, from files that nothing tells the names of any more.
            [only] if only.file == forward => self.files_on_share().await?,
            _ => vec![forward.to_owned()],
        };
        files.retain(|file| !has_use(file));
        Ok(files)
    }

    pub(super) fn not_merged(&self, snapshot: &str) -> Error {
        let message = format!(
            "The server that {} is attached to has not merged the files of snapshot {snapshot}: detach the volume to have it deleted.",
            self.name
        );
        Error::driver(ErrorKind::Failed, message)
    }

    /// Whether the server writes into the snapshot's overlay. QEMU holds locks on the files that it has open: when it is seen
    /// writing to the file below, and nothing is seen on the overlay, it does not.
    pub(crate) async fn is_taken_up(&self, snapshot: &Snapshot, volume: &Volume) -> Result<Option<bool>, Error> {
        let info = self.read_info().await?;
        let Some(overlay) = info.forward(snapshot.id.as_str()) else { return Ok(None) };
        if info.active() != Some(overlay) {
            return Ok(Some(true));
        }
        let below = self.layer(overlay, volume).await?.and_then(|layer| layer.backing);
        let Some(below) = below else { return Ok(Some(true)) };
        if self.is_locked(overlay, 0, 0).await? {
            return Ok(Some(true));
        }
        Ok(self.is_locked(&below, QEMU_WRITES, 1).await?.then_some(false))
    }

    /// Whether a lock of others can be seen on `length` bytes of a file (0: all of it) from `start` on.
    async fn is_locked(&self, file: &str, start: i64, length: i64) -> Result<bool, Error> {
        let look = move |path: &Path| is_locked(path, start, length);
        Ok(self.as_ourselves("look for locks on", file, look).await?.unwrap_or(false))
    }

    /// Takes a snapshot back whose overlay, on top of the chain, is empty and will stay so.
    pub(crate) async fn withdraw(&self, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        let mut info = self.read_info().await?;
        let overlay = names::overlay(&self.name, snapshot.id.as_str());
        if info.forward(snapshot.id.as_str()) == Some(&overlay) && info.active() == Some(&overlay) {
            let below = self.layer(&overlay, volume).await?.and_then(|layer| layer.backing);
            info.set_active(below.as_deref().unwrap_or(&self.name));
            info.remove(snapshot.id.as_str());
            self.write_info(&info).await?;
            self.core.faults.at("snapshot.withdrawn").await;
        }
        if !info.files().any(|file| file == overlay) {
            self.remove(&overlay).await?;
        }
        let active = info.active().map(str::to_owned);
        Ok(SnapshotFacts { active, ..self.format_facts(&info, volume).await? })
    }
}

fn is_locked(path: &Path, start: i64, length: i64) -> io::Result<bool> {
    let file = std::fs::File::open(path)?;
    #[allow(clippy::cast_possible_truncation, reason = "the constants are small; the field's type differs by platform")]
    let mut wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut wanted))?;
    Ok(i32::from(wanted.l_type) != libc::F_UNLCK)
}
