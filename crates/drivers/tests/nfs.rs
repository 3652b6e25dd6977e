//! What only the NFS driver has: several shares, permissions, the root helper, setup.

#![allow(missing_docs, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{ADDRESS, NfsBed, in_mount_namespace, mount_point};
use scoria_drivers::{ErrorKind, LocalDriver, LocalOptions, NfsDriver, NfsOptions, VolumeDriver, Work};
use scoria_model::{Connector, FaultClass, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus};
use scoria_runtime::Executor;

mod common;

fn executor() -> Executor {
    Executor::new(None, Duration::from_secs(30))
}

async fn create(driver: &impl VolumeDriver, size: u64) -> Volume {
    let mut volume = Volume::new(VolumeId::random(), size);
    let facts = driver.create_volume(&Work::unlimited(), &volume).await.unwrap();
    volume.provider_location = facts.provider_location;
    volume.admin_metadata = facts.admin_metadata;
    volume.status = VolumeStatus::Available;
    volume
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// Peer defect 21: Python makes clones world-writable whatever the setting.
#[test]
fn defect_21_permissions_hold_for_copies_too() {
    in_mount_namespace("defect_21_permissions_hold_for_copies_too", async {
        for (setting, wanted) in [("true", 0o660), ("false", 0o666)] {
            let bed = NfsBed::with(|options| options.nas_secure_file_permissions = setting.into()).await;
            let work = Work::unlimited();
            let mut volume = create(&bed.driver, 1).await;
            let mut copy = Volume::new(VolumeId::random(), 1);
            bed.driver.create_cloned_volume(&work, &copy, &volume).await.unwrap();
            let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
            let facts = bed.driver.create_snapshot(&work, &snapshot, &volume).await.unwrap();
            volume.admin_metadata.extend(facts.volume_admin_metadata);
            snapshot.status = SnapshotStatus::Available;
            let from_snapshot = Volume::new(VolumeId::random(), 2);
            bed.driver.create_volume_from_snapshot(&work, &from_snapshot, &snapshot, &volume).await.unwrap();
            copy.provider_location = volume.provider_location.clone();
            for entry in std::fs::read_dir(&bed.mount).unwrap() {
                let path = entry.unwrap().path();
                if !path.to_string_lossy().ends_with(".scoria-lock") {
                    assert_eq!(mode(&path), wanted, "{path:?} with {setting}");
                }
            }
        }
    });
}

/// Two shares: the emptier takes the next volume, an earlier try's share takes its second try.
#[test]
fn of_two_shares_the_emptier_is_chosen() {
    in_mount_namespace("of_two_shares_the_emptier_is_chosen", async {
        const SECOND: &str = "127.0.0.1:/scoria/second";
        let bed = NfsBed::new().await;
        let second = bed.base.join(common::md5_hex(SECOND));
        std::fs::create_dir_all(&second).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&second).status().unwrap().success());
        // The file is read anew each time; what cannot be mounted is left out.
        let shares = format!("{ADDRESS}\n{SECOND}\nnonsense\n");
        std::fs::write(bed.directory.path().join("shares"), shares).unwrap();
        let first = create(&bed.driver, 3).await;
        assert_eq!(first.provider_location.as_deref(), Some(ADDRESS));
        let next = create(&bed.driver, 1).await;
        assert_eq!(next.provider_location.as_deref(), Some(SECOND));
        let third = create(&bed.driver, 1).await;
        assert_eq!(third.provider_location.as_deref(), Some(SECOND));
        // A second try of `first`, whose answer was lost, stays where it is.
        let again = bed.driver.create_volume(&Work::unlimited(), &first).await.unwrap();
        assert_eq!(again.provider_location.as_deref(), Some(ADDRESS));
        // Without location, it is found on the right one of them.
        let mut lost = third.clone();
        lost.provider_location = None;
        bed.driver.delete_volume(&Work::unlimited(), &lost).await.unwrap();
        assert!(!second.join(format!("volume-{}", lost.id)).exists());
        let huge = Volume::new(VolumeId::random(), 1 << 30);
        let error = bed.driver.create_volume(&Work::unlimited(), &huge).await.unwrap_err();
        assert_eq!((error.kind, error.fault.class), (ErrorKind::NoSpace, FaultClass::NfsNoSuitableShareFound));
        assert!(Command::new("umount").arg(&second).status().unwrap().success());
    });
}

/// A share whose server is dead and not mounted is tried once a minute; meanwhile the other one is used at once.
#[test]
fn a_share_that_cannot_be_mounted_holds_nobody_up() {
    in_mount_namespace("a_share_that_cannot_be_mounted_holds_nobody_up", async {
        let bed = NfsBed::with(|options| options.nfs_mount_attempts = 1).await;
        // Nothing answers on this port: `mount` gives up soon, `retry=0` keeps it from waiting.
        let shares = format!("127.0.0.1:/not/there -o vers=4.2,port=9,retry=0\n{ADDRESS}\n");
        std::fs::write(bed.directory.path().join("shares"), shares).unwrap();
        let first = create(&bed.driver, 1).await;
        assert_eq!(first.provider_location.as_deref(), Some(ADDRESS));
        let began = Instant::now();
        create(&bed.driver, 1).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // A volume without location that is not on the other one may still lie on this one.
        let lost = Volume::new(VolumeId::random(), 1);
        let error = bed.driver.delete_volume(&Work::unlimited(), &lost).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("127.0.0.1:/not/there"), "{error}");
        let mut lost = first;
        lost.provider_location = None;
        bed.driver.delete_volume(&Work::unlimited(), &lost).await.unwrap();
    });
}

#[tokio::test]
async fn setup_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let with = |change: &dyn Fn(&mut NfsOptions)| {
        let mut options = NfsOptions { nfs_mount_point_base: directory.path().join("mnt"), ..NfsOptions::default() };
        change(&mut options);
        NfsDriver::new(options, executor()).unwrap()
    };
    let missing = directory.path().join("no-such-file");
    let error = with(&|o| o.nfs_shares_config = Some(missing.clone())).setup(false).await.unwrap_err();
    assert_eq!((error.kind, error.fault.class), (ErrorKind::Config, FaultClass::NfsException));
    assert!(error.to_string().contains("no-such-file"), "{error}");
    let error = with(&|o| o.nfs_shares_config = None).setup(false).await.unwrap_err();
    assert!(error.to_string().contains("nfs_shares_config"), "{error}");
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "# nothing\n").unwrap();
    let error = with(&|o| o.nfs_shares_config = Some(empty.clone())).setup(false).await.unwrap_err();
    assert_eq!(error.fault.class, FaultClass::NfsNoSharesMounted);
}

#[test]
fn snapshots_and_secure_operations_exclude_each_other() {
    in_mount_namespace("snapshots_and_secure_operations_exclude_each_other", async {
        let bed = NfsBed::new().await;
        let options = NfsOptions {
            nfs_shares_config: Some(bed.directory.path().join("shares")),
            nfs_mount_point_base: bed.base.clone(),
            nfs_snapshot_support: true,
            ..NfsOptions::default()
        };
        // `auto` on a new installation is `true`.
        let driver = NfsDriver::new(options.clone(), executor()).unwrap();
        let error = driver.setup(true).await.unwrap_err();
        assert_eq!(error.fault.class, FaultClass::VolumeDriverException);
        assert!(bed.mount.join(".cinderSecureEnvIndicator").is_file());
        let driver = NfsDriver::new(NfsOptions { nfs_snapshot_support: false, ..options }, executor()).unwrap();
        driver.setup(false).await.unwrap();
        assert!(driver.secure_file_operations());
        let volume = create(&driver, 1).await;
        let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
        let error = driver.create_snapshot(&Work::unlimited(), &snapshot, &volume).await.unwrap_err();
        assert!(error.to_string().contains("snapshot support is disabled"), "{error}");
    });
}

/// As another user, on a share that only root may write: everything goes through the root helper.
/// (Needs root to begin with; the helper is a set-user-id copy of `env`.)
#[test]
fn what_we_may_not_do_the_root_helper_does() {
    const USER: &str = "SCORIA_TEST_AS_USER";
    let name = "what_we_may_not_do_the_root_helper_does";
    if let Ok(directory) = std::env::var(USER) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(as_a_user_with_root_helper(Path::new(&directory)));
    }
    in_mount_namespace(name, async {
        assert!(nix::unistd::getuid().is_root(), "this test needs root");
        let bed = NfsBed::new().await;
        let directory = bed.directory.path();
        let open = std::fs::Permissions::from_mode(0o755);
        for path in [directory, &bed.base, &bed.mount] {
            std::fs::set_permissions(path, open.clone()).unwrap();
        }
        let helper = directory.join("env");
        std::fs::copy("/usr/bin/env", &helper).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o4755)).unwrap();
        let program = directory.join("test-program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let status = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(["--exact", name, "--nocapture"])
            .env(USER, directory)
            .status()
            .expect("setpriv (Debian package util-linux)");
        assert!(status.success());
    });
}

async fn as_a_user_with_root_helper(directory: &Path) {
    let base = directory.join("mnt");
    let root = mount_point(&base);
    assert!(std::fs::write(root.join("x"), "").is_err(), "the share must not be writable for this user");
    let driver = |helper: Option<Vec<String>>, permissions: &str| {
        let options = NfsOptions {
            nfs_shares_config: Some(directory.join("shares")),
            nfs_mount_point_base: base.clone(),
            nfs_snapshot_support: true,
            nas_secure_file_operations: "false".into(),
            nas_secure_file_permissions: permissions.into(),
            ..NfsOptions::default()
        };
        NfsDriver::new(options, Executor::new(helper, Duration::from_secs(30))).unwrap()
    };
    let alone = driver(None, "false");
    alone.setup(false).await.unwrap();
    let error = alone.create_volume(&Work::unlimited(), &Volume::new(VolumeId::random(), 1)).await.unwrap_err();
    assert!(error.to_string().contains("ermission denied"), "{error}");
    for permissions in ["false", "true"] {
        let driver = driver(Some(vec![directory.join("env").to_string_lossy().into_owned()]), permissions);
        driver.setup(false).await.unwrap();
        let work = Work { token: Some(3), ..Work::unlimited() };
        let mut volume = create(&driver, 1).await;
        driver.extend_volume(&work, &volume, 2).await.unwrap();
        volume.size = 2;
        let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 2);
        let facts = driver.create_snapshot(&work, &snapshot, &volume).await.unwrap();
        volume.admin_metadata.extend(facts.volume_admin_metadata);
        snapshot.status = SnapshotStatus::Available;
        let mut copy = Volume::new(VolumeId::random(), 3);
        let facts = driver.create_volume_from_snapshot(&work, &copy, &snapshot, &volume).await.unwrap();
        copy.provider_location = facts.provider_location;
        copy.admin_metadata = facts.admin_metadata;
        let info = driver.initialize_connection(&work, &copy, &Connector::new()).await.unwrap();
        assert_eq!(info["data"]["format"], "raw");
        driver.extend_volume(&work, &volume, 4).await.unwrap();
        let facts = driver.delete_snapshot(&work, &snapshot, &volume).await.unwrap();
        volume.admin_metadata.extend(facts.volume_admin_metadata);
        volume.size = 4;
        driver.initialize_connection(&work, &volume, &Connector::new()).await.unwrap();
        for volume in [volume, copy] {
            driver.delete_volume(&work, &volume).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    }
}

/// No child process is needed for a raw volume: with nothing on `PATH` it still lives its life.
#[test]
fn a_raw_volume_needs_no_child_process() {
    const INSIDE: &str = "SCORIA_TEST_WITHOUT_PATH";
    let name = "a_raw_volume_needs_no_child_process";
    if std::env::var_os(INSIDE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("PATH", "/nonexistent").env(INSIDE, "yes");
        return assert!(command.status().unwrap().success());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(LocalOptions::new(directory.path()), executor()).unwrap();
        driver.setup(true).await.unwrap();
        let work = Work::unlimited();
        let volume = create(&driver, 1).await;
        driver.extend_volume(&work, &volume, 2).await.unwrap();
        let copy = Volume::new(VolumeId::random(), 3);
        let facts = driver.create_cloned_volume(&work, &copy, &volume).await.unwrap();
        let copy = Volume { provider_location: facts.provider_location, ..copy };
        for volume in [volume, copy] {
            driver.delete_volume(&work, &volume).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let qcow2 = LocalOptions { qcow2_volumes: true, ..LocalOptions::new(directory.path()) };
        let driver = LocalDriver::new(qcow2, executor()).unwrap();
        let error = driver.create_volume(&work, &Volume::new(VolumeId::random(), 1)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.to_string().contains("qemu-img"), "{error}");
    });
}

/// A full disk is told as such, and leaves nothing half-made.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    in_mount_namespace("a_full_disk_leaves_nothing_behind", async {
        let directory = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(directory.path()).status();
        assert!(mount.unwrap().success());
        let options = LocalOptions { max_over_subscription_ratio: 1000.0, ..LocalOptions::new(directory.path()) };
        let thick = LocalOptions { sparsed_volumes: false, ..options.clone() };
        let thick = LocalDriver::new(thick, executor()).unwrap();
        let volume = Volume::new(VolumeId::random(), 1);
        let error = thick.create_volume(&Work::unlimited(), &volume).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
        // A copy that does not fit, in the process and by qemu-img.
        for qcow2_volumes in [false, true] {
            let driver = LocalDriver::new(LocalOptions { qcow2_volumes, ..options.clone() }, executor()).unwrap();
            let source = create(&driver, 1).await;
            let info = driver.initialize_connection(&Work::unlimited(), &source, &Connector::new()).await.unwrap();
            let (path, format) =
                (info["data"]["device_path"].as_str().unwrap(), info["data"]["format"].as_str().unwrap());
            let write = Command::new("qemu-io").args(["-f", format, "-c", "write -P 7 0 9M", path]).output().unwrap();
            assert!(write.status.success());
            let error = driver.create_cloned_volume(&Work::unlimited(), &volume, &source).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
            driver.delete_volume(&Work::unlimited(), &source).await.unwrap();
        }
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".scoria-lock")), "{left:?}");
        assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
    });
}

/// A call that hangs in the kernel ends at the operation's deadline, and does not stop work on other volumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_file_call_stops_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let driver = LocalDriver::new(LocalOptions::new(directory.path()), executor()).unwrap();
    let hanging = create(&driver, 1).await;
    // Opening a pipe that nobody writes blocks in the kernel, like a file of a dead server.
    let info = directory.path().join(format!("volume-{}.info", hanging.id));
    nix::unistd::mkfifo(&info, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let work = Work { deadline: scoria_runtime::Deadline::after(Duration::from_millis(300)), ..Work::unlimited() };
    let began = Instant::now();
    let error = driver.extend_volume(&work, &hanging, 2).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(3));
    let other = create(&driver, 1).await;
    driver.delete_volume(&Work::unlimited(), &other).await.unwrap();
    // Its thread is let go, so that the test can end.
    drop(std::fs::OpenOptions::new().write(true).open(&info).unwrap());
}

/// Puts a `qemu-img` into a directory that only sleeps; the answer is a `PATH` on which it is found first.
fn slow_qemu_img(tools: &Path, seconds: u32) -> String {
    let (started, ended) = (tools.join("started"), tools.join("ended"));
    let script = format!("#!/bin/sh\n: > {}\nsleep {seconds}\n: > {}\n", started.display(), ended.display());
    let tool = tools.join("qemu-img");
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", tools.display(), std::env::var("PATH").unwrap())
}

fn wait_for(file: &Path) {
    for _ in 0..1000 {
        if file.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} has not come", file.display());
}

/// A lost lock cancels the operation: its `qemu-img` is killed, nothing further is done.
#[test]
fn a_lost_lock_stops_the_child_and_the_operation() {
    const INSIDE: &str = "SCORIA_TEST_SLOW_TOOLS";
    let name = "a_lost_lock_stops_the_child_and_the_operation";
    let Ok(tools) = std::env::var(INSIDE) else {
        let tools = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("PATH", slow_qemu_img(tools.path(), 5));
        return assert!(command.env(INSIDE, tools.path()).status().unwrap().success());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(LocalOptions::new(directory.path()), executor()).unwrap();
        let volume = create(&driver, 1).await;
        let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
        let work = Work::unlimited();
        let started = Path::new(&tools).join("started");
        let lose = async {
            while !started.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            work.cancel.cancel();
            Instant::now()
        };
        let (result, lost) = tokio::join!(driver.create_snapshot(&work, &snapshot, &volume), lose);
        assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled);
        assert!(lost.elapsed() < Duration::from_secs(3), "{:?}", lost.elapsed());
        // The fence is free: nothing of the operation is left that could still write.
        let began = Instant::now();
        driver.extend_volume(&Work::unlimited(), &volume, 2).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(!directory.path().join(format!("volume-{}.info", volume.id)).exists());
        assert!(!Path::new(&tools).join("ended").exists());
    });
}

/// Peer defect 12: a service is killed while its `qemu-img` writes. Whoever takes the volume over waits for that child.
#[test]
fn defect_12_the_child_of_a_killed_service_is_waited_for() {
    const DIRECTORY: &str = "SCORIA_TEST_SERVICE_IN";
    const VOLUME: &str = "SCORIA_TEST_VOLUME";
    let name = "defect_12_the_child_of_a_killed_service_is_waited_for";
    let driver = |directory: &Path| LocalDriver::new(LocalOptions::new(directory), executor()).unwrap();
    let existing = |id: VolumeId, directory: &Path| {
        let mut volume = Volume::new(id, 1);
        volume.status = VolumeStatus::Available;
        volume.provider_location = Some(directory.to_str().unwrap().to_owned());
        volume.admin_metadata.insert("format".into(), "raw".into());
        volume
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(directory) = std::env::var(DIRECTORY) {
        // The service that will be killed: it takes a snapshot, by way of a `qemu-img` that takes its time.
        let directory = Path::new(&directory);
        let volume = existing(std::env::var(VOLUME).unwrap().parse().unwrap(), directory);
        let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
        drop(runtime.block_on(driver(directory).create_snapshot(&Work::unlimited(), &snapshot, &volume)));
        return;
    }
    let (directory, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = slow_qemu_img(tools.path(), 2);
    let (started, ended) = (tools.path().join("started"), tools.path().join("ended"));
    let volume = existing(VolumeId::random(), directory.path());
    runtime.block_on(driver(directory.path()).create_volume(&Work::unlimited(), &volume)).unwrap();
    let mut service = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(DIRECTORY, directory.path())
        .env(VOLUME, volume.id.as_str())
        .env("PATH", path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&started);
    service.kill().unwrap();
    service.wait().unwrap();
    runtime.block_on(async {
        let driver = driver(directory.path());
        let short = Work { deadline: scoria_runtime::Deadline::after(Duration::from_millis(300)), ..Work::unlimited() };
        let error = driver.extend_volume(&short, &volume, 2).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Busy | ErrorKind::Cancelled), "{error}");
        assert!(!ended.exists(), "the child still works");
        driver.extend_volume(&Work::unlimited(), &volume, 2).await.unwrap();
        assert!(ended.exists(), "the child was not waited for");
    });
}

/// Peer defect 23: Python's NFS driver refuses to serve a back end from several hosts.
#[test]
fn defect_23_the_driver_is_active_active() {
    let driver = NfsDriver::new(NfsOptions::default(), executor()).unwrap();
    assert!(driver.capabilities().active_active);
    assert_eq!(driver.info().lock_prefix, "nfs");
}
