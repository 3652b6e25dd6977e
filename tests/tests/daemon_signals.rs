//! `scoria-volume` as systemd runs it: readiness, watchdog, reload and stop, told to a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoria_testkit::{Process, free_port, program, scoria_volume, wait_until};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The watchdog's period: systemd would kill a service that is silent for longer.
const WATCHDOG: Duration = Duration::from_secs(2);

/// A stand-alone service under a service manager, which the test is.
struct Managed {
    process: Process,
    manager: UnixDatagram,
    admin: u16,
    conf: PathBuf,
    text: String,
    directory: TempDir,
}

impl Managed {
    /// Starts it with these lines in `[DEFAULT]`.
    fn start(default: &str) -> Self {
        program("qemu-img", "qemu-utils").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (door, admin) = (free_port().unwrap(), free_port().unwrap());
        let dir = directory.path().display();
        let text = format!(
            "[scoria]\napi_listen_port = {door}\nadmin_listen_port = {admin}\n[local]\nlocal_path = {dir}/volumes\n\
             [DEFAULT]\nstate_path = {dir}\n{default}\n"
        );
        let conf = directory.path().join("cinder.conf");
        std::fs::write(&conf, &text).unwrap();
        let socket = directory.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        let mut command = Command::new(scoria_volume().unwrap());
        command.args(["--standalone", "--config-file"]).arg(&conf).current_dir(directory.path());
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command.env_remove("WATCHDOG_PID");
        let process = Process::spawn("scoria-volume", command, &directory.path().join("log")).unwrap();
        Self { process, manager, admin, conf, text, directory }
    }

    /// The next thing it tells that has this line in it, and how long that took. What comes before is only passed over.
    fn told(&self, line: &str) -> (String, Duration) {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero());
            let left = left.unwrap_or_else(|| panic!("{line} was not told\n{}", self.process.log_tail()));
            self.manager.set_read_timeout(Some(left)).unwrap();
            let mut message = [0; 4096];
            let Ok(length) = self.manager.recv(&mut message) else { continue };
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.lines().any(|told| told == line) {
                return (message, begun.elapsed());
            }
        }
    }

    /// Adds lines to `[DEFAULT]`, the last section.
    fn configure(&self, more: &str) {
        std::fs::write(&self.conf, format!("{}{more}\n", self.text)).unwrap();
    }

    /// Waits until its log has all of these in it, after the first `from` bytes.
    async fn logs(&self, from: usize, parts: &[&str]) {
        let has_all = async || {
            // It has something to do meanwhile.
            self.health().await;
            let log = self.log();
            parts.iter().all(|part| log[from..].contains(part))
        };
        if let Err(error) = wait_until("the log has it", PATIENCE, has_all).await {
            panic!("{parts:?}: {error}\n{}", self.process.log_tail());
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.process.log()).unwrap()).into_owned()
    }

    async fn health(&self) -> u16 {
        let url = format!("http://127.0.0.1:{}/healthcheck", self.admin);
        reqwest::get(url).await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let mut managed = Managed::start("graceful_shutdown_timeout = 7");
    managed.told("READY=1");
    assert_eq!(managed.health().await, 200, "ready is said when it is so");
    managed.told("WATCHDOG=1");
    for _ in 0..3 {
        let (_, silent) = managed.told("WATCHDOG=1");
        assert!(silent < 2 * WATCHDOG, "{silent:?}");
    }
    // A process that hangs is silent, which is what the watchdog is for.
    managed.process.signal(Signal::SIGSTOP).unwrap();
    tokio::time::sleep(2 * WATCHDOG).await;
    managed.manager.set_nonblocking(true).unwrap();
    while managed.manager.recv(&mut [0; 4096]).is_ok() {}
    tokio::time::sleep(2 * WATCHDOG).await;
    assert!(managed.manager.recv(&mut [0; 4096]).is_err());
    managed.manager.set_nonblocking(false).unwrap();
    managed.process.signal(Signal::SIGCONT).unwrap();
    managed.told("WATCHDOG=1");

    managed.process.signal(Signal::SIGTERM).unwrap();
    let (stopping, _) = managed.told("STOPPING=1");
    // The grace time and what comes after it.
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=22000000"), "{stopping}");
    let status = managed.process.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", managed.process.log_tail());
    assert!(managed.log().contains("SIGTERM") && managed.log().trim_end().ends_with("ended"));
    let leftovers: Vec<_> = std::fs::read_dir(managed.directory.path()).unwrap().flatten().collect();
    assert!(!leftovers.iter().any(|file| file.file_name().to_string_lossy().starts_with("cinder-")), "{leftovers:?}");
}

#[tokio::test]
async fn a_reload_takes_over_what_can_change_and_names_the_rest() {
    // Whatever there is to be heard of libraries.
    let mut managed = Managed::start("default_log_levels =\ndebug = false");
    managed.told("READY=1");
    assert!(!managed.log().contains(" DEBUG "), "{}", managed.log());

    managed.configure("debug = true\nreport_interval = 3");
    let before = managed.log().len();
    managed.process.signal(Signal::SIGHUP).unwrap();
    let (reloading, _) = managed.told("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    managed.told("READY=1");
    let told = [
        "Option DEFAULT.debug changed from [False] to [True]",
        "Ignoring change to immutable option DEFAULT.report_interval",
        "configuration reloaded",
        " DEBUG ",
    ];
    managed.logs(before, &told).await;

    // What is wrong changes nothing, and the service goes on.
    managed.configure("debug = perhaps");
    let before = managed.log().len();
    managed.process.signal(Signal::SIGHUP).unwrap();
    managed.told("RELOADING=1");
    managed.told("READY=1");
    managed.logs(before, &["configuration was not reloaded", "debug = perhaps", " DEBUG "]).await;
    assert_eq!(managed.health().await, 200);

    managed.process.signal(Signal::SIGINT).unwrap();
    managed.told("STOPPING=1");
    assert!(managed.process.wait(PATIENCE).await.unwrap().success());
}

#[tokio::test]
async fn without_systemd_it_runs_as_well_and_a_second_one_changes_nothing() {
    let mut managed = Managed::start("");
    managed.told("READY=1");
    let mut second = Command::new(scoria_volume().unwrap());
    second.args(["--standalone", "--config-file"]).arg(&managed.conf).env_remove("NOTIFY_SOCKET");
    let log = managed.directory.path().join("second.log");
    let mut second = Process::spawn("second scoria-volume", second, &log).unwrap();
    assert!(!second.wait(PATIENCE).await.unwrap().success());
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("admin_listen_port") && said.contains("another instance"), "{said}");
    assert_eq!(managed.health().await, 200);
    managed.process.signal(Signal::SIGTERM).unwrap();
    assert!(managed.process.wait(PATIENCE).await.unwrap().success());
}
