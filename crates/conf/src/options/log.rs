//! `[DEFAULT]`: logging.

use std::path::PathBuf;

use super::spec::{BOOL, LIST, STR, options};

options! {
    /// `[DEFAULT]`: logging (`oslo_log/_options.py`).
    pub struct LogOptions in "DEFAULT" => {
        /// Whether to log at level DEBUG instead of INFO. A reload (SIGHUP) changes it.
        debug: bool = BOOL.default("false").mutable();
        /// The file to log to, below `log_dir` when it is relative. Unset, and without `use_journal`: standard error. One that
        /// was moved away is opened afresh.
        log_file: Option<PathBuf> = STR.deprecated(&[("", "logfile")]);
        /// The directory of `log_file`; alone it gives `cinder-volume.log` there.
        log_dir: Option<PathBuf> = STR.deprecated(&[("", "logdir")]);
        /// A configuration of Python's logging module (`fileConfig`). What it says replaces all other options about logging: levels, and
        /// handlers to streams, files, syslog and the journal. What Scoria cannot do, one warning at start names.
        log_config_append: Option<PathBuf> = STR.deprecated(&[("", "log-config"), ("", "log_config")]).mutable();
        /// How the time looks, in strftime's letters; milliseconds follow it. It is local time.
        log_date_format: String = STR.default("%Y-%m-%d %H:%M:%S");
        /// Whether to log to standard error as well as to a file or the journal.
        use_stderr: bool = BOOL.default("false");
        /// Whether to log to syslog (`/dev/log`), too. Lines that it does not take go to standard error.
        use_syslog: bool = BOOL.default("false");
        /// Whether to log to systemd's journal, with request and logger as fields. Lines that it does not take go to standard error.
        use_journal: bool = BOOL.default("false");
        /// The facility of lines in syslog and in the journal: `LOG_USER`, `LOG_DAEMON`, `LOG_LOCAL0`, …
        syslog_log_facility: String = STR.default("LOG_USER");
        /// Whether each line is a JSON object; `[scoria] log_format` says the same.
        use_json: bool = BOOL.default("false");
        /// Levels of single loggers, as NAME=LEVEL. Names are those of Scoria's parts (`scoria.manager`) and of Rust crates (`sqlx`); other names,
        /// such as those of Python libraries, do no harm.
        default_log_levels: Vec<String> = LIST.default(
            "lapin=WARN,sqlx=WARN,hyper=WARN,h2=WARN,rustls=WARN,zookeeper_client=WARN",
        );
        /// Whether the effective options are logged at start, without secrets.
        log_options: bool = BOOL.default("true");
    }
}

impl LogOptions {
    /// The file that `log_dir` and `log_file` give together (`oslo_log/log.py: _get_log_file_path`).
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match (&self.log_dir, &self.log_file) {
            (Some(dir), Some(file)) => Some(dir.join(file)),
            (Some(dir), None) => Some(dir.join("cinder-volume.log")),
            (None, file) => file.clone(),
        }
    }
}
