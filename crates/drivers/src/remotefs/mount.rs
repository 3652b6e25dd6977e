//! Mounting shares (contract: remotefs-nfs §3, `os_brick/remotefs/remotefs.py: RemoteFsClient`).
//!
//! What is already mounted at a share's mount point is taken as it is; nothing is ever unmounted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use scoria_model::FaultClass;
use scoria_runtime::{CancellationToken, Command, Deadline, Executor};

use super::shares::Entry;
use crate::{Error, ErrorKind};

/// How long one `mount` may take: a dead server keeps it for minutes.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(60);
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) options: String,
}

impl Mounted {
    /// On NFS 3 a lock of a host that died stays for good: the server forgets it only when that host comes back.
    pub(crate) fn locks_outlive_hosts(&self) -> bool {
        self.kind == "nfs" && self.options.split(',').any(|option| option == "vers=3" || option == "vers=2")
    }
}

/// Parses `/proc/mounts`. Of two mounts on one point the later is the one that is seen.
pub(crate) fn parse(table: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let (_device, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let unescaped = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
            .iter()
            .fold(point.to_owned(), |point, (escape, plain)| point.replace(escape, plain));
        Some(Mounted { point: unescaped.into(), kind: kind.to_owned(), options: options.to_owned() })
    };
    table.lines().filter_map(line).collect()
}

/// What is mounted at a point. Reading the table touches no share, so it never hangs.
pub(crate) fn mounted_at(point: &Path) -> Result<Option<Mounted>, Error> {
    let table = Path::new("/proc/self/mounts");
    let text = std::fs::read_to_string(table).map_err(|error| Error::io("read", table, &error))?;
    Ok(parse(&text).into_iter().rev().find(|mounted| mounted.point == point))
}

/// The `-o` values to try, best first: 4.2, 4.1, then as configured; only the last when a version is configured.
pub(crate) fn tries(options: Option<&str>) -> Vec<Option<String>> {
    let configured: Vec<&str> =
        options.unwrap_or_default().split(',').map(str::trim).filter(|option| !option.is_empty()).collect();
    let is_version = |option: &&str| {
        option.starts_with("nfsvers")
            || option.starts_with("vers")
            || option.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let as_configured = options.map(str::to_owned).filter(|options| !options.is_empty());
    if configured.iter().any(is_version) {
        return vec![as_configured];
    }
    let with_minor = |minor: u8| {
        let mut all: Vec<&str> =
            configured.iter().copied().filter(|option| !option.starts_with("minorversion=")).collect();
        let minor = format!("minorversion={minor}");
        all.extend(["vers=4", &minor]);
        Some(all.join(","))
    };
    vec![with_minor(2), with_minor(1), as_configured]
}

/// How shares are mounted.
#[derive(Debug, Clone)]
pub(crate) struct Mounter {
    /// Value of `-o`.
    pub(crate) options: Option<String>,
    /// How often all tries are made.
    pub(crate) attempts: u32,
}

impl Mounter {
    /// Mounts a share at `point` unless something is mounted there.
    ///
    /// # Errors
    /// `NfsException` when no try worked.
    pub(crate) async fn ensure(
        &self,
        executor: &Executor,
        share: &Entry,
        point: &Path,
        as_root: bool,
    ) -> Result<Mounted, Error> {
        if let Some(mounted) = mounted_at(point)? {
            return Ok(mounted);
        }
        std::fs::create_dir_all(point).map_err(|error| Error::io("create mount point", point, &error))?;
        let mut failures = Vec::new();
        for attempt in 0..self.attempts.max(1) {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            failures.clear();
            for options in tries(self.options.as_deref()) {
                let mut command = Command::new("mount").args(["-t", "nfs"]).as_root(as_root);
                if let Some(options) = &options {
                    command = command.arg("-o").arg(options);
                }
                command = command.args(share.flags.as_deref().unwrap_or_default().split_whitespace());
                command = command.arg(&share.address).arg(point).deadline(Deadline::after(MOUNT_TIMEOUT));
                let failed = executor.run(&command, &CancellationToken::new()).await.err();
                // Somebody else may have mounted it meanwhile: what counts is the table.
                if let Some(mounted) = mounted_at(point)? {
                    return Ok(mounted);
                }
                failures.extend(failed.map(|error| error.stderr().trim().to_owned()));
            }
        }
        let message = format!("NFS mount failed for share {}: {}", share.address, failures.join("; "));
        Err(Error::new(ErrorKind::Unavailable, FaultClass::NfsException, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(options: Option<&str>) -> Vec<String> {
        tries(options).into_iter().map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn newest_version_first_unless_one_is_configured() {
        assert_eq!(texts(None), ["vers=4,minorversion=2", "vers=4,minorversion=1", ""]);
        assert_eq!(
            texts(Some("soft, ro")),
            ["soft,ro,vers=4,minorversion=2", "soft,ro,vers=4,minorversion=1", "soft, ro"]
        );
        for options in ["nfsvers=3", "vers=4.0", "soft,v3"] {
            assert_eq!(texts(Some(options)), [options]);
        }
        assert_eq!(texts(Some("verbose")).len(), 3, "only v and a digit is a version");
    }

    #[test]
    fn the_mount_table_tells_point_and_version() {
        let table = "server:/v /mnt/a nfs4 rw,vers=4.2 0 0\nserver:/w /mnt/with\\040space nfs rw,vers=3,hard 0 0\n";
        let mounts = parse(table);
        assert_eq!(mounts[1].point, Path::new("/mnt/with space"));
        assert!(mounts[1].locks_outlive_hosts() && !mounts[0].locks_outlive_hosts());
        assert_eq!(mounted_at(Path::new("/")).unwrap().unwrap().point, Path::new("/"));
    }

    #[tokio::test]
    async fn a_mount_that_fails_names_the_share_and_the_reason() {
        let base = tempfile::tempdir().unwrap();
        let mounter = Mounter { options: Some("vers=4.2,retry=0".into()), attempts: 1 };
        let share = Entry { address: "127.0.0.1:/nothing/here".into(), flags: None };
        let executor = Executor::new(None, Duration::from_secs(20));
        let error = mounter.ensure(&executor, &share, &base.path().join("point"), true).await.unwrap_err();
        assert_eq!(error.fault.class, FaultClass::NfsException);
        assert!(error.to_string().contains("127.0.0.1:/nothing/here"), "{error}");
    }
}
