//! Log lines as oslo.log writes them, or JSON; levels that can be changed while running.
//!
//! Names are dotted, as in Python: the target `scoria_manager::create` is the logger `scoria.manager.create`. A span with
//! the fields `request_id`, `user` and `project` gives every line within it its request.

mod levels;
mod line;
mod output;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use levels::Levels;
pub use levels::UnknownLevel;
use line::Printer;
use output::Output;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `2026-11-22 04:59:27.123 12345 INFO scoria.manager [req-… user project] message`. The time is UTC.
    #[default]
    Oslo,
    /// One object with the keys of `oslo_log/formatters.py: JSONFormatter`.
    Json,
}

/// How to log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// DEBUG instead of INFO, where `default_levels` say nothing else.
    pub debug: bool,
    /// How a line looks.
    pub format: LogFormat,
    /// Where to; `None`: standard error. A file that was moved away is opened afresh.
    pub log_file: Option<PathBuf>,
    /// To standard error as well as to the file.
    pub use_stderr: bool,
    /// `NAME=LEVEL`, as in `[DEFAULT] default_log_levels`.
    pub default_levels: Vec<String>,
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("log file {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of the `default_levels` is wrong.
    #[error("default_log_levels: '{entry}': {source}")]
    Level {
        /// Which one.
        entry: String,
        /// Why.
        source: UnknownLevel,
    },
    /// It has begun already.
    #[error("logging is already set up in this process")]
    Twice,
}

/// Changes levels while running: for SIGHUP and for the calls `set_log_levels` and `get_log_levels`.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<Levels, Registry>);

/// Begins logging, for the whole process.
///
/// # Errors
/// [`LogError`]; nothing has begun then.
pub fn init(options: LogOptions) -> Result<LogHandle, LogError> {
    let levels = Levels::new(options.debug, &options.default_levels)?;
    let output = Output::open(options.log_file, options.use_stderr)?;
    let (filter, handle) = reload::Layer::new(levels);
    let printer = Printer::new(options.format, output);
    tracing_subscriber::registry().with(filter).with(printer).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogHandle(handle))
}

impl LogHandle {
    /// Switches between DEBUG and INFO where no other level is set.
    pub fn set_debug(&self, debug: bool) {
        self.modify(|levels| levels.set_debug(debug));
    }

    /// Sets the level of the loggers whose names begin with `prefix`; of all when it is empty. `cinder` stands for
    /// `scoria`: operators know that name.
    ///
    /// # Errors
    /// [`UnknownLevel`]; nothing has changed then.
    pub fn set_level(&self, prefix: &str, level: &str) -> Result<(), UnknownLevel> {
        let level = levels::parse(level)?;
        self.modify(|levels| levels.set(prefix, level));
        Ok(())
    }

    /// The loggers whose names begin with `prefix`, with their levels as Python names them (`WARNING`).
    #[must_use]
    pub fn levels(&self, prefix: &str) -> BTreeMap<String, String> {
        self.0.with_current(|levels| levels.list(prefix)).unwrap_or_default()
    }

    /// It fails only when the subscriber is gone, and with it every line that a level could hold back.
    fn modify(&self, change: impl FnOnce(&mut Levels)) {
        let _ = self.0.modify(change);
    }
}
