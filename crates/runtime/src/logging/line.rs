//! How a line is made from an event and the spans around it.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Zoned;
use jiff::fmt::strtime::BrokenDownTime;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::LogError;
use super::levels::{level_name, logger};

/// What a span or an event carries.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// For whom the work is done.
const IDENTITY: [&str; 3] = ["request_id", "user", "project"];

/// What is to be said, before it has a form.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) level: Level,
    pub(super) logger: String,
    /// Local time.
    pub(super) now: Zoned,
    pub(super) file: Option<&'a str>,
    pub(super) line: Option<u32>,
    message: String,
    /// The fields of the spans around it.
    pub(super) around: BTreeMap<&'static str, String>,
    /// Its own fields.
    own: BTreeMap<&'static str, String>,
}

impl<'a> Record<'a> {
    /// Records of the `log` crate carry their logger in a field.
    pub(super) fn new(event: &Event<'a>, around: BTreeMap<&'static str, String>) -> Self {
        let metadata = event.metadata();
        let mut own = Fields::default();
        event.record(&mut own);
        let mut own = own.0;
        let message = own.remove("message").unwrap_or_default();
        let target = own.remove("log.target");
        own.retain(|name, _| !name.starts_with("log."));
        Self {
            level: *metadata.level(),
            logger: logger(target.as_deref().unwrap_or(metadata.target())),
            now: Zoned::now(),
            file: metadata.file(),
            line: metadata.line(),
            message,
            around,
            own,
        }
    }

    pub(super) fn level_name(&self) -> &'static str {
        level_name(self.level)
    }

    /// `logging_context_format_string` of oslo.log, with user and project as the identity. Fields of the event follow the
    /// message; they come from users and stay on the line.
    pub(super) fn oslo(&self, date_format: &str) -> String {
        let identity = match self.around.get(IDENTITY[0]) {
            Some(_) => IDENTITY.map(|part| self.around.get(part).map_or("-", String::as_str)).join(" "),
            None => "-".to_owned(),
        };
        let (time, millis, pid) = (self.time(date_format), self.now.millisecond(), std::process::id());
        let (level, name, message) = (self.level_name(), &self.logger, &self.message);
        let mut line = format!("{time}.{millis:03} {pid} {level} {name} [{identity}] {message}");
        for (name, value) in &self.own {
            // To a String: cannot fail.
            let _ = match value.contains(char::is_control) {
                true => write!(line, " {name}={value:?}"),
                false => write!(line, " {name}={value}"),
            };
        }
        line.push('\n');
        line
    }

    /// The keys of `oslo_log/formatters.py: JSONFormatter` that mean something here.
    pub(super) fn json(&self, date_format: &str) -> String {
        let mut context = Map::new();
        let mut extra = Map::new();
        for (name, value) in self.around.iter().chain(&self.own) {
            let of = if IDENTITY.contains(name) { &mut context } else { &mut extra };
            of.insert((*name).to_owned(), value.as_str().into());
        }
        let line = json!({
            "asctime": self.time(date_format),
            "msecs": self.now.millisecond(),
            "levelname": self.level_name(),
            "name": self.logger,
            "process": std::process::id(),
            "pathname": self.file,
            "lineno": self.line,
            "message": self.message,
            "context": Value::Object(context),
            "extra": extra,
        });
        format!("{line}\n")
    }

    /// The format was checked at start.
    fn time(&self, date_format: &str) -> String {
        BrokenDownTime::from(&self.now).to_string(date_format).unwrap_or_default()
    }
}

/// Whether times can be written like this.
pub(super) fn check_date_format(format: &str) -> Result<(), LogError> {
    let written = BrokenDownTime::from(&Zoned::now()).to_string(format);
    written.map(drop).map_err(|error| LogError::DateFormat { format: format.to_owned(), problem: error.to_string() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::logging::DATE_FORMAT;

    /// Of 04:59:27.123 on the second of November, in a zone that is eight hours before Greenwich.
    pub(in crate::logging) fn record(level: Level, message: &str) -> Record<'static> {
        Record {
            level,
            logger: "scoria.test".to_owned(),
            now: "2026-11-02T04:59:27.123-08:00[-08:00]".parse().unwrap(),
            file: Some("test.rs"),
            line: Some(7),
            message: message.to_owned(),
            around: BTreeMap::from([("request_id", "req-1".to_owned())]),
            own: BTreeMap::new(),
        }
    }

    #[test]
    fn the_time_is_local_and_looks_as_it_is_asked_to() {
        let record = record(Level::INFO, "ready");
        let pid = std::process::id();
        let rest = format!("123 {pid} INFO scoria.test [req-1 - -] ready\n");
        assert_eq!(record.oslo(DATE_FORMAT), format!("2026-11-02 04:59:27.{rest}"));
        assert_eq!(record.oslo("%d/%b/%y %I:%M %p %z"), format!("02/Nov/26 04:59 AM -0800.{rest}"));
        let json: Value = serde_json::from_str(&record.json("%H")).unwrap();
        assert_eq!((&json["asctime"], &json["msecs"], &json["lineno"]), (&"04".into(), &123.into(), &7.into()));
    }
}
