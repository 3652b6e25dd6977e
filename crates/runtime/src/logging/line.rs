//! How a line is made from an event and the spans around it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::levels::{level_name, logger};
use super::output::Output;

/// What a span or an event carries.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

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

/// Writes one line for each event.
#[derive(Debug)]
pub(super) struct Printer {
    format: LogFormat,
    output: Output,
}

impl Printer {
    pub(super) fn new(format: LogFormat, output: Output) -> Self {
        Self { format, output }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Printer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut around = Fields::default();
        // From the outside in: the inner span's word counts.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                around.0.extend(fields.0.iter().map(|(name, value)| (*name, value.clone())));
            }
        }
        let mut own = Fields::default();
        event.record(&mut own);
        let line = match self.format {
            LogFormat::Oslo => oslo(event.metadata(), OffsetDateTime::now_utc(), &around, own),
            LogFormat::Json => json_line(event.metadata(), OffsetDateTime::now_utc(), around, own),
        };
        self.output.write(&line);
    }
}

/// The message and the logger's name; records of the `log` crate carry theirs in fields.
fn message_and_name(metadata: &Metadata<'_>, own: &mut Fields) -> (String, String) {
    let message = own.0.remove("message").unwrap_or_default();
    let target = own.0.remove("log.target");
    own.0.retain(|name, _| !name.starts_with("log."));
    (message, logger(target.as_deref().unwrap_or(metadata.target())))
}

/// `logging_context_format_string` of oslo.log, with user and project as the identity. Fields of the event follow the message.
fn oslo(metadata: &Metadata<'_>, now: OffsetDateTime, around: &Fields, mut own: Fields) -> String {
    let (message, name) = message_and_name(metadata, &mut own);
    let identity = match around.0.get(IDENTITY[0]) {
        Some(_) => IDENTITY.map(|part| around.0.get(part).map_or("-", String::as_str)).join(" "),
        None => "-".to_owned(),
    };
    let pid = std::process::id();
    let mut line = format!("{} {pid} {} {name} [{identity}] {message}", timestamp(now), level_name(*metadata.level()));
    for (name, value) in &own.0 {
        let _ = write!(line, " {name}={value}"); // to a String: cannot fail
    }
    line.push('\n');
    line
}

/// The keys of `oslo_log/formatters.py: JSONFormatter` that mean something here.
fn json_line(metadata: &Metadata<'_>, now: OffsetDateTime, mut around: Fields, mut own: Fields) -> String {
    let (message, name) = message_and_name(metadata, &mut own);
    let mut context = Map::new();
    for part in IDENTITY {
        if let Some(value) = around.0.remove(part) {
            context.insert(part.to_owned(), value.into());
        }
    }
    around.0.extend(own.0);
    let extra: Map<String, Value> = around.0.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let line = json!({
        "asctime": timestamp(now),
        "levelname": level_name(*metadata.level()),
        "name": name,
        "process": std::process::id(),
        "pathname": metadata.file(),
        "lineno": metadata.line(),
        "message": message,
        "context": context,
        "extra": extra,
    });
    format!("{line}\n")
}

fn timestamp(now: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    now.format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, reload};

    use super::super::LogHandle;
    use super::super::levels::Levels;
    use super::*;

    /// What `work` logs, and the handle it may change levels with.
    fn logged(test: &str, format: LogFormat, work: impl FnOnce(&LogHandle)) -> Vec<String> {
        let path = std::env::temp_dir().join(format!("scoria-line-{test}-{}", std::process::id()));
        let output = Output::open(Some(path.clone()), false).unwrap();
        let (filter, handle) = reload::Layer::<_, Registry>::new(Levels::new(false, &[]).unwrap());
        let subscriber = tracing_subscriber::registry().with(filter).with(Printer::new(format, output));
        tracing::subscriber::with_default(subscriber, || work(&LogHandle(handle)));
        let text = std::fs::read_to_string(Path::new(&path)).unwrap();
        std::fs::remove_file(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_names_time_process_level_logger_and_request() {
        let lines = logged("oslo", LogFormat::Oslo, |_| {
            tracing::info!("ready");
            let request =
                tracing::info_span!("request", request_id = "req-1", user = "u1", project = tracing::field::Empty);
            let _entered = request.enter();
            tracing::warn!(volume = "v1", size = 3, "slow");
            request.record("project", "p1");
            tracing::info_span!("step", name = "create").in_scope(|| tracing::error!("failed"));
        });
        let name = "scoria.runtime.logging.line.tests";
        let pid = std::process::id();
        let endings = [
            format!("{pid} INFO {name} [-] ready"),
            format!("{pid} WARNING {name} [req-1 u1 -] slow size=3 volume=v1"),
            format!("{pid} ERROR {name} [req-1 u1 p1] failed"),
        ];
        assert_eq!(lines.len(), endings.len());
        for (line, ending) in lines.iter().zip(endings) {
            let (time, rest) = line.split_at("2026-11-22 04:59:27.123 ".len());
            assert_eq!(rest, ending);
            assert!(time.as_bytes()[10] == b' ' && time.as_bytes()[19] == b'.', "{time}");
        }
    }

    #[test]
    fn a_json_line_has_oslos_keys() {
        let lines = logged("json", LogFormat::Json, |_| {
            let span = tracing::info_span!("request", request_id = "req-1", user = "u1", project = "p1", volume = "v1");
            span.in_scope(|| tracing::error!(error = "no \"space\"", "failed\ntwice"));
        });
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], "failed\ntwice");
        assert_eq!(line["levelname"], "ERROR");
        assert_eq!(line["context"], json!({"request_id": "req-1", "user": "u1", "project": "p1"}));
        assert_eq!(line["extra"], json!({"volume": "v1", "error": "no \"space\""}));
    }

    #[test]
    fn levels_change_while_running_and_requests_stay_known() {
        let lines = logged("levels", LogFormat::Oslo, |handle| {
            for step in 0..5 {
                match step {
                    1 => handle.set_debug(true),
                    2 => handle.set_level("cinder", "error").unwrap(),
                    3 => handle.set_level("scoria.runtime", "INFO").unwrap(),
                    4 => assert!(handle.set_level("scoria", "loud").is_err()),
                    _ => {}
                }
                let span = tracing::info_span!("request", request_id = "req-1");
                span.in_scope(|| {
                    tracing::debug!("debug {step}");
                    tracing::info!("info {step}");
                    tracing::error!("error {step}");
                });
            }
            assert_eq!(handle.levels("scoria.runtime")["scoria.runtime"], "INFO");
            assert_eq!(handle.levels("cinder.db")["scoria.db"], "ERROR");
        });
        let ends: Vec<_> = lines.iter().map(|line| line.split("[req-1 - -] ").nth(1).unwrap()).collect();
        let expected =
            ["info 0", "error 0", "debug 1", "info 1", "error 1", "error 2", "info 3", "error 3", "info 4", "error 4"];
        assert_eq!(ends, expected);
    }
}
