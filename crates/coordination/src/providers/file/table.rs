//! The open lock files. All of this runs as jobs of the [worker](super::worker).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::PathBuf;

use nix::sys::stat::{major, minor};
use scoria_runtime::CancellationToken;

use super::mount::{FileSystem, file_system};
use super::register::Register;
use super::{lock_file, peers};
use crate::name::{PREFIX, bare};
use crate::{Error, Holder, Mode, Owner};

/// What somebody wants to lock.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: u64,
    /// Complete, with the prefix.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) mode: Mode,
    pub(super) owner: Owner,
}

/// What has become of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    Held,
    /// Somebody is in the way.
    Busy,
    /// There is no file to lock yet, or the path leads to another one by now.
    NotOpen,
}

/// Lock files that are open, held or waited for.
#[derive(Debug)]
pub(super) struct Table {
    directory: PathBuf,
    instance: String,
    exclusive_directory: bool,
    register: Option<Register>,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    name: String,
    mode: Mode,
    held: bool,
    lost: CancellationToken,
    slot: Option<usize>,
}

impl Table {
    pub(super) fn new(directory: PathBuf, instance: String, exclusive_directory: bool) -> Self {
        Self { directory, instance, exclusive_directory, register: None, open: HashMap::new() }
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Error {
        Error::Unavailable(format!("lock directory '{}': {doing}: {error}", self.directory.display()))
    }

    /// Makes the directory, removes what the dead have left where that is safe, and finds out what it is on.
    pub(super) fn prepare(&mut self) -> Result<FileSystem, Error> {
        std::fs::create_dir_all(&self.directory).map_err(|error| self.failed("cannot be made", &error))?;
        let about = std::fs::metadata(&self.directory).map_err(|error| self.failed("cannot be read", &error))?;
        match Register::create(&self.directory, &self.instance) {
            Ok(register) => {
                register.others().map_err(|error| self.failed("cannot be read", &error))?;
                self.register = Some(register);
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%error, "the lock directory is full: other processes will not see who holds what");
            }
            Err(error) => return Err(self.failed("cannot be written to or locked in", &error)),
        }
        if self.exclusive_directory {
            self.sweep().map_err(|error| self.failed("cannot be swept", &error))?;
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Ok(file_system(&mounts, (major(about.dev()), minor(about.dev()))))
    }

    /// Removes the lock files nobody holds. Only where nobody takes locks who does not look at the path afterwards.
    fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) && entry.file_type()?.is_file() {
                let path = entry.path();
                let file = lock_file::open(&path, Mode::Exclusive)?;
                if lock_file::try_lock(&file, Mode::Exclusive)? && lock_file::is_at(&file, &path)? {
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Tries once, with a file that was opened for it or with the one it has. That descriptor belongs to the try until
    /// [`Table::release`]. `lost` is cancelled when the lock was had and is lost.
    pub(super) fn try_lock(
        &mut self,
        wanted: &Wanted,
        opened: Option<File>,
        lost: CancellationToken,
    ) -> Result<Tried, Error> {
        let (waiting, slot) = match self.open.remove(&wanted.id) {
            Some(waiting) => (Some(waiting.file), waiting.slot),
            None => (None, None),
        };
        let Some(file) = opened.or(waiting) else { return Ok(Tried::NotOpen) };
        // Who gives one back removes its file first: a waiter woken by that finds the old one locked still, and wants the next.
        let attempt = lock_file::try_lock(&file, wanted.mode).and_then(|granted| {
            Ok(match lock_file::is_at(&file, &wanted.path)? {
                true if granted => Tried::Held,
                true => Tried::Busy,
                false => Tried::NotOpen,
            })
        });
        let tried = match attempt {
            Ok(tried) => tried,
            Err(error) => {
                self.clear(slot);
                return Err(self.failed(&format!("'{}' cannot be locked", wanted.name), &error));
            }
        };
        let held = tried == Tried::Held;
        // A waiter is noted once, when it begins to wait.
        let slot = match &mut self.register {
            Some(register) if held || (tried == Tried::Busy && slot.is_none()) => {
                register.note(slot, &wanted.name, wanted.mode, held, &wanted.owner)
            }
            _ => slot,
        };
        let (name, path) = (wanted.name.clone(), wanted.path.clone());
        self.open.insert(wanted.id, Open { file, path, name, mode: wanted.mode, held, lost, slot });
        Ok(tried)
    }

    /// Whether somebody in another process of ours has waited longer for the lock that one of us waits for.
    pub(super) fn others_wait_longer(&self, id: u64) -> bool {
        let (Some(register), Some(open)) = (&self.register, self.open.get(&id)) else { return false };
        open.slot.is_some_and(|slot| register.others_wait_longer(slot, &open.name).unwrap_or(false))
    }

    /// Whether somebody in another process of ours waits for a lock.
    pub(super) fn others_wait(&self, name: &str) -> bool {
        self.register.as_ref().is_some_and(|register| register.others_wait(name).unwrap_or(false))
    }

    fn clear(&mut self, slot: Option<usize>) {
        if let (Some(slot), Some(register)) = (slot, &mut self.register) {
            register.clear(slot);
        }
    }

    /// Gives back a lock, or gives up waiting for it. The error says why the lock was ours no longer.
    pub(super) fn release(&mut self, id: u64) -> Result<(), String> {
        let Some(open) = self.open.remove(&id) else { return Ok(()) };
        let result = if open.held { open.in_place() } else { Ok(()) };
        if self.exclusive_directory && open.held && result.is_ok() {
            open.remove();
        }
        self.clear(open.slot);
        if let Err(error) = lock_file::unlock(&open.file) {
            tracing::debug!(%error, path = %open.path.display(), "not unlocked; closing it does it");
        }
        result
    }

    /// Looks whether a lock is still ours.
    pub(super) fn verify(&self, id: u64) -> Result<(), String> {
        self.open.get(&id).map_or_else(|| Err("it was given back".to_owned()), Open::probe)
    }

    /// Looks at everything that is held and tells those who have lost theirs. Says why the directory cannot be used,
    /// when it cannot.
    pub(super) fn check(&self) -> Option<String> {
        for open in self.open.values().filter(|open| open.held && !open.lost.is_cancelled()) {
            if let Err(reason) = open.probe() {
                tracing::warn!(path = %open.path.display(), reason, "lock lost");
                open.lost.cancel();
            }
        }
        // What is known of a directory on a server may be remembered here; opening it asks the server.
        let opened = File::open(&self.directory);
        opened.err().map(|error| self.failed("cannot be read", &error).to_string())
    }

    /// Gives everything back.
    pub(super) fn close(&mut self) {
        let ids: Vec<_> = self.open.keys().copied().collect();
        for id in ids {
            // Whoever held it has been told already.
            let _ = self.release(id);
        }
        self.register = None;
    }

    /// Other processes that hold or wait: ours by their registers, Python's by what the kernel tells.
    pub(super) fn others(&self) -> Result<Vec<Holder>, Error> {
        let mut holders = match &self.register {
            Some(register) => register.others().map_err(|error| self.failed("registers cannot be read", &error))?,
            None => Vec::new(),
        };
        let peers = self.peers(&holders).map_err(|error| self.failed("cannot be read", &error))?;
        holders.extend(peers);
        Ok(holders)
    }

    fn peers(&self, known: &[Holder]) -> io::Result<Vec<Holder>> {
        let device = std::fs::metadata(&self.directory)?.dev();
        let device = (major(device), minor(device));
        let mut locks = peers::parse(&std::fs::read_to_string("/proc/locks").unwrap_or_default());
        locks.retain(|lock| lock.device == device);
        let mut holders = Vec::new();
        if locks.is_empty() {
            return Ok(holders);
        }
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let (file_name, inode) = (entry.file_name(), entry.ino());
            let Some(name) = file_name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let of_file = locks.iter().filter(|lock| lock.inode == inode);
            // Open-file-description locks have no process: those that no register explains are somebody else's.
            let ours = self.open.values().filter(|open| open.held && open.name == name).count();
            let registered = known.iter().filter(|holder| holder.held && holder.name == bare(name)).count();
            let mut explained = ours + registered;
            let known_to_be_held = explained > 0;
            for lock in of_file {
                let held_ofd = lock.ofd && !lock.waits;
                if held_ofd && explained > 0 {
                    explained -= 1;
                    continue;
                }
                // The kernel's list is no snapshot: while others change theirs, a line may come twice. An exclusive lock
                // has no second holder.
                if held_ofd && lock.write && known_to_be_held {
                    continue;
                }
                holders.push(Holder {
                    name: bare(name).to_owned(),
                    mode: if lock.write { Mode::Exclusive } else { Mode::Shared },
                    held: !lock.waits,
                    instance: if lock.ofd { "unknown".to_owned() } else { peers::describe(lock.pid) },
                    host: None,
                    owner: Owner::default(),
                    since: None,
                    token: None,
                });
            }
        }
        Ok(holders)
    }
}

impl Open {
    /// Whether the lock still is what it was: the path leads to our file, and the kernel (for a network file system: the
    /// server) grants again what we hold.
    fn probe(&self) -> Result<(), String> {
        self.in_place()?;
        match lock_file::try_lock(&self.file, self.mode) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("'{}' is locked by somebody else", self.path.display())),
            Err(error) => Err(format!("'{}': {error}", self.path.display())),
        }
    }

    fn in_place(&self) -> Result<(), String> {
        match lock_file::is_at(&self.file, &self.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("'{}' was removed or replaced", self.path.display())),
            Err(error) => Err(format!("'{}': {error}", self.path.display())),
        }
    }

    /// Removes the lock file, if we are its only holder.
    fn remove(&self) {
        if self.mode == Mode::Shared && !lock_file::try_lock(&self.file, Mode::Exclusive).unwrap_or(false) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "lock file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_file_that_was_removed_wants_the_next_one_though_its_holder_has_it_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cinder-a");
        let open = || lock_file::open(&path, Mode::Exclusive).unwrap();
        let mut table = Table::new(directory.path().to_owned(), String::new(), true);
        let (name, owner) = ("cinder-a".to_owned(), Owner::default());
        let wanted = Wanted { id: 1, name, path: path.clone(), mode: Mode::Exclusive, owner };
        let mut tried = |opened| table.try_lock(&wanted, opened, CancellationToken::new()).unwrap();
        assert_eq!(tried(None), Tried::NotOpen);
        let holder = open();
        assert!(lock_file::try_lock(&holder, Mode::Exclusive).unwrap());
        assert_eq!(tried(Some(open())), Tried::Busy);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tried(None), Tried::NotOpen);
        assert_eq!(tried(Some(open())), Tried::Held);
    }
}
