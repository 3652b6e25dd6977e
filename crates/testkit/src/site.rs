//! What the services of one small cloud have in common: configuration, state directory and NFS share.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use md5::{Digest, Md5};
use tempfile::TempDir;

use crate::{PythonPeer, program};

/// The share as the configuration names it. Nobody serves it: each service sees a directory mounted in its place.
const EXPORT: &str = "127.0.0.1:/scoria";
/// The one back end, and its pool.
pub const BACKEND: &str = "nfs1";

/// One option: group, name, value.
pub type Setting<'a> = (&'a str, &'a str, &'a str);

/// A directory with the `cinder.conf`, the state and the share of the services of one test.
///
/// Every service started [with the share](Site::command) has a mount namespace of its own in which a directory is bind-mounted
/// where the NFS driver expects the mounted share. So nothing stays mounted when a service is killed, and the test reads
/// and breaks the share's files directly.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    settings: Vec<(String, String, String)>,
}

impl Site {
    /// A site whose services use this database (SQLAlchemy URL) and broker (oslo.messaging URL).
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn new(database_url: &str, transport_url: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-site-").tempdir()?;
        for name in ["state", "state/tmp", "state/mnt", "share"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        std::fs::write(dir.path().join("nfs_shares"), format!("{EXPORT}\n"))?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (state, shares, mounts, locks) = (at("state"), at("nfs_shares"), at("state/mnt"), at("state/tmp"));
        let mut site = Self { dir, settings: Vec::new() };
        for (group, name, value) in [
            ("DEFAULT", "transport_url", transport_url),
            ("DEFAULT", "state_path", &state),
            ("DEFAULT", "my_ip", "127.0.0.1"),
            ("DEFAULT", "enabled_backends", BACKEND),
            ("DEFAULT", "report_interval", "2"),
            ("DEFAULT", "service_down_time", "20"),
            ("DEFAULT", "quota_volumes", "-1"),
            ("DEFAULT", "quota_snapshots", "-1"),
            ("DEFAULT", "quota_gigabytes", "-1"),
            ("database", "connection", database_url),
            ("oslo_concurrency", "lock_path", &locks),
            (BACKEND, "volume_driver", "cinder.volume.drivers.nfs.NfsDriver"),
            (BACKEND, "volume_backend_name", BACKEND),
            (BACKEND, "nfs_shares_config", &shares),
            (BACKEND, "nfs_mount_point_base", &mounts),
            (BACKEND, "nfs_snapshot_support", "true"),
            (BACKEND, "nas_secure_file_operations", "false"),
            (BACKEND, "nas_secure_file_permissions", "false"),
        ] {
            site.set(group, name, value);
        }
        Ok(site)
    }

    /// Sets an option for every service that is started from now on.
    pub fn set(&mut self, group: &str, name: &str, value: &str) {
        self.settings.retain(|(g, n, _)| (g.as_str(), n.as_str()) != (group, name));
        self.settings.push((group.into(), name.into(), value.into()));
    }

    /// The directory of the site.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that stands for the exported share.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// The share as volumes name it (`provider_location`).
    #[must_use]
    pub fn export(&self) -> &'static str {
        EXPORT
    }

    /// Writes `NAME.conf`: the site's options and `more`, which win.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn conf(&self, name: &str, more: &[Setting]) -> Result<PathBuf> {
        let mut settings: Vec<Setting> = Vec::new();
        let own = self.settings.iter().map(|(group, name, value)| (group.as_str(), name.as_str(), value.as_str()));
        for setting in own.chain(more.iter().copied()) {
            settings.retain(|(group, name, _)| (*group, *name) != (setting.0, setting.1));
            settings.push(setting);
        }
        settings.sort_by_key(|(group, ..)| *group);
        let (mut text, mut current) = (String::new(), "");
        for (group, name, value) in settings {
            if group != current {
                current = group;
                writeln!(text, "[{group}]")?;
            }
            writeln!(text, "{name} = {value}")?;
        }
        let file = self.dir.path().join(format!("{name}.conf"));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// A command that sees the share mounted. Needs the right to mount (root).
    ///
    /// # Errors
    /// `unshare` is not installed.
    pub fn command(&self, service: &Path) -> Result<Command> {
        let mount_point = mount_point(&self.dir.path().join("state/mnt"), EXPORT);
        let script = r#"mkdir -p "$2" && mount --bind "$1" "$2" && shift 2 && exec "$@""#;
        let mut command = Command::new(program("unshare", "util-linux")?);
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(self.share()).arg(mount_point).arg(service);
        Ok(command)
    }

    /// Makes the real Cinder's tables in the database.
    ///
    /// # Errors
    /// The Python peers are not installed, or `cinder-manage` fails.
    pub async fn sync_database(&self) -> Result<()> {
        let python = PythonPeer::find()?;
        let conf = self.conf("cinder-manage", &[])?;
        let mut command = tokio::process::Command::new(python.bin("cinder-manage"));
        let out = command.arg("--config-file").arg(conf).args(["db", "sync"]).kill_on_drop(true).output().await?;
        anyhow::ensure!(out.status.success(), "cinder-manage db sync: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }
}

/// Where the NFS driver, Python's and ours, mounts a share below `nfs_mount_point_base`.
#[must_use]
pub fn mount_point(base: &Path, share: &str) -> PathBuf {
    base.join(Md5::digest(share).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_own_options_over_those_of_the_site() {
        let mut site = Site::new("sqlite://", "rabbit://").unwrap();
        site.set("coordination", "backend_url", "file:///locks");
        let file = site.conf("a", &[("DEFAULT", "host", "a"), ("database", "connection", "other")]).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("[coordination]\nbackend_url = file:///locks\n"));
        assert!(text.contains("host = a\n") && text.contains("connection = other\n") && !text.contains("sqlite"));
        assert_eq!(text.matches("[DEFAULT]").count(), 1);
    }
}
