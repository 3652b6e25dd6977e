//! From options to logging (`oslo_log/log.py: setup`).

use std::path::{Path, PathBuf};

use anyhow::Context;
use scoria_conf::python_logging::{self, Handler, HandlerTo, PythonLogging};
use scoria_conf::{Config, LogOptions as Section};
use scoria_runtime::logging::{
    DATE_FORMAT, Destination, Facility, JOURNAL_SOCKET, LogFormat, LogHandle, LogOptions, Route, SYSLOG_SOCKET, Sink,
};

/// What syslog and the journal call us: rules for the Python service's lines hold for ours.
const NAME: &str = "cinder-volume";

/// How the services of a configuration log.
///
/// # Errors
/// For values that cannot be, and for a `log_config_append` that cannot be read.
pub fn options(config: &Config) -> anyhow::Result<LogOptions> {
    let mut options = match &config.log.log_config_append {
        Some(path) => of_python(python_logging::read(path).context("[DEFAULT] log_config_append")?)?,
        None => of_section(config)?,
    };
    options.debug = config.log.debug;
    // It reports as errors what our own supervisor handles and reports in its own words.
    options.default_levels.push("lapin=CRITICAL".to_owned());
    Ok(options)
}

/// What of `log_config_append` has no effect, as one line for the log.
#[must_use]
pub fn ignored(config: &Config) -> Option<String> {
    let path = config.log.log_config_append.as_deref()?;
    let ignored = python_logging::read(path).ok()?.ignored;
    (!ignored.is_empty()).then(|| warning(path, &ignored))
}

fn warning(path: &Path, ignored: &[String]) -> String {
    format!(
        "[DEFAULT] log_config_append = {}: without effect, as they are Python's own: {}",
        path.display(),
        ignored.join(", ")
    )
}

/// The options in force, without secrets, at level DEBUG (`[DEFAULT] log_options`).
pub fn options_in_force(config: &Config) {
    if !config.log.log_options {
        return;
    }
    for shown in config.show().unwrap_or_default() {
        tracing::debug!("{shown}");
    }
}

/// After a reload. Levels that were set by RPC outlive it, unless a logging configuration is read again.
///
/// # Errors
/// As [`options`]; nothing has changed then.
pub fn reload(log: &LogHandle, before: &Config, now: &Config) -> anyhow::Result<()> {
    if before.log.log_config_append.is_none() && now.log.log_config_append.is_none() {
        log.set_debug(now.log.debug);
        return Ok(());
    }
    log.apply(options(now)?)?;
    if let Some(warning) = ignored(now) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

fn of_section(config: &Config) -> anyhow::Result<LogOptions> {
    let Section { use_stderr, use_journal, use_syslog, default_log_levels, .. } = &config.log;
    let facility = || facility(&config.log.syslog_log_facility).context("[DEFAULT] syslog_log_facility");
    let mut to: Vec<Destination> = config.log.path().map(Destination::File).into_iter().collect();
    if *use_journal {
        to.push(Destination::Journal { socket: JOURNAL_SOCKET.into(), facility: facility()?, name: NAME.to_owned() });
    }
    // As oslo.log has it, syslog alone does not silence the terminal.
    if *use_stderr || to.is_empty() {
        to.push(Destination::Stderr);
    }
    if *use_syslog {
        to.push(Destination::Syslog { socket: SYSLOG_SOCKET.into(), facility: facility()?, name: NAME.to_owned() });
    }
    let json = config.log.use_json || config.scoria.log_format == "json";
    let sink = |destination| Sink {
        format: format(json),
        date_format: config.log.log_date_format.clone(),
        ..Sink::new(destination)
    };
    Ok(LogOptions {
        default_levels: default_log_levels.clone(),
        sinks: to.into_iter().map(sink).collect(),
        ..LogOptions::default()
    })
}

/// What is honoured of a Python configuration. With no handler that we know, lines go to standard error: none is lost.
fn of_python(python: PythonLogging) -> anyhow::Result<LogOptions> {
    let sinks = python.handlers.into_iter().map(sink).collect::<anyhow::Result<Vec<_>>>()?;
    let route = |logger: python_logging::Logger| Route {
        logger: logger.name,
        sinks: logger.handlers,
        propagate: logger.propagate,
    };
    let routes = if sinks.is_empty() { Vec::new() } else { python.loggers.into_iter().map(route).collect() };
    Ok(LogOptions { default_levels: python.levels, sinks, routes, ..LogOptions::default() })
}

fn sink(handler: Handler) -> anyhow::Result<Sink> {
    let facility = |named: Option<String>| named.as_deref().map_or(Ok(Facility::USER), facility);
    let destination = match handler.to {
        HandlerTo::Stdout => Destination::Stdout,
        HandlerTo::Stderr => Destination::Stderr,
        HandlerTo::File(path) => Destination::File(path),
        HandlerTo::Syslog { socket, facility: named } => Destination::Syslog {
            socket: socket.unwrap_or_else(|| PathBuf::from(SYSLOG_SOCKET)),
            facility: facility(named)?,
            name: NAME.to_owned(),
        },
        HandlerTo::Journal { facility: named } => {
            Destination::Journal { socket: JOURNAL_SOCKET.into(), facility: facility(named)?, name: NAME.to_owned() }
        }
    };
    Ok(Sink {
        destination,
        format: format(handler.json),
        date_format: handler.date_format.unwrap_or_else(|| DATE_FORMAT.to_owned()),
        least: handler.level,
    })
}

fn format(json: bool) -> LogFormat {
    if json { LogFormat::Json } else { LogFormat::Oslo }
}

fn facility(name: &str) -> anyhow::Result<Facility> {
    Ok(name.parse()?)
}
