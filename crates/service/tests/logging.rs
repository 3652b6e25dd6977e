//! Logging as the configuration asks for it.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use scoria_conf::{Config, LoadArgs, Source};
use scoria_runtime::logging::{Destination, LogFormat, LogOptions};
use scoria_service::log;
use scoria_testkit::{Process, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration with these lines in `[DEFAULT]`.
fn config(directory: &Path, lines: &str) -> Config {
    let file = directory.join("cinder.conf");
    std::fs::write(&file, format!("[DEFAULT]\nenabled_backends = one\n{lines}\n[one]\nvolume_driver = local\n"))
        .unwrap();
    Config::load(&LoadArgs { sources: vec![Source::File(file)], ..LoadArgs::default() }).unwrap()
}

fn options(lines: &str) -> anyhow::Result<LogOptions> {
    log::options(&config(tempfile::tempdir().unwrap().path(), lines))
}

/// In short, where lines go.
fn places(lines: &str) -> Vec<String> {
    let place = |destination: Destination| match destination {
        Destination::Stderr => "stderr".to_owned(),
        Destination::Stdout => "stdout".to_owned(),
        Destination::File(path) => path.display().to_string(),
        Destination::Syslog { socket, facility, name } => format!("{} {facility:?} {name}", socket.display()),
        Destination::Journal { socket, facility, name } => format!("{} {facility:?} {name}", socket.display()),
    };
    options(lines).unwrap().sinks.into_iter().map(|sink| place(sink.destination)).collect()
}

#[test]
fn lines_go_where_oslo_log_would_write_them() {
    let syslog = "/dev/log Facility(1) cinder-volume";
    let journal = "/run/systemd/journal/socket Facility(16) cinder-volume";
    for (lines, expected) in [
        ("", vec!["stderr"]),
        ("log_file = /a/b.log", vec!["/a/b.log"]),
        ("log_dir = /a", vec!["/a/cinder-volume.log"]),
        ("log_dir = /a\nlog_file = b.log\nuse_stderr = true", vec!["/a/b.log", "stderr"]),
        ("use_syslog = true", vec!["stderr", syslog]),
        ("use_journal = true\nsyslog_log_facility = local0", vec![journal]),
        ("use_journal = true\nuse_stderr = true\nsyslog_log_facility = LOG_LOCAL0", vec![journal, "stderr"]),
    ] {
        assert_eq!(places(lines), expected, "{lines}");
    }
    let json = options("use_json = true\nlog_date_format = %s").unwrap();
    assert_eq!((json.sinks[0].format, json.sinks[0].date_format.as_str()), (LogFormat::Json, "%s"));
}

#[test]
fn a_wrong_value_is_named() {
    let error = |lines| format!("{:#}", options(lines).unwrap_err());
    let facility = error("use_syslog = true\nsyslog_log_facility = LOUD");
    assert!(facility.contains("[DEFAULT] syslog_log_facility") && facility.contains("'LOUD'"), "{facility}");
    let missing = error("log_config_append = /no/such/file");
    assert!(missing.contains("log_config_append") && missing.contains("/no/such/file"), "{missing}");
}

/// A stand-alone service, and its directory.
struct Service {
    process: Process,
    directory: tempfile::TempDir,
}

impl Service {
    /// Starts it far in the east with these lines in `[DEFAULT]`; `DIR` stands for its directory.
    fn start(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().display().to_string();
        let (door, admin) = (free_port().unwrap(), free_port().unwrap());
        let text = format!(
            "[DEFAULT]\nstate_path = {dir}\n{}\n[scoria]\napi_listen_port = {door}\nadmin_listen_port = {admin}\n\
             [local]\nlocal_path = {dir}/volumes\n",
            lines.replace("DIR", &dir)
        );
        let conf = directory.path().join("cinder.conf");
        std::fs::write(&conf, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoria-volume"));
        command.args(["--standalone", "--config-file"]).arg(conf).env("TZ", "EAST-9:30").env_remove("NOTIFY_SOCKET");
        let process = Process::spawn("scoria-volume", command, &directory.path().join("output")).unwrap();
        Self { process, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    async fn until(&mut self, name: &str, part: &str) {
        let path = self.file(name);
        let has = async || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(part));
        let what = format!("'{part}' in {name}");
        self.process.ready(&what, PATIENCE, has).await.unwrap();
    }

    async fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM).unwrap();
        assert!(self.process.wait(PATIENCE).await.unwrap().success(), "{}", self.process.log_tail());
    }
}

#[tokio::test]
async fn a_log_file_has_local_time_and_is_opened_afresh_after_rotation() {
    let mut service = Service::start("log_dir = DIR\nlog_file = own.log\nlog_date_format = %Y-%m-%dT%H:%M:%S%z");
    service.until("own.log", " ready\n").await;
    let log = service.text("own.log");
    assert!(log.lines().all(|line| line.contains("+0930.")), "{log}");
    assert_eq!(service.text("output"), "", "nothing goes to the terminal");

    std::fs::rename(service.file("own.log"), service.file("own.log.1")).unwrap();
    service.stop().await;
    assert!(service.text("own.log").contains(" ended\n"));
}

const PYTHON: &str = "[loggers]\nkeys = root, cinder\n[handlers]\nkeys = syslog, file, fluent\n[formatters]\nkeys = json\n\
    [logger_root]\nlevel = WARNING\nhandlers = syslog\n\
    [logger_cinder]\nlevel = INFO\nqualname = cinder\nhandlers = file, fluent\npropagate = 1\n\
    [handler_syslog]\nclass = logging.handlers.SysLogHandler\nargs = ('DIR/syslog', handlers.SysLogHandler.LOG_LOCAL2)\n\
    [handler_file]\nclass = logging.handlers.WatchedFileHandler\nargs = ('DIR/own.log',)\nformatter = json\n\
    [handler_fluent]\nclass = fluent.handler.FluentHandler\nargs = ('cinder.volume', 'localhost', 24224)\n\
    [formatter_json]\nclass = oslo_log.formatters.JSONFormatter\n";

#[tokio::test]
async fn a_configuration_of_pythons_logging_is_honoured_as_far_as_it_goes() {
    // The socket has to be there first, and its path in a file that the configuration names.
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().display().to_string();
    let logging = place.path().join("logging.conf");
    std::fs::write(&logging, PYTHON.replace("DIR", &dir)).unwrap();
    let syslog = UnixDatagram::bind(place.path().join("syslog")).unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = || std::fs::read_to_string(place.path().join("own.log")).unwrap_or_default();

    let mut service = Service::start(&format!("log_config_append = {}\nlog_file = DIR/other.log", logging.display()));
    let ready = async || own().contains("\"message\":\"ready\"");
    service.process.ready("a line that says ready", PATIENCE, ready).await.unwrap();
    let mut message = [0; 65536];
    let length = syslog.recv(&mut message).unwrap();
    let first = String::from_utf8_lossy(&message[..length]).into_owned();
    // 18 * 8 + 4 for a warning: what is not honoured.
    assert!(first.starts_with("<148>") && first.contains(" cinder-volume: "), "{first}");
    assert!(first.contains("handler 'fluent' (fluent.handler.FluentHandler)"), "{first}");
    assert!(own().lines().all(|line| line.starts_with('{')), "{}", own());
    assert!(!service.file("other.log").exists(), "the other options have no effect");

    // A reload reads it again.
    let stderr = PYTHON.replace(
        "[handler_file]\nclass = logging.handlers.WatchedFileHandler\nargs = ('DIR/own.log',)\nformatter = json",
        "[handler_file]\nclass = StreamHandler\nargs = (sys.stdout,)",
    );
    std::fs::write(&logging, stderr.replace("DIR", &dir)).unwrap();
    service.process.signal(Signal::SIGHUP).unwrap();
    service.until("output", "configuration reloaded").await;
    service.stop().await;
    assert!(service.text("output").contains(" INFO scoria.service.daemon [-] ended\n"));
    assert!(!own().contains("\"message\":\"ended\""));
}

#[tokio::test]
async fn without_a_syslog_the_lines_are_not_lost() {
    let missing = !Path::new("/dev/log").exists();
    let mut service = Service::start("use_syslog = true\nlog_file = DIR/own.log");
    service.until("own.log", " ready\n").await;
    if missing {
        service.until("output", " ready\n").await;
    }
    service.stop().await;
}
