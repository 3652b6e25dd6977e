//! Who holds what and why, for other processes to read: `<directory>/.scoria-holders/<one file per process>`.
//!
//! The lock files themselves stay empty, as tooz leaves them. A register is a row of slots of fixed size, one JSON
//! object each, so that taking and giving back a lock costs one small write in place. Its process keeps it locked for
//! as long as it lives, so nobody has to guess from process numbers whether it is stale, and whoever can lock it may remove it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::lock_file;
use crate::name::bare;
use crate::{Holder, Mode, Owner};

const DIRECTORY: &str = ".scoria-holders";
/// Bytes per slot.
const SLOT: usize = 1024;
/// Longest part of a text that is kept when a record would not fit.
const CUT: usize = 96;

/// One holder or waiter.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    shared: bool,
    held: bool,
    instance: String,
    host: Option<String>,
    operation: String,
    request_id: Option<String>,
    resource: Option<String>,
    /// Milliseconds since 1970.
    since: u64,
}

/// This process's own register; removed when dropped.
#[derive(Debug)]
pub(super) struct Register {
    file: File,
    path: PathBuf,
    instance: String,
    host: Option<String>,
    /// Since when each is in use, in milliseconds since 1970.
    slots: Vec<Option<u64>>,
}

impl Register {
    /// Makes a register for this process in a lock directory.
    pub(super) fn create(directory: &Path, instance: &str) -> io::Result<Self> {
        let registers = directory.join(DIRECTORY);
        std::fs::create_dir_all(&registers)?;
        loop {
            let path = registers.join(uuid::Uuid::new_v4().to_string());
            // Not for reading, as lock files.
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            // Somebody who removes stale registers may have come between making and locking it.
            if lock_file::try_lock(&file, Mode::Exclusive)? && lock_file::is_at(&file, &path)? {
                let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
                return Ok(Self { file, path, instance: instance.to_owned(), host, slots: Vec::new() });
            }
        }
    }

    /// Notes a holder or waiter, in its slot if it has one already.
    pub(super) fn note(
        &mut self,
        slot: Option<usize>,
        name: &str,
        mode: Mode,
        held: bool,
        owner: &Owner,
    ) -> Option<usize> {
        let since = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        let slot = slot.unwrap_or_else(|| self.free_slot());
        self.slots[slot] = Some(since);
        let mut record = Record {
            name: name.to_owned(),
            shared: mode == Mode::Shared,
            held,
            instance: self.instance.clone(),
            host: self.host.clone(),
            operation: owner.operation.clone(),
            request_id: owner.request_id.clone(),
            resource: owner.resource.clone(),
            since,
        };
        let mut text = serde_json::to_vec(&record).unwrap_or_default();
        if text.len() >= SLOT {
            record.cut();
            text = serde_json::to_vec(&record).unwrap_or_default();
        }
        text.resize(SLOT - 1, b' ');
        text.push(b'\n');
        match self.file.write_all_at(&text, (slot * SLOT) as u64) {
            Ok(()) => Some(slot),
            Err(error) => {
                // The lock is what counts; only others' lists lack a line.
                tracing::debug!(%error, register = %self.path.display(), "holder not noted");
                self.slots[slot] = None;
                None
            }
        }
    }

    /// Takes a holder or waiter off the list.
    pub(super) fn clear(&mut self, slot: usize) {
        // What does not begin like a record is none.
        if let Err(error) = self.file.write_all_at(b" ", (slot * SLOT) as u64) {
            tracing::debug!(%error, register = %self.path.display(), "holder not taken off the list");
        }
        self.slots[slot] = None;
    }

    fn free_slot(&mut self) -> usize {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        slot
    }

    /// Everybody in the registers of other living processes. Registers of dead ones are removed.
    pub(super) fn others(&self) -> io::Result<Vec<Holder>> {
        let (records, now) = (self.records("")?, now());
        Ok(records.into_iter().map(|record| record.into_holder(now)).collect())
    }

    /// Whether somebody in another living process waits for a lock.
    pub(super) fn others_wait(&self, name: &str) -> io::Result<bool> {
        self.others_wait_from_before(name, u64::MAX)
    }

    /// Whether somebody in another living process has waited for the lock of one of our waiters for longer.
    pub(super) fn others_wait_longer(&self, slot: usize, name: &str) -> io::Result<bool> {
        let Some(since) = self.slots.get(slot).copied().flatten() else { return Ok(false) };
        self.others_wait_from_before(name, since)
    }

    fn others_wait_from_before(&self, name: &str, before: u64) -> io::Result<bool> {
        let records = self.records(name)?;
        Ok(records.iter().any(|record| record.name == name && !record.held && record.since < before))
    }

    /// What is in the registers of other living processes with a text in it.
    fn records(&self, with: &str) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let Some(registers) = self.path.parent() else { return Ok(records) };
        for entry in std::fs::read_dir(registers)? {
            let path = entry?.path();
            if path != self.path {
                // One that vanishes or may not be read has nothing to tell.
                read(&path, with, &mut records)
                    .unwrap_or_else(|error| tracing::debug!(%error, register = %path.display(), "not read"));
            }
        }
        Ok(records)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Drop for Register {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, register = %self.path.display(), "not removed; others will do it");
        }
    }
}

fn read(path: &Path, with: &str, records: &mut Vec<Record>) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if lock_file::try_lock(&file, Mode::Exclusive)? {
        return if lock_file::is_at(&file, path)? { std::fs::remove_file(path) } else { Ok(()) };
    }
    let text = io::read_to_string(&file)?;
    let lines = text.lines().filter(|line| line.starts_with('{') && line.contains(with));
    // A line that is being written at this moment is skipped.
    records.extend(lines.filter_map(|line| serde_json::from_str::<Record>(line).ok()));
    Ok(())
}

impl Record {
    fn cut(&mut self) {
        let cut = |text: &mut String| text.truncate(text.floor_char_boundary(CUT));
        cut(&mut self.instance);
        cut(&mut self.operation);
        self.host.iter_mut().chain(&mut self.request_id).chain(&mut self.resource).for_each(cut);
    }

    fn into_holder(self, now: Duration) -> Holder {
        Holder {
            name: bare(&self.name).to_owned(),
            mode: if self.shared { Mode::Shared } else { Mode::Exclusive },
            held: self.held,
            instance: self.instance,
            host: self.host,
            owner: Owner { operation: self.operation, request_id: self.request_id, resource: self.resource },
            since: Some(now.saturating_sub(Duration::from_millis(self.since))),
            token: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_read_who_holds_and_remove_what_the_dead_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut one = Register::create(directory.path(), "one").unwrap();
        let mut two = Register::create(directory.path(), "two").unwrap();
        let owner = Owner { operation: "delete_volume".into(), request_id: Some("req-1".into()), resource: None };
        let slot = one.note(None, "cinder-a", Mode::Exclusive, false, &owner).unwrap();
        assert_eq!(one.note(Some(slot), "cinder-a", Mode::Exclusive, true, &owner), Some(slot));
        let long = Owner { operation: "ü".repeat(5000), ..Owner::default() };
        let second = one.note(None, "cinder-b", Mode::Shared, false, &long).unwrap();
        assert_ne!(slot, second);

        std::thread::sleep(Duration::from_millis(5));
        let third = one.note(None, "cinder-c", Mode::Exclusive, false, &owner).unwrap();
        let waits = two.note(None, "cinder-b", Mode::Exclusive, false, &owner).unwrap();
        assert!(two.others_wait_longer(waits, "cinder-b").unwrap());
        assert!(!one.others_wait_longer(second, "cinder-b").unwrap());
        assert!(!two.others_wait_longer(waits, "cinder-a").unwrap(), "who holds does not wait");
        one.clear(third);
        two.clear(waits);

        let seen = two.others().unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!((seen[0].name.as_str(), seen[0].held, &seen[0].owner), ("a", true, &owner));
        assert_eq!((seen[1].name.as_str(), seen[1].held, seen[1].mode), ("b", false, Mode::Shared));
        one.clear(slot);
        assert_eq!(two.others().unwrap().len(), 1);

        let stale = directory.path().join(DIRECTORY).join("of-a-dead-process");
        std::fs::write(&stale, "{}").unwrap();
        assert!(one.others().unwrap().is_empty());
        assert!(!stale.exists());
        drop((one, two));
        assert_eq!(std::fs::read_dir(directory.path().join(DIRECTORY)).unwrap().count(), 0);
    }
}
