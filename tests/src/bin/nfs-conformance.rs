//! The drivers' conformance suite on a real NFS mount. It runs inside a user-mode Linux guest (`tests/lanes/uml/nfs-run.sh`), which
//! tells it in the environment what to mount. With `--list` it says which tests it has and does nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scoria_drivers::conformance::{self, Bed};
use scoria_drivers::{NfsDriver, NfsOptions, VolumeDriver};
use scoria_runtime::Executor;
use scoria_testkit::mount_point;

/// Runs each test on a share of its own, or lists them.
macro_rules! suite {
    ($($test:ident)*) => {
        const TESTS: &[&str] = &[$(stringify!($test)),*];
        async fn run(test: &str, bed: Bed<'_>) {
            match test {
                $(stringify!($test) => conformance::$test(bed).await,)*
                unknown => panic!("no test {unknown}"),
            }
        }
    };
}

suite! {
    a_volume_lives_and_leaves_nothing
    defect_13_a_volume_without_location_is_deleted
    snapshots_go_in_any_order
    a_deep_chain_is_cloned_and_deleted_whole
    defect_18_larger_copies_are_larger
    defect_17_a_volume_goes_back_to_its_latest_snapshot
    volumes_grow
    what_cannot_be_done_is_refused
    defect_20_a_guests_header_is_not_believed
    defect_19_info_is_never_half_there
    defect_6_copies_of_one_source_run_side_by_side
    an_older_token_is_refused
    attached_snapshots_go_in_any_order
    what_a_server_merged_is_settled_later
    a_snapshot_that_no_server_took_up_is_taken_back
    a_create_may_die_anywhere
    a_copy_may_die_anywhere
    taking_a_snapshot_may_die_anywhere
    deleting_a_snapshot_may_die_anywhere
    an_extend_and_a_delete_may_die_anywhere
}

/// What `nfs-run.sh` says about the server.
struct Server {
    share: String,
    options: String,
    version: String,
    directory: PathBuf,
}

impl Server {
    fn from_environment() -> Result<Self> {
        let get = |name: &str| std::env::var(name).with_context(|| format!("no {name}: run me by nfs-run.sh"));
        Ok(Self {
            share: get("SCORIA_NFS_SHARE")?,
            options: get("SCORIA_NFS_OPTIONS")?,
            version: get("SCORIA_NFS_VERSION")?,
            directory: get("SCORIA_NFS_DIRECTORY")?.into(),
        })
    }

    /// A driver that has mounted a fresh share, and the mount point.
    async fn driver(&self, scratch: &Path, test: &str) -> Result<(NfsDriver, PathBuf)> {
        let (share, base) = (format!("{}{test}", self.share), scratch.join("mnt"));
        std::fs::create_dir(self.directory.join(test))?;
        let shares = scratch.join("shares");
        std::fs::write(&shares, format!("{share}\n"))?;
        let options = NfsOptions {
            nfs_shares_config: Some(shares),
            nfs_mount_point_base: base.clone(),
            nfs_mount_options: Some(self.options.clone()),
            // Before 4.2 NFS does not tell where a file has holes: each copy of a raw volume would read its whole GiB.
            nfs_qcow2_volumes: self.version != "4.2",
            nfs_snapshot_support: true,
            nas_secure_file_operations: "false".into(),
            nas_secure_file_permissions: "false".into(),
            ..NfsOptions::default()
        };
        let driver = NfsDriver::new(options, Executor::new(None, Duration::from_secs(120)))?;
        driver.setup(false).await?;
        let root = mount_point(&base, &share);
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find(|line| line.contains(&root.display().to_string()));
        let mount = mount.with_context(|| format!("the driver has not mounted {share}:\n{mounts}"))?;
        ensure!(mount.contains(&format!("vers={}", self.version)), "not version {}: {mount}", self.version);
        Ok((driver, root))
    }
}

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("--list") {
        println!("{}", TESTS.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let server = Server::from_environment()?;
    let mut failed = 0;
    for test in TESTS {
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let scratch = tempfile::tempdir()?;
                let (driver, root) = server.driver(scratch.path(), test).await?;
                run(test, Bed { driver: &driver, faults: driver.faults(), root: &root }).await;
                // The next test mounts another share; the scratch directory cannot go before this one is off it.
                std::process::Command::new("umount").arg("-l").arg(&root).status()?;
                anyhow::Ok(())
            })
        });
        let verdict = match outcome {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => format!("FAILED: {error:#}"),
            Err(_) => "FAILED (see above)".to_owned(),
        };
        failed += usize::from(verdict != "ok");
        println!("NFS {} {test}: {verdict} ({:.1} s)", server.version, began.elapsed().as_secs_f32());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
