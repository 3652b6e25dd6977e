//! Guests, and a switch between them whose cables can be pulled out.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use scoria_model::VolumeId;
use scoria_testkit::repository;

pub(crate) const PART: &str = "SCORIA_TEST_PART";
pub(crate) const VOLUME: &str = "SCORIA_TEST_VOLUME";

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// In the server's guest: what it exports.
pub(crate) fn exported() -> PathBuf {
    Path::new(&env("SCORIA_NFS_DIRECTORY")).to_path_buf()
}

/// In the server's guest: says what to mount, upon which clients may come.
pub(crate) fn announce() {
    println!("serving {} {}", env("SCORIA_NFS_SHARE"), env("SCORIA_NFS_OPTIONS"));
}

/// The guests of a test: the server, number 1, and its clients.
pub(crate) struct Network<'a> {
    test: &'a str,
    volume: VolumeId,
    /// How long the server waits for a silent client before it gives its locks away.
    pub(crate) lease: Duration,
    switch: Arc<Switch>,
}

impl<'a> Network<'a> {
    pub(crate) fn new(test: &'a str) -> Self {
        Self { test, volume: VolumeId::random(), lease: Duration::from_secs(10), switch: Arc::default() }
    }

    pub(crate) fn server(&self, version: &str, part: &str) -> Guest {
        Guest::start(&mut self.lane("1", version, part), self.switch.cable("1"))
    }

    pub(crate) fn client(&self, number: &'static str, part: &str, server: &mut Guest) -> Guest {
        let mut lane = self.lane(number, "client", part);
        let (share, options) = server.serves();
        lane.env("SCORIA_NFS_SHARE", share).env("SCORIA_NFS_OPTIONS", options);
        Guest::start(&mut lane, self.switch.cable(number))
    }

    /// Pulls out a guest's cable, or puts it in again.
    pub(crate) fn plug(&self, number: &str, plugged: bool) {
        self.switch.0.lock().unwrap().get_mut(number).unwrap().plugged = plugged;
    }

    /// `nfs-run.sh` with the command that plays a part of this test in the guest.
    fn lane(&self, number: &str, role: &str, part: &str) -> Command {
        let mut lane = Command::new(repository().join("tests/lanes/uml/nfs-run.sh"));
        lane.args(["-n", number, role, "--"]).arg(std::env::current_exe().unwrap());
        lane.args(["--exact", self.test, "--nocapture"]).env(PART, part).env(VOLUME, self.volume.as_str());
        lane.env("SCORIA_UML_TIMEOUT", "300").env("SCORIA_NFS_LEASE", self.lease.as_secs().to_string());
        lane
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // Ends the threads that listen to them.
        self.switch.0.lock().unwrap().values().for_each(|cable| drop(cable.end.shutdown(Shutdown::Both)));
    }
}

/// The cables of the guests, by number. What comes in at one goes out at all others.
#[derive(Default)]
struct Switch(Mutex<HashMap<&'static str, Cable>>);

struct Cable {
    end: Arc<UnixDatagram>,
    plugged: bool,
}

impl Switch {
    /// A guest's end of a new cable.
    fn cable(self: &Arc<Self>, number: &'static str) -> OwnedFd {
        let (end, guests) = UnixDatagram::pair().unwrap();
        // A frame for a guest that does not take it in is lost.
        end.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let end = Arc::new(end);
        self.0.lock().unwrap().insert(number, Cable { end: end.clone(), plugged: true });
        let switch = self.clone();
        std::thread::spawn(move || switch.carry(number, &end));
        guests.into()
    }

    fn carry(&self, from: &str, end: &UnixDatagram) {
        let mut frame = [0; 1 << 16];
        while let Ok(length @ 1..) = end.recv(&mut frame) {
            let cables = self.0.lock().unwrap();
            if cables[from].plugged {
                for (_, other) in cables.iter().filter(|(number, cable)| **number != from && cable.plugged) {
                    let _ = other.end.send(&frame[..length]);
                }
            }
        }
    }
}

/// A running guest. It loses its power when this is dropped.
pub(crate) struct Guest {
    boot: Child,
    lines: Receiver<(Instant, String)>,
    /// What the server said to mount, with which options.
    serves: Option<(String, String)>,
}

impl Guest {
    fn start(lane: &mut Command, cable: OwnedFd) -> Self {
        let mut boot = lane.stdin(cable).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let output = BufReader::new(boot.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Nobody may listen any more.
            output.lines().map_while(Result::ok).for_each(|line| drop(sender.send((Instant::now(), line))));
        });
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
    pub(crate) fn says(&mut self, marker: &str) -> String {
        self.says_when(marker).1
    }

    /// As [`Guest::says`], with the time at which it was said.
    pub(crate) fn says_when(&mut self, marker: &str) -> (Instant, String) {
        while let Ok((time, line)) = self.lines.recv() {
            println!("{line}");
            assert!(!line.contains("test result: FAILED"), "the guest's part of the test has failed");
            if let Some((_, rest)) = line.split_once(marker) {
                return (time, rest.trim().to_owned());
            }
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
        // It may tell why another one failed.
        self.lines.try_iter().for_each(|(_, line)| println!("{line}"));
    }
}
