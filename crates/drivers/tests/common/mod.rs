//! An NFS driver on a bind mount, in a mount namespace of the test's own: nothing is left mounted, whatever happens.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by test programs, none of which uses all of it")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use scoria_drivers::{NfsDriver, NfsOptions, VolumeDriver};
use scoria_runtime::Executor;
use tempfile::TempDir;

const INSIDE: &str = "SCORIA_TEST_IN_NAMESPACE";
pub const ADDRESS: &str = "127.0.0.1:/scoria/test";

/// Runs a test in a mount namespace of its own (and, for those who are not root, a user namespace): the test program is
/// run again inside it, for this one test.
pub fn in_mount_namespace(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(test);
    }
    let mut command = Command::new("unshare");
    command.arg("--mount").args(["--propagation", "private"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "yes");
    let status = command.status().expect("unshare (Debian package util-linux)");
    assert!(status.success(), "{name} failed inside its namespace");
}

/// A share (a directory), bind-mounted where the driver wants it.
pub struct NfsBed {
    pub directory: TempDir,
    pub driver: NfsDriver,
    pub mount: PathBuf,
    pub base: PathBuf,
}

/// Where a driver with this base mounts [`ADDRESS`].
pub fn mount_point(base: &Path) -> PathBuf {
    base.join(md5_hex(ADDRESS))
}

pub fn md5_hex(text: &str) -> String {
    let mut child = Command::new("md5sum");
    let mut child = child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout[..32]).into_owned()
}

impl NfsBed {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut NfsOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap().join("mnt");
        let (shares, share, mount) =
            (directory.path().join("shares"), directory.path().join("share"), mount_point(&base));
        std::fs::write(&shares, format!("# one share\n{ADDRESS} -o vers=4.2\n")).unwrap();
        std::fs::create_dir_all(&mount).unwrap();
        std::fs::create_dir_all(&share).unwrap();
        let status = Command::new("mount").arg("--bind").args([&share, &mount]).status().unwrap();
        assert!(status.success(), "bind mount");
        let mut options = NfsOptions {
            nfs_shares_config: Some(shares),
            nfs_mount_point_base: base.clone(),
            nfs_snapshot_support: true,
            nas_secure_file_operations: "false".into(),
            nas_secure_file_permissions: "false".into(),
            ..NfsOptions::default()
        };
        change(&mut options);
        let driver = NfsDriver::new(options, Executor::new(None, Duration::from_secs(60))).unwrap();
        driver.setup(false).await.expect("setup (mount.nfs is in the Debian package nfs-common)");
        Self { directory, driver, mount, base }
    }
}

impl Drop for NfsBed {
    fn drop(&mut self) {
        // The namespace would do it too, but the directory is removed before.
        drop(Command::new("umount").arg(&self.mount).status());
    }
}
