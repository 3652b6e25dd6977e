//! The fence: who dies, and what his lock does to the others.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use scoria_drivers::{ErrorKind, NfsDriver, NfsOptions, VolumeDriver, Work};
use scoria_model::{Snapshot, SnapshotId, Volume, VolumeStatus};
use scoria_runtime::{Deadline, Executor};
use scoria_testkit::mount_point;

use crate::network::{Network, PART, VOLUME, announce, block_on, env, exported};

/// A directory on the share that is the driver's share.
const DIRECTORY: &str = "fence";

/// One service's driver, on a mount of its own.
struct Service {
    driver: NfsDriver,
    root: PathBuf,
}

impl Service {
    async fn start() -> Self {
        // Kept: the guest's end removes it, and until then the share is mounted in it.
        let directory = tempfile::tempdir().unwrap().keep();
        let (base, shares) = (directory.join("mnt"), directory.join("shares"));
        std::fs::write(&shares, address()).unwrap();
        let mut options = env("SCORIA_NFS_OPTIONS");
        if options.starts_with("vers=3,") {
            // Two mounts on this host share nothing: what one has locked, the other learns from the server. (On NFS 4 this
            // would not do: a client that the server has promised a file to locks it at home, mount by mount.)
            options += ",nosharecache";
        }
        let options = NfsOptions {
            nfs_shares_config: Some(shares),
            nfs_mount_point_base: base.clone(),
            nfs_mount_options: Some(options),
            nfs_snapshot_support: true,
            nas_secure_file_operations: "false".into(),
            nas_secure_file_permissions: "false".into(),
            ..NfsOptions::default()
        };
        let driver = NfsDriver::new(options, Executor::new(None, Duration::from_secs(120))).unwrap();
        driver.setup(false).await.unwrap();
        Self { driver, root: mount_point(&base, &address()) }
    }
}

fn address() -> String {
    env("SCORIA_NFS_SHARE") + DIRECTORY
}

/// The volume that everybody works on.
fn volume() -> Volume {
    let mut volume = Volume::new(env(VOLUME).parse().unwrap(), 1);
    volume.status = VolumeStatus::Available;
    volume.provider_location = Some(address());
    volume.admin_metadata.insert("format".into(), "raw".into());
    volume
}

fn work(token: u64, seconds: u64) -> Work {
    Work { token: Some(token), deadline: Deadline::after(Duration::from_secs(seconds)), ..Work::unlimited() }
}

/// A `qemu-img` that says when it starts, sleeps, and says when it ends; the answer is a `PATH` on which it is found first.
fn slow_qemu_img(tools: &Path, seconds: u32) -> String {
    let tool = tools.join("qemu-img");
    let script = format!("#!/bin/sh\n: >{0}/started\nsleep {seconds}\n: >{0}/ended\n", tools.display());
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", tools.display(), env("PATH"))
}

/// Creates the volume and starts this program again, on this host, as a service that takes a snapshot of it; returns when its
/// `qemu-img` runs. The volume is known by its location and id, the rest by files beside it on the share.
fn start_holder(test: &str, seconds: u32) -> (Child, PathBuf) {
    let root = block_on(async {
        let service = Service::start().await;
        service.driver.create_volume(&work(1, 60), &volume()).await.unwrap();
        service.root
    });
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["--exact", test, "--nocapture"]).env("PATH", slow_qemu_img(&root, seconds)).env(PART, "holder");
    let holder = holder.spawn().unwrap();
    wait_for(&root.join("started"));
    (holder, root)
}

/// Plays the service that is killed.
fn hold() {
    block_on(async {
        let snapshot = Snapshot::new(SnapshotId::random(), volume().id, 1);
        let made = Service::start().await.driver.create_snapshot(&work(5, 600), &snapshot, &volume()).await;
        panic!("nobody has killed us: {made:?}");
    });
}

fn wait_for(file: &Path) {
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_secs(100), "{} has not come", file.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A service is killed while its `qemu-img` writes: that child keeps everybody out until it ends. On NFS 4 from another host;
/// on NFS 3, where a lock says nothing about another host's health, on the same one by another mount.
fn a_child_keeps_its_killed_services_lock(version: &str, test: &str) {
    let kill_a_service = || {
        let (mut holder, root) = start_holder(test, 15);
        holder.kill().unwrap();
        holder.wait().unwrap();
        std::fs::write(root.join("killed"), "").unwrap();
        root
    };
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let network = Network::new(test);
            let mut taker = network.server(version, "taker");
            let _holder = (version != "3").then(|| network.client("2", "holding host", &mut taker));
            taker.says("1 passed");
        }
        Ok("holding host") => wait_for(&kill_a_service().join("ended")),
        Ok("holder") => hold(),
        Ok(_) => {
            let share = serve();
            if version == "3" {
                kill_a_service();
            }
            wait_for(&share.join("killed"));
            block_on(async {
                let service = Service::start().await;
                let error = service.driver.extend_volume(&work(6, 2), &volume(), 2).await.unwrap_err();
                assert!(matches!(error.kind, ErrorKind::Busy | ErrorKind::Cancelled), "{error}");
                assert!(!share.join("ended").exists(), "too slow: the child has ended before we tried");
                service.driver.extend_volume(&work(6, 100), &volume(), 2).await.unwrap();
                assert!(share.join("ended").exists(), "the child was not waited for");
            });
        }
    }
}

/// The server's part: says what to mount; the answer is the share as the server itself sees it.
fn serve() -> PathBuf {
    let share = exported().join(DIRECTORY);
    std::fs::create_dir(&share).unwrap();
    announce();
    share
}

/// A host dies while it holds the fence. On NFS 4 its lock goes with its lease, on NFS 3 it stays for good and must not be
/// waited for; on either, who has an older token than the dead one is refused.
fn a_dead_host_stops_nobody(version: &str, test: &str) {
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let network = Network::new(test);
            let mut server = network.server(version, "server");
            network.client("2", "holding host", &mut server).says("writing");
            network.client("3", "taker", &mut server).says("1 passed");
        }
        Ok("server") => {
            serve();
            std::thread::sleep(Duration::from_secs(300));
        }
        Ok("holding host") => {
            let (mut holder, _) = start_holder(test, 300);
            println!("writing");
            holder.wait().unwrap();
        }
        Ok("holder") => hold(),
        Ok(_) => block_on(async {
            let service = Service::start().await;
            let began = Instant::now();
            let error = service.driver.extend_volume(&work(4, 100), &volume(), 2).await.unwrap_err();
            assert!(error.to_string().contains("token 5, ours is 4"), "{error}");
            println!("refused after {:?}", began.elapsed());
            service.driver.extend_volume(&work(6, 100), &volume(), 2).await.unwrap();
            println!("done after {:?}", began.elapsed());
            let fence = service.root.join(format!("volume-{}.scoria-lock", volume().id));
            assert_eq!(
                is_locked(&fence),
                version == "3",
                "whether the dead host's lock is still there on NFS {version}"
            );
        }),
    }
}

/// Whether somebody else holds a lock on a file.
fn is_locked(path: &Path) -> bool {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    #[allow(clippy::cast_possible_truncation, reason = "the constants are small; the field's type differs by platform")]
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)) {
        Ok(_) => false,
        Err(Errno::EAGAIN) => true,
        Err(error) => panic!("lock {}: {error}", path.display()),
    }
}

#[test]
fn nfs_3_a_child_keeps_its_killed_services_lock() {
    a_child_keeps_its_killed_services_lock("3", "fence::nfs_3_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_4_0_a_child_keeps_its_killed_services_lock() {
    a_child_keeps_its_killed_services_lock("4.0", "fence::nfs_4_0_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_4_2_a_child_keeps_its_killed_services_lock() {
    a_child_keeps_its_killed_services_lock("4.2", "fence::nfs_4_2_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_3_a_dead_host_stops_nobody() {
    a_dead_host_stops_nobody("3", "fence::nfs_3_a_dead_host_stops_nobody");
}

#[test]
fn nfs_4_2_a_dead_host_stops_nobody() {
    a_dead_host_stops_nobody("4.2", "fence::nfs_4_2_a_dead_host_stops_nobody");
}
