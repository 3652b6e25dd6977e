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
use std::process::{Child, ChildStdout, Command, Stdio};
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

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
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
    let share = Path::new(&env("SCORIA_NFS_DIRECTORY")).join(DIRECTORY);
    std::fs::create_dir(&share).unwrap();
    println!("serving {} {}", env("SCORIA_NFS_SHARE"), env("SCORIA_NFS_OPTIONS"));
    share
}

/// A cable between two guests: the server, and one client after the other.
struct Network<'a> {
    test: &'a str,
    volume: VolumeId,
    at_server: UnixDatagram,
    at_client: UnixDatagram,
}

impl<'a> Network<'a> {
    fn new(test: &'a str) -> Self {
        let (at_server, at_client) = UnixDatagram::pair().unwrap();
        Self { test, volume: VolumeId::random(), at_server, at_client }
    }

    fn server(&self, version: &str, part: &str) -> Guest {
        Guest::start(&mut self.lane("1", version, part), &self.at_server)
    }

    fn client(&self, number: &str, part: &str, server: &mut Guest) -> Guest {
        let mut lane = self.lane(number, "client", part);
        let (share, options) = server.serves();
        Guest::start(lane.env("SCORIA_NFS_SHARE", share).env("SCORIA_NFS_OPTIONS", options), &self.at_client)
    }

    /// `nfs-run.sh` with the command that plays a part of this test in the guest.
    fn lane(&self, number: &str, role: &str, part: &str) -> Command {
        let mut lane = Command::new(repository().join("tests/lanes/uml/nfs-run.sh"));
        lane.args(["-n", number, role, "--"]).arg(std::env::current_exe().unwrap());
        lane.args(["--exact", self.test, "--nocapture"]).env(PART, part).env(VOLUME, self.volume.as_str());
        lane.env("SCORIA_UML_TIMEOUT", "300");
        lane
    }
}

/// A running guest. It loses its power when this is dropped.
struct Guest {
    boot: Child,
    lines: BufReader<ChildStdout>,
    /// What the server said to mount, with which options.
    serves: Option<(String, String)>,
}

impl Guest {
    fn start(lane: &mut Command, cable: &UnixDatagram) -> Self {
        let cable = OwnedFd::from(cable.try_clone().unwrap());
        let mut boot = lane.stdin(cable).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = BufReader::new(boot.stdout.take().unwrap());
        Self { boot, lines, serves: None }
    }

    fn serves(&mut self) -> (String, String) {
        if self.serves.is_none() {
            let line = self.says("serving ");
            self.serves = line.split_once(' ').map(|(share, options)| (share.to_owned(), options.to_owned()));
        }
        self.serves.clone().unwrap()
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
