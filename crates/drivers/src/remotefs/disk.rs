//! File calls, each of which may block: they run on the share's own threads only (see [`super::place::Place::call`]).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// Who may read and write what we make (`NfsDriver._set_rw_permissions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Owner and group: `nas_secure_file_permissions` is on.
    Group,
    /// Everyone.
    Everyone,
}

impl Access {
    /// The argument of `chmod`.
    pub(crate) fn chmod(self) -> &'static str {
        match self {
            Self::Group => "660",
            Self::Everyone => "ugo+rw",
        }
    }

    fn apply(self, file: &File) -> io::Result<()> {
        let old = file.metadata()?.permissions().mode() & 0o7777;
        let new = match self {
            Self::Group => 0o660,
            Self::Everyone => old | 0o666,
        };
        if new == old { Ok(()) } else { file.set_permissions(Permissions::from_mode(new)) }
    }
}

/// What `stat` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length in bytes.
    pub(crate) length: u64,
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn stat(path: &Path) -> io::Result<Option<Stat>> {
    missing_is_none(path.symlink_metadata().map(|data| Stat { length: data.size() }))
}

/// The first `limit` bytes of a file.
pub(crate) fn read_head(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = missing_is_none(File::open(path))? else { return Ok(None) };
    let mut head = Vec::new();
    file.take(limit as u64).read_to_end(&mut head)?;
    Ok(Some(head))
}

/// Makes an empty file to write into; one that is there is emptied.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o660).open(path)
}

pub(crate) fn create_with(path: &Path, content: &[u8]) -> io::Result<()> {
    create(path)?.write_all(content)
}

pub(crate) fn create_sparse(path: &Path, length: u64) -> io::Result<()> {
    create(path)?.set_len(length)
}

/// Grows a file, never shrinks it.
pub(crate) fn grow(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.size() < length {
        file.set_len(length)?;
    }
    file.sync_all()
}

/// Reserves room for a piece of a file: by the file system where it can, else by writing zeroes.
pub(crate) fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let (from, len) = (to_signed(offset)?, to_signed(length)?);
    match fallocate(file, FallocateFlags::empty(), from, len) {
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => {
            let zeroes = vec![0; 1 << 20];
            let (mut at, end) = (offset, offset + length);
            while at < end {
                let piece = usize::try_from((end - at).min(zeroes.len() as u64)).unwrap_or(zeroes.len());
                file.write_all_at(&zeroes[..piece], at)?;
                at += piece as u64;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

pub(crate) fn to_signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Gives a finished file its permissions and brings it to the disk.
pub(crate) fn finish(path: &Path, access: Access) -> io::Result<()> {
    let file = File::open(path)?;
    access.apply(&file)?;
    file.sync_all()
}

pub(crate) fn chmod(path: &Path, access: Access) -> io::Result<()> {
    access.apply(&File::open(path)?)
}

/// Renames within a directory and brings that to the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory(to)
}

/// Removes a file and brings that to the disk; none is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match missing_is_none(std::fs::remove_file(path))? {
        Some(()) => sync_directory(path),
        None => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    match File::open(directory)?.sync_all() {
        // Not every file system can, and a directory that may be searched but not read cannot be opened.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}
