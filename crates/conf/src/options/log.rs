//! `[DEFAULT]`: logging.

use std::path::PathBuf;

use super::spec::{BOOL, LIST, STR, options};

options! {
    /// `[DEFAULT]`: logging (`oslo_log/_options.py`).
    pub struct LogOptions in "DEFAULT" => {
        /// Whether to log at level DEBUG instead of INFO. A reload (SIGHUP) changes it.
        debug: bool = BOOL.default("false").mutable();
        /// The file to log to, below `log_dir` when it is relative. Unset: standard error.
        log_file: Option<PathBuf> = STR.deprecated(&[("", "logfile")]);
        /// The directory of `log_file`; alone it gives `cinder-volume.log` there.
        log_dir: Option<PathBuf> = STR.deprecated(&[("", "logdir")]);
        /// Whether to log to standard error as well as to a file.
        use_stderr: bool = BOOL.default("false");
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
