//! Copying a raw file within the process: by reference where the file system can, else piece by piece.
//!
//! Each piece is one file call, and between pieces the operation can be stopped. Holes stay holes: where the file system
//! does not tell them (NFS before 4.2), pieces of zeroes are left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::disk;
use super::place::Place;
use crate::Error;

/// How much one call copies: seconds of work even on a slow share.
const PIECE: u64 = 32 << 20;
const BLOCK: usize = 64 << 10;

impl Place<'_> {
    /// Copies `file` of `source` into `aside`. False: only root may, and nothing was done.
    pub(crate) async fn copy_raw(&self, source: &Place<'_>, file: &str, aside: &str) -> Result<bool, Error> {
        let open = |path: &std::path::Path| File::open(path);
        let Some(from) = source.as_ourselves("open", file, open).await? else { return Ok(false) };
        let Some(to) = self.as_ourselves("create", aside, disk::create).await? else { return Ok(false) };
        let (from, to) = (Arc::new(from), Arc::new(to));
        let failed = |error: io::Error| Error::io("copy into", &self.path(aside), &error);
        let begin = {
            let (from, to) = (Arc::clone(&from), Arc::clone(&to));
            move || begin(&from, &to)
        };
        let Some(plan) = self.call(begin).await?.map_err(failed)? else { return Ok(true) };
        let mut at = 0;
        while at < plan.length {
            let (from, to) = (Arc::clone(&from), Arc::clone(&to));
            at = self.call(move || copy_piece(&from, &to, at, plan)).await?.map_err(failed)?;
            self.core.faults.at("copy.piece").await;
        }
        Ok(true)
    }
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    length: u64,
    /// The file has holes that the file system does not tell.
    hidden_holes: bool,
}

/// Copies by reference (`None`: done), or says how to go on.
fn begin(from: &File, to: &File) -> io::Result<Option<Plan>> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(None);
    }
    let data = from.metadata()?;
    let length = data.size();
    to.set_len(length)?;
    let tells_hole = seek(from, SeekFrom::Hole(0)).is_ok_and(|hole| hole < length);
    Ok(Some(Plan { length, hidden_holes: !tells_hole && data.blocks() * 512 < length }))
}

/// Copies the next piece of data from `at` on; the answer is where to go on.
fn copy_piece(from: &File, to: &File, at: u64, plan: Plan) -> io::Result<u64> {
    let start = match seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(plan.length),
        // A file system that cannot seek for data: all of it is.
        Err(_) => at,
    };
    let hole = seek(from, SeekFrom::Hole(start)).unwrap_or(plan.length).max(start);
    let end = hole.min(start + PIECE).min(plan.length);
    let mut done = start;
    if !plan.hidden_holes {
        done = copy_in_kernel(from, to, start, end)?;
    }
    if done < end {
        copy_blocks(from, to, done, end)?;
    }
    // A hole at `start` itself (a racing writer would be needed) must not stop us for ever.
    Ok(if end > at { end } else { plan.length })
}

/// Copies without the data passing through us (on the server itself with NFS 4.2); the answer is how far it came.
fn copy_in_kernel(from: &File, to: &File, start: u64, end: u64) -> io::Result<u64> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let want = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
            Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

/// Copies through memory, leaving out blocks of zeroes (the target is one hole).
fn copy_blocks(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
        let read = from.read_at(&mut block[..want], at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if block[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..read], at)?;
        }
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes_and_data_arrive_in_every_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let from = disk::create(&path("from")).unwrap();
        let length = (3 * PIECE) + 12345;
        from.set_len(length).unwrap();
        for at in [0, PIECE - 10, 2 * PIECE + 77, length - 20] {
            from.write_all_at(b"twenty bytes of data", at).unwrap();
        }
        for hidden_holes in [false, true] {
            let to = disk::create(&path("to")).unwrap();
            to.set_len(length).unwrap();
            let (mut at, mut calls) = (0, 0);
            while at < length {
                at = copy_piece(&from, &to, at, Plan { length, hidden_holes }).unwrap();
                calls += 1;
            }
            assert!(calls >= 4);
            assert!(std::fs::read(path("from")).unwrap() == std::fs::read(path("to")).unwrap());
            assert!(to.metadata().unwrap().blocks() * 512 < length / 10, "the copy is sparse");
        }
    }
}
