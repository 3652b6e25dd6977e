//! Record locks on whole files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::Mode;

/// Opens a lock file as Python does, appending and never truncating, and for reading only where read locks need that: an NFS
/// server delegates a file to a host that reads it, and when such a host has died, nobody can open the file for a lease.
/// Its mode is 0666 less the umask. The directory is made again if somebody has removed it.
pub(super) fn open(path: &Path, mode: Mode) -> io::Result<File> {
    let open = || OpenOptions::new().read(mode == Mode::Shared).append(true).create(true).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(directory)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// Tries to lock the whole file; false when somebody is in the way. Doing it again for a lock that is held asks the
/// kernel (on a network file system: the server) whether it still is.
pub(super) fn try_lock(file: &File, mode: Mode) -> io::Result<bool> {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    match set(file, kind) {
        Ok(()) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Unlocks the file. Closing alone would do it only once no child between fork and exec has the descriptor any more.
pub(super) fn unlock(file: &File) -> io::Result<()> {
    set(file, libc::F_UNLCK).map_err(io::Error::from)
}

fn set(file: &File, kind: libc::c_int) -> nix::Result<()> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
            Err(nix::Error::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Whether `path` still leads to this file. If not, a lock on it protects from nobody who comes now.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptors_of_one_process_exclude_each_other_and_readers_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cinder-a");
        let (one, two) = (open(&path, Mode::Shared).unwrap(), open(&path, Mode::Shared).unwrap());
        assert!(try_lock(&one, Mode::Exclusive).unwrap());
        assert!(try_lock(&one, Mode::Exclusive).unwrap(), "asking again for what we hold");
        assert!(!try_lock(&two, Mode::Shared).unwrap());
        drop(open(&path, Mode::Shared).unwrap());
        assert!(!try_lock(&two, Mode::Exclusive).unwrap(), "closing another descriptor must not free the lock");
        unlock(&one).unwrap();
        assert!(try_lock(&two, Mode::Shared).unwrap());
        assert!(try_lock(&one, Mode::Shared).unwrap());
        assert!(!try_lock(&one, Mode::Exclusive).unwrap());
    }

    #[test]
    fn a_removed_or_replaced_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cinder-a");
        let file = open(&path, Mode::Exclusive).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let _other = open(&path, Mode::Exclusive).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }
}
