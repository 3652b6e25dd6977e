//! The fence on real NFS mounts, inside user-mode Linux: who dies, and what his lock does to the others. (The drivers' suite on
//! such mounts is in `real_nfs.rs`.)
//!
//! A test runs its own program again inside a guest, for the same test; the environment tells it which part it has there.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use scoria_drivers::{ErrorKind, NfsDriver, NfsOptions, VolumeDriver, Work};
use scoria_model::{Snapshot, SnapshotId, Volume, VolumeId, VolumeStatus};
use scoria_runtime::{Deadline, Executor};
use scoria_testkit::{mount_point, repository};

const PART: &str = "SCORIA_TEST_PART";
const VOLUME: &str = "SCORIA_TEST_VOLUME";
/// A directory on the share that is the driver's share.
const DIRECTORY: &str = "fence";

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// `nfs-run.sh` with these arguments, and the command that plays a part of this test in the guest.
fn lane(args: &[&str], test: &str, part: &str) -> Command {
    let mut lane = Command::new(repository().join("tests/lanes/uml/nfs-run.sh"));
    lane.args(args).arg("--").arg(std::env::current_exe().unwrap());
    lane.args(["--exact", test, "--nocapture"]).env(PART, part);
    lane
}

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
        let options = NfsOptions {
            nfs_shares_config: Some(shares),
            nfs_mount_point_base: base.clone(),
            // Two mounts on one host share nothing: what one of them has locked, the other learns from the server.
            nfs_mount_options: Some(format!("{},nosharecache", env("SCORIA_NFS_OPTIONS"))),
            nfs_snapshot_support: true,
            nas_secure_file_operations: "false".into(),
            nas_secure_file_permissions: "false".into(),
            ..NfsOptions::default()
        };
        let driver = NfsDriver::new(options, Executor::new(None, Duration::from_secs(120))).unwrap();
        driver.setup(false).await.unwrap();
        Self { driver, root: mount_point(&base, &address()) }
    }

    async fn create(&self) -> Volume {
        let volume = volume(VolumeId::random());
        self.driver.create_volume(&work(1, 60), &volume).await.unwrap();
        volume
    }

    async fn take_a_snapshot(&self, volume: &Volume) {
        let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
        let made = self.driver.create_snapshot(&work(5, 600), &snapshot, volume).await;
        panic!("nobody has killed us: {made:?}");
    }
}

fn address() -> String {
    env("SCORIA_NFS_SHARE") + DIRECTORY
}

fn volume(id: VolumeId) -> Volume {
    let mut volume = Volume::new(id, 1);
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

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// This program again, on this host, as a service that takes a snapshot with these tools; returns when its `qemu-img` runs.
fn start_holder(test: &str, volume: &Volume, tools: &Path, seconds: u32) -> Child {
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["--exact", test, "--nocapture"]).env("PATH", slow_qemu_img(tools, seconds));
    let holder = holder.env(PART, "holder").env(VOLUME, volume.id.as_str()).spawn().unwrap();
    let (began, started) = (Instant::now(), tools.join("started"));
    while !started.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the holder has not come to its qemu-img");
        std::thread::sleep(Duration::from_millis(20));
    }
    holder
}

/// A service is killed while its `qemu-img` writes: that child keeps out whoever comes by another mount, until it ends.
fn a_child_keeps_its_killed_services_lock(version: &str, test: &str) {
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let out = lane(&[version], test, "taker").output().unwrap();
            let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            println!("{stdout}");
            assert!(out.status.success() && stdout.contains("1 passed"), "{}\n{stderr}", out.status);
        }
        Ok("holder") => block_on(async {
            let volume = volume(env(VOLUME).parse().unwrap());
            Service::start().await.take_a_snapshot(&volume).await;
        }),
        Ok(_) => {
            std::fs::create_dir(Path::new(&env("SCORIA_NFS_DIRECTORY")).join(DIRECTORY)).unwrap();
            let tools = tempfile::tempdir().unwrap();
            let (service, volume) = block_on(async {
                let service = Service::start().await;
                let volume = service.create().await;
                (service, volume)
            });
            let mut holder = start_holder(test, &volume, tools.path(), 12);
            holder.kill().unwrap();
            holder.wait().unwrap();
            println!("{}", String::from_utf8_lossy(&Command::new("sh").arg("-c").arg("ps axf | tail -12; cat /proc/locks; ls -li /tmp/.tmp*/mnt/*; grep nfs /proc/mounts").output().unwrap().stdout));
            block_on(async {
                let error = service.driver.extend_volume(&work(6, 2), &volume, 2).await.unwrap_err();
                assert!(matches!(error.kind, ErrorKind::Busy | ErrorKind::Cancelled), "{error}");
                assert!(!tools.path().join("ended").exists(), "the child still works");
                service.driver.extend_volume(&work(6, 100), &volume, 2).await.unwrap();
                assert!(tools.path().join("ended").exists(), "the child was not waited for");
            });
        }
    }
}

/// A guest on a network of two. Its power goes off with it.
struct Guest {
    boot: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Guest {
    fn start(mut lane: Command, cable: &UnixDatagram) -> Self {
        let cable = OwnedFd::from(cable.try_clone().unwrap());
        let mut boot = lane.stdin(cable).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = BufReader::new(boot.stdout.take().unwrap());
        Self { boot, lines }
    }

    /// What follows `marker` on the first line that has it.
    fn says(&mut self, marker: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            print!("{line}");
            if let Some((_, rest)) = line.split_once(marker) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("the guest has ended without saying {marker:?}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.boot.id().try_into().unwrap());
        // Gone already is fine.
        let _ = killpg(group, Signal::SIGTERM);
        drop(self.boot.wait());
    }
}

/// A host dies while it holds the fence. On NFS 4 its lock goes with its lease, on NFS 3 it stays for good and must not be
/// waited for; on either, who has an older token than the dead one is refused.
fn a_dead_host_stops_nobody(version: &str, test: &str) {
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let (at_server, at_client) = UnixDatagram::pair().unwrap();
            let mut server = lane(&["-n", "1", version], test, "server");
            server.env("SCORIA_UML_TIMEOUT", "400");
            let mut server = Guest::start(server, &at_server);
            let (share, options) =
                server.says("serving ").split_once(' ').map(|(s, o)| (s.to_owned(), o.to_owned())).unwrap();
            let client = |number, part| {
                let mut client = lane(&["-n", number, "client"], test, part);
                client
                    .env("SCORIA_NFS_SHARE", &share)
                    .env("SCORIA_NFS_OPTIONS", &options)
                    .env("SCORIA_UML_TIMEOUT", "200");
                client
            };
            let mut holder = Guest::start(client("2", "holding host"), &at_client);
            let volume = holder.says("writes to ");
            drop(holder);
            let mut taker = client("3", "taker");
            taker.env(VOLUME, volume);
            Guest::start(taker, &at_client).says("1 passed");
        }
        Ok("server") => {
            std::fs::create_dir(Path::new(&env("SCORIA_NFS_DIRECTORY")).join(DIRECTORY)).unwrap();
            println!("serving {} {}", env("SCORIA_NFS_SHARE"), env("SCORIA_NFS_OPTIONS"));
            std::thread::sleep(Duration::from_secs(400));
        }
        Ok("holding host") => {
            let volume = block_on(async { Service::start().await.create().await });
            let tools = tempfile::tempdir().unwrap();
            let mut holder = start_holder(test, &volume, tools.path(), 400);
            println!("writes to {}", volume.id);
            holder.wait().unwrap();
        }
        Ok("holder") => block_on(async {
            let volume = volume(env(VOLUME).parse().unwrap());
            Service::start().await.take_a_snapshot(&volume).await;
        }),
        Ok(_) => block_on(async {
            let service = Service::start().await;
            let volume = volume(env(VOLUME).parse().unwrap());
            let began = Instant::now();
            let error = service.driver.extend_volume(&work(4, 100), &volume, 2).await.unwrap_err();
            assert!(error.to_string().contains("token 5, ours is 4"), "{error}");
            println!("refused after {:?}", began.elapsed());
            service.driver.extend_volume(&work(6, 100), &volume, 2).await.unwrap();
            println!("done after {:?}", began.elapsed());
            let fence = service.root.join(format!("volume-{}.scoria-lock", volume.id));
            assert_eq!(is_locked(&fence), version == "3", "a dead host's lock on NFS {version}");
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
    a_child_keeps_its_killed_services_lock("3", "nfs_3_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_4_0_a_child_keeps_its_killed_services_lock() {
    a_child_keeps_its_killed_services_lock("4.0", "nfs_4_0_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_4_2_a_child_keeps_its_killed_services_lock() {
    a_child_keeps_its_killed_services_lock("4.2", "nfs_4_2_a_child_keeps_its_killed_services_lock");
}

#[test]
fn nfs_3_a_dead_host_stops_nobody() {
    a_dead_host_stops_nobody("3", "nfs_3_a_dead_host_stops_nobody");
}

#[test]
fn nfs_4_2_a_dead_host_stops_nobody() {
    a_dead_host_stops_nobody("4.2", "nfs_4_2_a_dead_host_stops_nobody");
}
