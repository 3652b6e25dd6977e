//! Volumes and snapshots through the front door of a real `scoria-volume --standalone`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{Run, command, scoria, until};

/// A running stand-alone service.
struct Alone {
    directory: TempDir,
    conf: String,
    endpoint: String,
    admin: String,
    process: Background,
}

impl Alone {
    fn start(options: &str) -> Self {
        scoria_testkit::program("qemu-img", "qemu-utils").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let port = || scoria_testkit::free_port().unwrap();
        let (door, admin) = (port(), port());
        let conf = directory.path().join("alone.conf");
        let text = format!(
            "[DEFAULT]\nstate_path = {dir}\n[local]\nlocal_path = {dir}/volumes\n[scoria]\napi_listen_port = {door}\n\
             admin_listen_port = {admin}\n{options}\n",
            dir = directory.path().display()
        );
        std::fs::write(&conf, text).unwrap();
        let conf = conf.display().to_string();
        let process = spawn(directory.path(), &conf);
        let (endpoint, admin) = (format!("http://127.0.0.1:{door}"), format!("http://127.0.0.1:{admin}"));
        let mut alone = Self { directory, conf, endpoint, admin, process };
        alone.ready();
        alone
    }

    fn ready(&mut self) {
        until("scoria-volume is up", || {
            assert_eq!(self.process.0.try_wait().unwrap(), None, "scoria-volume has ended");
            scoria(&["--admin", &self.admin, "operations", "list"]).code == Some(0)
                && self.run(&["volume", "list"]).code != Some(69)
        });
    }

    fn run(&self, args: &[&str]) -> Run {
        scoria(&[&["--endpoint", &self.endpoint], args].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        self.run(&[&["--json"], args].concat()).json()
    }

    /// The same from the configuration: its database.
    fn in_database(&self, args: &[&str]) -> Value {
        scoria(&[&["--standalone", "--config-file", &self.conf, "--json"], args].concat()).json()
    }
}

/// A test that fails shows what the service has logged.
impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

fn spawn(directory: &Path, conf: &str) -> Background {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new(service());
    command.args(["--standalone", "--config-file", conf]).current_dir(directory);
    Background(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// Cargo puts it beside our own binary.
fn service() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_scoria")).with_file_name("scoria-volume");
    let file = std::env::var_os("SCORIA_VOLUME_BIN").map_or_else(beside, PathBuf::from);
    assert!(file.is_file(), "scoria-volume is not built: cargo build -p scoria-service");
    file
}

/// A command that goes on until the test ends it, or fails.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn id(view: &Value) -> &str {
    view["id"].as_str().unwrap()
}

#[test]
fn volumes_and_snapshots_live_and_end() {
    let alone = Alone::start("");
    let volume = alone.json(&["volume", "create", "1", "--name", "data"]);
    assert_eq!((&volume["status"], &volume["size"], &volume["name"]), (&"available".into(), &1.into(), &"data".into()));
    let grown = alone.json(&["volume", "extend", id(&volume), "2"]);
    assert_eq!((&grown["status"], &grown["size"]), (&"available".into(), &2.into()));
    let snapshot = alone.json(&["snapshot", "create", id(&volume), "--name", "before"]);
    assert_eq!((&snapshot["status"], &snapshot["volume_id"]), (&"available".into(), &volume["id"]));
    let copy = alone.json(&["volume", "create", "--snapshot", id(&snapshot)]);
    assert_eq!(
        (&copy["status"], &copy["size"], &copy["snapshot_id"]),
        (&"available".into(), &2.into(), &snapshot["id"])
    );
    let clone = alone.json(&["volume", "create", "3", "--source", id(&copy)]);
    assert_eq!((&clone["size"], &clone["source_volid"]), (&3.into(), &copy["id"]));

    // The database and the API say the same of them.
    for what in [&["volume", "list"][..], &["snapshot", "list"], &["volume", "show", id(&volume)]] {
        assert_eq!(alone.json(what), alone.in_database(what), "{what:?}");
    }
    let services = alone.json(&["service", "list"]);
    assert_eq!((&services[0]["binary"], &services[0]["state"]), (&"cinder-volume".into(), &"up".into()));
    assert_eq!(services[0]["host"], alone.in_database(&["service", "list"])[0]["host"]);
    let table = alone.run(&["volume", "list"]).done();
    assert!(table.lines().next().unwrap().starts_with("ID "), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(alone.json(&["volume", "list", "--status", "error"]), serde_json::json!([]));

    let refused = alone.run(&["volume", "delete", id(&volume)]).failed(1);
    assert!(refused.contains("snapshots"), "{refused}");
    assert!(alone.run(&["snapshot", "delete", id(&snapshot)]).done().contains("deleted"));
    assert_eq!(alone.json(&["volume", "delete", id(&volume), id(&copy), id(&clone)]).as_array().unwrap().len(), 3);
    assert_eq!(alone.json(&["volume", "list"]), serde_json::json!([]));
    for what in ["show", "delete"] {
        assert!(alone.run(&["volume", what, id(&volume)]).failed(3).contains(id(&volume)));
    }
    // The configuration of a stand-alone service says where its front door is.
    let made = scoria(&["--standalone", "--config-file", &alone.conf, "volume", "create", "1", "--no-wait"]);
    assert!(made.done().contains("creating"));
}

#[test]
fn a_volume_that_ends_in_an_error_state_is_no_success() {
    let alone = Alone::start("");
    let volumes = alone.directory.path().join("volumes");
    std::fs::rename(&volumes, alone.directory.path().join("away")).unwrap();
    std::fs::write(&volumes, "no directory").unwrap();
    let error = alone.run(&["volume", "create", "1"]).failed(4);
    let made = alone.json(&["volume", "list"]);
    assert_eq!(made[0]["status"], "error");
    assert!(error.contains(id(&made[0])) && error.contains("status error"), "{error}");
}

/// An operator's lock keeps the deletion from ending; only the wait for it is looked at here, not who takes it up.
#[test]
fn waiting_goes_on_over_the_death_of_the_service() {
    let mut alone = Alone::start("");
    let volume = alone.json(&["volume", "create", "1"]);
    let lock = format!("{}-delete_volume", id(&volume));
    let held = ["--standalone", "--config-file", &alone.conf, "locks", "run", &lock, "--", "sleep", "600"];
    let holder = Background(command(&held).spawn().unwrap());
    let locks = ["--standalone", "--config-file", &alone.conf, "locks", "list"];
    until("the lock is held", || scoria(&locks).done().contains(&lock));

    let mut delete = command(&["--endpoint", &alone.endpoint, "volume", "delete", id(&volume)]);
    let mut delete = delete.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let operations = ["--admin", &alone.admin, "operations", "list"];
    until("it is being deleted", || scoria(&operations).done().contains("delete_volume"));
    // The answer to the request may be a moment behind the work.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(alone.json(&["volume", "show", id(&volume)])["status"], "deleting");
    alone.process.0.kill().unwrap();
    alone.process.0.wait().unwrap();
    let error = alone.run(&["volume", "list"]).failed(69);
    assert!(error.contains(&alone.endpoint), "{error}");
    alone.process = spawn(alone.directory.path(), &alone.conf);
    alone.ready();
    assert!(delete.try_wait().unwrap().is_none(), "it waits on");

    // The restarted service took the deletion up from the row; it ends once the lock is free.
    drop(holder);
    Run::from(delete.wait_with_output().unwrap()).done();
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let alone = Alone::start("auth_token = hush");
    let error = alone.run(&["volume", "list"]).failed(1);
    assert!(error.contains("OS_TOKEN"), "{error}");
    let args = ["--endpoint", &alone.endpoint, "-v", "volume", "list"];
    let with: Run = command(&args).env("OS_TOKEN", "hush").output().unwrap().into();
    assert_eq!(with.code, Some(0), "{with:?}");
    let wrong: Run = command(&args).env("OS_TOKEN", "hush-hush").output().unwrap().into();
    let help: Run = command(&["--help"]).env("OS_TOKEN", "hush").output().unwrap().into();
    for run in [with, wrong, help] {
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{run:?}");
    }
    // The stand-alone service's own configuration has it.
    let made = scoria(&["--standalone", "--config-file", &alone.conf, "volume", "create", "1"]);
    assert_eq!(made.code, Some(0), "{made:?}");
}

#[test]
fn an_address_where_nobody_or_somebody_else_answers_is_unavailable() {
    let url = format!("http://127.0.0.1:{}/v3", scoria_testkit::free_port().unwrap());
    for args in [&["volume", "list"][..], &["volume", "create", "1"], &["snapshot", "list"], &["service", "list"]] {
        let named: Run = scoria(&[&["--endpoint", &url], args].concat());
        assert!(named.failed(69).contains(&url), "{args:?}");
        let in_environment: Run = command(args).env("SCORIA_ENDPOINT", &url).output().unwrap().into();
        assert!(in_environment.failed(69).contains(&url), "{args:?}");
    }
    let alone = Alone::start("");
    assert!(scoria(&["--endpoint", &alone.admin, "volume", "list"]).failed(69).contains("--endpoint"));
    assert_eq!(scoria(&["--endpoint", "ftp://127.0.0.1", "volume", "list"]).failed(2).matches("http://").count(), 1);
}

#[test]
fn changes_need_the_api_and_the_error_says_how_to_name_it() {
    let directory = tempfile::tempdir().unwrap();
    let conf = crate::run::site(directory.path());
    let volume = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11";
    for args in [
        &["volume", "create", "1"][..],
        &["volume", "extend", volume, "2"],
        &["volume", "delete", volume],
        &["snapshot", "create", volume],
        &["snapshot", "delete", volume],
    ] {
        let error = scoria(&[&["--config-file", &conf], args].concat()).failed(2);
        assert!(error.contains("--endpoint URL") && error.contains("--os-token"), "{error}");
    }
    for wrong in [&["volume", "create"][..], &["volume", "create", "0"], &["volume", "show", "../x"]] {
        assert_eq!(scoria(wrong).code, Some(2), "{wrong:?}");
    }
}
