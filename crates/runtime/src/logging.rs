//! Log lines as oslo.log writes them, or JSON; where they go; levels that can be changed while running.
//!
//! Names are dotted, as in Python: the target `scoria_manager::create` is the logger `scoria.manager.create`. A span with
//! the fields `request_id`, `user` and `project` gives every line within it its request.

mod facility;
mod levels;
mod line;
mod printer;
mod sink;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

pub use facility::{Facility, UnknownFacility};
use levels::Levels;
pub use levels::UnknownLevel;
use printer::{Printer, Sinks};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `2026-11-22 04:59:27.123 12345 INFO scoria.manager [req-… user project] message`.
    #[default]
    Oslo,
    /// One object with the keys of `oslo_log/formatters.py: JSONFormatter`.
    Json,
}

/// `[DEFAULT] log_date_format` of oslo.log.
pub const DATE_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Where the system's syslog listens.
pub const SYSLOG_SOCKET: &str = "/dev/log";

/// Where systemd's journal listens.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file. One that was moved away is opened afresh.
    File(PathBuf),
    /// A local syslog.
    Syslog {
        /// Its socket: [`SYSLOG_SOCKET`].
        socket: PathBuf,
        /// Which kind of service we are.
        facility: Facility,
        /// What we are called.
        name: String,
    },
    /// systemd's journal, with the fields of `oslo_log/handlers.py: OSJournalHandler`.
    Journal {
        /// Its socket: [`JOURNAL_SOCKET`].
        socket: PathBuf,
        /// Which kind of service we are.
        facility: Facility,
        /// What we are called.
        name: String,
    },
}

/// One place for lines. What it cannot take goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Where to.
    pub destination: Destination,
    /// How a line looks.
    pub format: LogFormat,
    /// `strftime` format of the time, which is local; milliseconds follow it.
    pub date_format: String,
    /// Lines below this level are left out.
    pub least: Option<String>,
}

impl Sink {
    /// Oslo lines of every level.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        Self { destination, format: LogFormat::Oslo, date_format: DATE_FORMAT.to_owned(), least: None }
    }
}

/// What becomes of the lines of the loggers whose names begin like this one's, as Python's loggers have it: they go to its
/// sinks, and then on to the next shorter name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The logger; empty for the root.
    pub logger: String,
    /// Which of [`LogOptions::sinks`].
    pub sinks: Vec<usize>,
    /// Whether they go on.
    pub propagate: bool,
}

/// How to log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// DEBUG instead of INFO, where `default_levels` say nothing else.
    pub debug: bool,
    /// `NAME=LEVEL`, as in `[DEFAULT] default_log_levels`; `root=LEVEL` for all that have none.
    pub default_levels: Vec<String>,
    /// Where lines go; none: to standard error.
    pub sinks: Vec<Sink>,
    /// Which lines go where; none: all of them everywhere.
    pub routes: Vec<Route>,
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
    /// The date format is wrong.
    #[error("log_date_format = {format}: {problem}; use strftime's letters, as in {DATE_FORMAT}")]
    DateFormat {
        /// The format.
        format: String,
        /// Why.
        problem: String,
    },
    /// It has begun already.
    #[error("logging is already set up in this process")]
    Twice,
}

/// Changes levels and sinks while running: for SIGHUP and for the calls `set_log_levels` and `get_log_levels`.
#[derive(Debug, Clone)]
pub struct LogHandle {
    levels: reload::Handle<Levels, Registry>,
    sinks: Arc<Sinks>,
}

/// Begins logging, for the whole process.
///
/// # Errors
/// [`LogError`]; nothing has begun then.
pub fn init(options: LogOptions) -> Result<LogHandle, LogError> {
    let levels = Levels::new(options.debug, &options.default_levels)?;
    let sinks = Arc::new(Sinks::open(options.sinks, options.routes)?);
    let (filter, levels) = reload::Layer::new(levels);
    let printer = Printer::new(sinks.clone());
    tracing_subscriber::registry().with(filter).with(printer).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogHandle { levels, sinks })
}

impl LogHandle {
    /// Logs like this from now on; levels that were set by [`LogHandle::set_level`] are forgotten.
    ///
    /// # Errors
    /// [`LogError`]; nothing has changed then.
    pub fn apply(&self, options: LogOptions) -> Result<(), LogError> {
        let levels = Levels::new(options.debug, &options.default_levels)?;
        self.sinks.replace(options.sinks, options.routes)?;
        self.modify(|current| *current = levels);
        Ok(())
    }

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
        self.levels.with_current(|levels| levels.list(prefix)).unwrap_or_default()
    }

    /// It fails only when the subscriber is gone, and with it every line that a level could hold back.
    fn modify(&self, change: impl FnOnce(&mut Levels)) {
        let _ = self.levels.modify(change);
    }
}
