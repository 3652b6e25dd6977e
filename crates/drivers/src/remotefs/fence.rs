//! The third fence: a lock on the share itself, which lives exactly as long as anything still writes.
//!
//! Whoever changes a volume holds an open-file-description lock on `<volume>.scoria-lock` beside it and hands the
//! descriptor on to the `qemu-img` that does the writing. A daemon that was killed leaves no lock behind but that of its
//! still writing child. The file holds the highest fencing token seen; a holder with a lower one is refused.
//!
//! On NFS 4 a dead host's lock goes with its lease, so waiting for it is bounded. On NFS 3 it never goes: there a lock that
//! somebody else's host holds is not waited for, the token alone decides. A holder on *this* host is seen in `/proc/locks`:
//! it is alive, and waited for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use scoria_runtime::Deadline;

use super::disk::{self, Access};
use super::place::Place;
use super::{mount, names};
use crate::{Error, ErrorKind};

/// Longer than the lease of a usual NFS 4 server (90 s), after which it gives a dead host's locks away.
const PATIENCE: Duration = Duration::from_secs(120);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Read as a source: others may read it too.
    Read,
    /// Changed.
    Change,
}

enum Attempt {
    Held(File),
    /// Somebody holds it; whether they are on this host.
    Busy {
        here: bool,
    },
    /// The file was replaced while we waited.
    Replaced,
    /// The file system has no locks.
    NoLocks(File),
}

impl Place<'_> {
    /// Takes the fence; it is held as long as this place, any copy of it, or a child that it started.
    ///
    /// # Errors
    /// `Busy` when somebody else still writes after two minutes, `Cancelled` when our lock is older than one that was here
    /// before, `Unavailable` when the share does not answer.
    pub(crate) async fn fenced(mut self, mode: Mode) -> Result<Self, Error> {
        let name = names::fence(&self.name);
        let patience = Deadline::after(PATIENCE).min(self.work.deadline);
        let no_waiting = mount::mounted_at(&self.share.root)?.is_some_and(|mounted| mounted.locks_outlive_hosts());
        let file = loop {
            match self.try_fence(&name, mode).await? {
                Attempt::Held(file) => break file,
                Attempt::NoLocks(file) => {
                    tracing::warn!(share = self.share.address, "the share has no locks: fencing by token alone");
                    break file;
                }
                Attempt::Replaced => {}
                Attempt::Busy { here: false } if no_waiting => {
                    tracing::warn!(volume = self.name, "lock of another host on NFS 3: fencing by token alone");
                    break self.open_unlocked(&name).await?;
                }
                Attempt::Busy { .. } => {
                    if patience.has_passed() {
                        let message = format!("{} on {} is still being written", self.name, self.share.address);
                        return Err(Error::driver(ErrorKind::Busy, message));
                    }
                    tokio::select! {
                        () = tokio::time::sleep(BETWEEN_TRIES) => {}
                        () = self.work.cancel.cancelled() => {}
                    }
                }
            }
        };
        let file = self.raise_token(file, &name, mode).await?;
        self.fence = Some(Arc::new(OwnedFd::from(file)));
        Ok(self)
    }

    async fn try_fence(&self, name: &str, mode: Mode) -> Result<Attempt, Error> {
        if let Some(attempt) = self.as_ourselves("lock", name, move |path| attempt(path, mode)).await? {
            return Ok(attempt);
        }
        // Only root may make it; once it is there for everybody, it is ours to lock. `+0` keeps what is in it.
        let path = self.path(name);
        for command in [["truncate", "-s", "+0"].as_slice(), &["chmod", "666"]] {
            let command = scoria_runtime::Command::new(command[0]).args(&command[1..]).arg(&path).as_root(true);
            self.run(command).await?;
        }
        let locked = path.clone();
        self.call(move || attempt(&locked, mode)).await?.map_err(|error| Error::io("lock", &path, &error))
    }

    async fn open_unlocked(&self, name: &str) -> Result<File, Error> {
        let path = self.path(name);
        self.call(move || open(&path)).await?.map_err(|error| Error::io("open", &self.path(name), &error))
    }

    /// Refuses us when the file has seen a higher token than ours; leaves ours in it when we change the volume.
    async fn raise_token(&self, file: File, name: &str, mode: Mode) -> Result<File, Error> {
        let Some(ours) = self.work.token else { return Ok(file) };
        let step = move || -> io::Result<(File, Option<u64>)> {
            let mut text = [0; 32];
            let read = file.read_at(&mut text, 0)?;
            let seen = std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse::<u64>().ok());
            if mode == Mode::Change && seen.is_none_or(|seen| seen < ours) {
                // As long as the longest token, so that a write never leaves the tail of another.
                file.write_all_at(format!("{ours:020}\n").as_bytes(), 0)?;
                file.sync_data()?;
            }
            Ok((file, seen))
        };
        let path = self.path(name);
        let (file, seen) = self.call(step).await?.map_err(|error| Error::io("read the token in", &path, &error))?;
        match seen.filter(|seen| *seen > ours) {
            None => Ok(file),
            Some(seen) => Err(Error::driver(
                ErrorKind::Cancelled,
                format!(
                    "refused: a holder of a newer lock (token {seen}, ours is {ours}) has worked on {}. If the lock service \
                     was replaced or emptied, stop all services of this back end and remove {}.",
                    self.name,
                    path.display()
                ),
            )),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o666).open(path)?;
    // Instances under other users share the file; the umask may have kept them out. Only the owner can (and need) do it.
    drop(disk::chmod(path, Access::Everyone));
    Ok(file)
}

fn attempt(path: &Path, mode: Mode) -> io::Result<Attempt> {
    let file = open(path)?;
    let kind = match mode {
        Mode::Read => libc::F_RDLCK,
        Mode::Change => libc::F_WRLCK,
    };
    #[allow(clippy::cast_possible_truncation, reason = "the constants are small; the field's type differs by platform")]
    let whole_file = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Attempt::Busy { here: is_held_here(&file)? }),
        Err(Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP) => return Ok(Attempt::NoLocks(file)),
        Err(error) => return Err(error.into()),
    }
    // A holder that deleted the volume removed the file: the lock on a removed file excludes nobody.
    let (held, there) = (file.metadata()?, path.metadata());
    match there {
        Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(Attempt::Held(file)),
        Ok(_) => Ok(Attempt::Replaced),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Replaced),
        Err(error) => Err(error),
    }
}

/// Whether a process of this host holds a lock on the file.
fn is_held_here(file: &File) -> io::Result<bool> {
    let inode = file.metadata()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks")?;
    // `1: OFDLCK ADVISORY  WRITE -1 fd:00:12345 0 EOF`; waiters have `->` after the number. Devices are written in another
    // way on some file systems, so the inode alone decides: at worst we wait for nothing.
    let holds = |line: &str| {
        !line.contains("->")
            && line.split_whitespace().any(|field| field.rsplit(':').next() == Some(&inode) && field.contains(':'))
    };
    Ok(locks.lines().any(holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(path: &Path, mode: Mode) -> Option<File> {
        match attempt(path, mode).unwrap() {
            Attempt::Held(file) => Some(file),
            Attempt::Busy { here } => {
                assert!(here, "a holder on this host is seen as such");
                None
            }
            Attempt::Replaced | Attempt::NoLocks(_) => panic!("neither held nor busy"),
        }
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fence");
        let (first, second) = (held(&path, Mode::Read).unwrap(), held(&path, Mode::Read).unwrap());
        assert!(held(&path, Mode::Change).is_none());
        drop((first, second));
        let writer = held(&path, Mode::Change).unwrap();
        assert!(held(&path, Mode::Read).is_none() && held(&path, Mode::Change).is_none());
        // A second descriptor of the same open file (a child's) keeps it.
        let child = writer.try_clone().unwrap();
        drop(writer);
        assert!(held(&path, Mode::Change).is_none());
        drop(child);
        assert!(held(&path, Mode::Change).is_some());
    }

    #[test]
    fn a_removed_lock_file_locks_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fence");
        let deleter = held(&path, Mode::Change).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(held(&path, Mode::Change).is_some());
        drop(deleter);
    }
}
