//! What the kernel tells of other processes' record locks: `/proc/locks`.

/// A record lock, or a process that sleeps for one. Pollers, as Python's are, are in no list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordLock {
    /// Of an open file description: the kernel does not say whose.
    pub(super) ofd: bool,
    /// It sleeps for the lock.
    pub(super) waits: bool,
    /// Exclusive.
    pub(super) write: bool,
    /// Process; 0 when it is in another container, -1 when the kernel does not say.
    pub(super) pid: i32,
    /// Major and minor device number.
    pub(super) device: (u64, u64),
    /// Inode.
    pub(super) inode: u64,
}

/// Reads the record locks out of `/proc/locks`; lines of other kinds and of no known shape are skipped.
pub(super) fn parse(text: &str) -> Vec<RecordLock> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<RecordLock> {
    let mut fields = line.split_whitespace().skip(1).peekable();
    let waits = fields.next_if_eq(&"->").is_some();
    let ofd = match fields.next()? {
        "POSIX" => false,
        "OFDLCK" => true,
        _ => return None,
    };
    let write = fields.nth(1)? == "WRITE";
    let pid = fields.next()?.parse().ok()?;
    let mut file = fields.next()?.split(':');
    let mut device = || u64::from_str_radix(file.next()?, 16).ok();
    let device = (device()?, device()?);
    Some(RecordLock { ofd, waits, write, pid, device, inode: file.next()?.parse().ok()? })
}

/// What a process is called, as `cinder-volume[1234]`.
pub(super) fn describe(pid: i32) -> String {
    if pid <= 0 {
        return "a process outside this container".to_owned();
    }
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match command.trim_end() {
        "" => format!("process[{pid}]"),
        command => format!("{command}[{pid}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_locks_are_read_and_other_lines_skipped() {
        let locks = parse(
            "1: POSIX  ADVISORY  WRITE 4712 08:01:131 0 EOF\n\
             1: -> POSIX  ADVISORY  READ 4713 08:01:131 0 EOF\n\
             2: OFDLCK ADVISORY  READ -1 fe:10:99 0 EOF\n\
             3: FLOCK  ADVISORY  WRITE 77 08:01:132 0 EOF\n\
             nonsense\n",
        );
        let lock = |ofd, waits, write, pid, device, inode| RecordLock { ofd, waits, write, pid, device, inode };
        assert_eq!(
            locks,
            [
                lock(false, false, true, 4712, (8, 1), 131),
                lock(false, true, false, 4713, (8, 1), 131),
                lock(true, false, false, -1, (0xfe, 0x10), 99),
            ]
        );
    }

    #[test]
    fn a_process_is_called_by_its_command() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(describe(own).ends_with(&format!("[{own}]")));
        assert_eq!(describe(0), "a process outside this container");
    }
}
