//! How full shares are, and which of them takes a new volume (contract: remotefs-nfs §18).
//!
//! What is promised to volumes is counted in one listing of the share's top directory, where all volumes lie, at most once
//! a minute and within bounds; Python runs `du` over the whole share at each report and at each create.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::core::Settings;
use super::place::Place;
use crate::Error;

/// How long a count is good for.
const FRESH: Duration = Duration::from_secs(55);
/// Beyond these a listing is given up and the blocks in use stand in for it.
const MOST_FILES: usize = 200_000;
const LONGEST_LISTING: Duration = Duration::from_secs(20);

/// What volumes on a share take, as last counted.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counted: Option<Instant>,
    bytes: u64,
}

impl Usage {
    /// A volume was made (or grew) since the last count.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A volume went.
    pub(crate) fn subtract(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Bytes of a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Capacity {
    pub(crate) total: u64,
    pub(crate) available: u64,
    /// Promised to volumes: their apparent sizes.
    pub(crate) allocated: u64,
}

impl Capacity {
    /// Whether so many bytes more can be promised (`NfsDriver._is_share_eligible`).
    pub(crate) fn has_room(&self, settings: &Settings, requested: u64) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "ratios of sizes; the contract computes in floats too")]
        let [total, available, allocated, requested] =
            [self.total, self.available, self.allocated, requested].map(|bytes| bytes as f64);
        let most_used = f64::from(100 - settings.reserved_percentage.min(100)) / 100.0;
        let most_promised = settings.max_over_subscription_ratio;
        total > 0.0
            && (total - available) / total <= most_used
            && (total * most_promised - allocated).max(0.0) > requested
            && allocated / total < most_promised
    }
}

impl Place<'_> {
    /// The share's capacity now.
    ///
    /// # Errors
    /// `Unavailable` when the share does not answer.
    pub(crate) async fn capacity(&self) -> Result<Capacity, Error> {
        let root = self.share.root.clone();
        let fresh = {
            let usage = self.usage();
            usage.counted.filter(|at| at.elapsed() < FRESH).map(|_| usage.bytes)
        };
        let look = move || {
            let (total, available) = blocks(&root)?;
            let counted = if fresh.is_none() { Some(count(&root)?) } else { None };
            Ok((total, available, counted))
        };
        let (total, available, counted) =
            self.call(look).await?.map_err(|error| Error::io("measure", &self.share.root, &error))?;
        let mut usage = self.usage();
        match counted {
            Some(Some(bytes)) => *usage = Usage { counted: Some(Instant::now()), bytes },
            Some(None) => *usage = Usage { counted: Some(Instant::now()), bytes: total.saturating_sub(available) },
            None => {}
        }
        Ok(Capacity { total, available, allocated: usage.bytes })
    }

    pub(crate) fn usage(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.share.usage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Total and available bytes.
fn blocks(root: &Path) -> io::Result<(u64, u64)> {
    let vfs = statvfs(root)?;
    Ok((vfs.fragment_size() * vfs.blocks(), vfs.fragment_size() * vfs.blocks_available()))
}

/// Apparent sizes of the files at the top of a share, without those named after snapshots (as the contract has it) and our
/// own small ones; `None` when there are too many to count.
fn count(root: &Path) -> io::Result<Option<u64>> {
    let began = Instant::now();
    let mut bytes = 0u64;
    for (number, entry) in std::fs::read_dir(root)?.enumerate() {
        if number >= MOST_FILES || began.elapsed() > LONGEST_LISTING {
            return Ok(None);
        }
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.contains("snapshot") || name.ends_with(".scoria-lock") {
            continue;
        }
        match entry.metadata() {
            Ok(data) if data.is_file() => bytes += data.len(),
            Ok(_) => {}
            // Gone since the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(reserved_percentage: u8, max_over_subscription_ratio: f64) -> Settings {
        Settings {
            backend_name: String::new(),
            sparsed: true,
            qcow2: false,
            snapshots: true,
            reserved_percentage,
            max_over_subscription_ratio,
            volume_name_template: "volume-%s".into(),
        }
    }

    #[test]
    fn room_is_bounded_by_reserve_and_promise_and_the_bound_itself_is_too_much() {
        let share = Capacity { total: 100, available: 50, allocated: 120 };
        assert!(share.has_room(&settings(0, 2.0), 79));
        assert!(!share.has_room(&settings(0, 2.0), 80), "the bound is inclusive");
        assert!(!share.has_room(&settings(51, 2.0), 1), "half is used, 49 % may be");
        assert!(!share.has_room(&settings(0, 1.2), 0), "all is promised");
        assert!(!Capacity { total: 0, available: 0, allocated: 0 }.has_room(&settings(0, 20.0), 1));
    }

    /// Peer defect 22: Python walks the whole share at each report.
    #[test]
    fn defect_22_only_the_top_directory_is_counted() {
        let share = tempfile::tempdir().unwrap();
        std::fs::create_dir(share.path().join("deep")).unwrap();
        for (name, length) in [("volume-a", 1000), ("snapshot-x", 500), ("deep/file", 70), ("volume-a.scoria-lock", 3)]
        {
            std::fs::File::create(share.path().join(name)).unwrap().set_len(length).unwrap();
        }
        assert_eq!(count(share.path()).unwrap(), Some(1000));
        let (total, available) = blocks(share.path()).unwrap();
        assert!(total >= available && available > 0);
    }
}
