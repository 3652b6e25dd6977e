//! Shares: where they are configured (contract: remotefs-nfs §2) and what is kept of each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_runtime::BlockingPool;

use super::capacity::Usage;
use crate::{Error, ErrorKind};

/// Threads for file calls on one share.
const THREADS: usize = 8;
/// How long one file call may take: long for a healthy server, short for those who wait for a dead one.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A share and what is known of it.
#[derive(Debug)]
pub struct Share {
    /// Its address, as `provider_location` has it.
    pub(crate) address: String,
    /// Its mount point.
    pub(crate) root: PathBuf,
    /// Threads of its own: when it hangs, only they do.
    pub(crate) pool: BlockingPool,
    /// What volumes on it take, as last counted.
    pub(crate) usage: Mutex<Usage>,
}

impl Share {
    /// The error when it does not answer in time.
    pub(crate) fn silent(&self) -> Error {
        let message = format!("share {} does not respond; check its server and its mount", self.address);
        Error::driver(ErrorKind::Unavailable, message)
    }
}

/// The shares ever met by this process, so that a share keeps its threads and its figures.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<String, Arc<Share>>>);

impl Registry {
    pub(crate) fn get(&self, address: &str, root: &Path) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(address.to_owned()).or_insert_with(|| {
            Arc::new(Share {
                address: address.to_owned(),
                root: root.to_owned(),
                pool: BlockingPool::with_timeout(address, THREADS, CALL_TIMEOUT),
                usage: Mutex::default(),
            })
        });
        Arc::clone(share)
    }
}

/// A configured share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: String,
    /// Further arguments of `mount`, which are also sent to those who attach.
    pub(crate) flags: Option<String>,
}

/// Whether this can be the address of a share: `<something>:/<something>`.
pub(crate) fn is_address(address: &str) -> bool {
    address.match_indices(":/").any(|(at, _)| at > 0 && at + 2 < address.len())
}

/// Reads a shares file. Lines that are none are logged and skipped; of two with one address the last one's flags count.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().map(|line| line.trim_end_matches('\r')) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (address, flags) = match line.split_once(' ') {
            Some((address, flags)) => (address, Some(flags.trim().to_owned()).filter(|flags| !flags.is_empty())),
            None => (line, None),
        };
        let address = address.trim().replace("\\040", " ");
        if !is_address(&address) {
            tracing::error!(line, "not a share, skipped: a line is <host>:/<path>, perhaps followed by mount options");
            continue;
        }
        match entries.iter_mut().find(|entry| entry.address == address) {
            Some(entry) => entry.flags = flags,
            None => entries.push(Entry { address, flags }),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shares_file_is_read_like_python_reads_it() {
        let text = "# comment\n\n 10.0.0.9:/indented\n10.0.0.1:/vol1 -o vers=3,rw --verbose\n[fd00::1]:/v\n\
                    10.0.0.2:/with\\040space\nnonsense\n # not a comment\n10.0.0.1:/vol1\n10.0.0.3:/tab\t-o x\n";
        let entries = parse(text);
        let addresses: Vec<_> = entries.iter().map(|entry| entry.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:/vol1", "[fd00::1]:/v", "10.0.0.2:/with space", "10.0.0.3:/tab\t-o"]);
        assert_eq!(entries[0].flags, None, "the last line of one address wins");
        assert_eq!(parse("h:/v  -o rw ")[0].flags.as_deref(), Some("-o rw"));
    }

    #[test]
    fn an_address_has_something_on_both_sides() {
        assert!(is_address("h:/v") && is_address("[::1]:/v"));
        assert!(!is_address(":/v") && !is_address("h:/") && !is_address("h:v") && !is_address(""));
    }
}
