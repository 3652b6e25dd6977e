//! Which lines are written.

use std::collections::BTreeMap;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::LogError;

/// A level that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no level: use DEBUG, INFO, WARNING or ERROR")]
pub struct UnknownLevel(String);

/// The parts of Scoria, which are listed even when nobody has set a level for them.
const PARTS: [&str; 11] = [
    "scoria",
    "scoria.api",
    "scoria.conf",
    "scoria.coordination",
    "scoria.db",
    "scoria.drivers",
    "scoria.manager",
    "scoria.model",
    "scoria.rpc",
    "scoria.runtime",
    "scoria.service",
];

/// A level for everything, and levels for names that begin like these; the longest counts.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    root: LevelFilter,
    prefixes: BTreeMap<String, LevelFilter>,
}

impl Levels {
    pub(super) fn new(debug: bool, entries: &[String]) -> Result<Self, LogError> {
        let mut levels = Self { root: LevelFilter::INFO, prefixes: BTreeMap::new() };
        levels.set_debug(debug);
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            let wrong = |source| LogError::Level { entry: entry.clone(), source };
            let (name, level) = entry.split_once('=').ok_or_else(|| wrong(UnknownLevel(String::new())))?;
            let level = parse(level.trim()).map_err(wrong)?;
            match name.trim() {
                "root" => levels.root = level,
                name => drop(levels.prefixes.insert(own_name(name), level)),
            }
        }
        Ok(levels)
    }

    pub(super) fn set_debug(&mut self, debug: bool) {
        self.root = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    }

    /// What was set for longer names is forgotten: `prefix` means all of them.
    pub(super) fn set(&mut self, prefix: &str, level: LevelFilter) {
        let prefix = own_name(prefix);
        self.prefixes.retain(|name, _| !name.starts_with(&prefix));
        if prefix.is_empty() {
            self.root = level;
        } else {
            self.prefixes.insert(prefix, level);
        }
    }

    pub(super) fn list(&self, prefix: &str) -> BTreeMap<String, String> {
        let prefix = own_name(prefix);
        let names = PARTS.iter().copied().chain(self.prefixes.keys().map(String::as_str));
        names.filter(|name| name.starts_with(&prefix)).map(|name| (name.to_owned(), self.of(name).python())).collect()
    }

    fn of(&self, name: &str) -> LevelFilter {
        let longest = self.prefixes.iter().filter(|(prefix, _)| name.starts_with(*prefix)).max_by_key(|(p, _)| p.len());
        longest.map_or(self.root, |(_, level)| *level)
    }

    /// The span of a request is always kept: the lines within it, whatever their level, name the request.
    fn allows(&self, metadata: &Metadata<'_>) -> bool {
        let names_a_request = metadata.is_span() && metadata.fields().field("request_id").is_some();
        names_a_request || *metadata.level() <= self.of(&logger(metadata.target()))
    }
}

/// Asked once for each place in the program, and again after each change: the answer is kept by `tracing`.
impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.allows(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.allows(metadata)
    }

    /// Never below INFO, the level of request spans.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.prefixes.values().copied().chain([self.root, LevelFilter::INFO]).max()
    }
}

/// Reads a level as Python or Rust names it, in any case.
pub(super) fn parse(level: &str) -> Result<LevelFilter, UnknownLevel> {
    match level.to_uppercase().as_str() {
        "TRACE" => Ok(LevelFilter::TRACE),
        "DEBUG" => Ok(LevelFilter::DEBUG),
        "INFO" => Ok(LevelFilter::INFO),
        "WARN" | "WARNING" => Ok(LevelFilter::WARN),
        "ERROR" => Ok(LevelFilter::ERROR),
        // Nothing here is logged at this level, so it silences what it is set for.
        "CRITICAL" => Ok(LevelFilter::OFF),
        _ => Err(UnknownLevel(level.to_owned())),
    }
}

/// Levels by Python's names.
pub(super) trait Python {
    fn python(&self) -> String;
}

impl Python for LevelFilter {
    fn python(&self) -> String {
        self.into_level().map_or_else(|| "CRITICAL".to_owned(), |level| level_name(level).to_owned())
    }
}

/// Python's name of a level. It has no TRACE.
pub(super) fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "ERROR",
        tracing::Level::WARN => "WARNING",
        tracing::Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// The dotted name of a target.
pub(super) fn logger(target: &str) -> String {
    let name = target.replace("::", ".");
    match name.strip_prefix("scoria_") {
        Some(part) => format!("scoria.{part}"),
        None => name,
    }
}

/// `cinder` and what is below it are called `scoria` here.
pub(super) fn own_name(name: &str) -> String {
    match name.strip_prefix("cinder") {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => format!("scoria{rest}"),
        _ => logger(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(debug: bool, entries: &[&str]) -> Levels {
        Levels::new(debug, &entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_longest_prefix_counts() {
        let mut levels = levels(false, &["sqlx=WARN", "sqlx.query=ERROR", "scoria.rpc=debug"]);
        assert_eq!(levels.of("lapin"), LevelFilter::INFO);
        assert_eq!(levels.of("sqlx.pool"), LevelFilter::WARN);
        assert_eq!(levels.of("sqlx.query"), LevelFilter::ERROR);
        assert_eq!(levels.of(&logger("scoria_rpc::amqp")), LevelFilter::DEBUG);
        levels.set_debug(true);
        assert_eq!(levels.of("lapin"), LevelFilter::DEBUG);
        levels.set("sqlx", LevelFilter::DEBUG);
        assert_eq!(levels.of("sqlx.query"), LevelFilter::DEBUG, "a prefix means all names below it");
        levels.set("", LevelFilter::ERROR);
        assert_eq!(levels.of("sqlx.query"), LevelFilter::ERROR);
    }

    #[test]
    fn names_are_listed_as_operators_know_them() {
        let levels = levels(false, &["scoria.manager.create=WARN"]);
        let of_manager = levels.list("cinder.manager");
        let expected = [("scoria.manager", "INFO"), ("scoria.manager.create", "WARNING")];
        assert_eq!(of_manager, expected.map(|(name, level)| (name.to_owned(), level.to_owned())).into());
        assert!(levels.list("").len() > PARTS.len());
    }

    #[test]
    fn wrong_levels_are_named() {
        let error = Levels::new(false, &["sqlx=LOUD".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "default_log_levels: 'sqlx=LOUD': 'LOUD' is no level: use DEBUG, INFO, WARNING or ERROR"
        );
        assert!(Levels::new(false, &["sqlx".to_owned()]).is_err());
    }
}
