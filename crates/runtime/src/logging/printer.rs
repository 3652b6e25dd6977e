//! From events to the sinks that they go to.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as NewValues};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::levels::{own_name, parse};
use super::line::{Fields, Record, check_date_format};
use super::sink::Output;
use super::{Destination, LogError, LogFormat, Route, Sink};

/// Writes a line for each event to every sink that its logger leads to.
#[derive(Debug)]
pub(super) struct Printer(Arc<Sinks>);

/// The sinks, which can be replaced while lines are written.
#[derive(Debug)]
pub(super) struct Sinks(RwLock<Routing>);

#[derive(Debug)]
struct Routing {
    sinks: Vec<Handler>,
    /// The longest name first.
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Handler {
    output: Output,
    format: LogFormat,
    date_format: String,
    least: LevelFilter,
}

impl Printer {
    pub(super) fn new(sinks: Arc<Sinks>) -> Self {
        Self(sinks)
    }
}

impl Sinks {
    pub(super) fn open(sinks: Vec<Sink>, routes: Vec<Route>) -> Result<Self, LogError> {
        Routing::open(sinks, routes).map(|routing| Self(RwLock::new(routing)))
    }

    /// Nothing has changed after an error.
    pub(super) fn replace(&self, sinks: Vec<Sink>, routes: Vec<Route>) -> Result<(), LogError> {
        let routing = Routing::open(sinks, routes)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = routing;
        Ok(())
    }
}

impl Routing {
    fn open(mut sinks: Vec<Sink>, mut routes: Vec<Route>) -> Result<Self, LogError> {
        if sinks.is_empty() {
            sinks.push(Sink::new(Destination::Stderr));
        }
        if routes.is_empty() {
            routes.push(Route { logger: String::new(), sinks: (0..sinks.len()).collect(), propagate: false });
        }
        for route in &mut routes {
            route.logger = own_name(&route.logger);
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.logger.len()));
        Ok(Self { sinks: sinks.into_iter().map(Handler::open).collect::<Result<_, _>>()?, routes })
    }

    fn write(&self, record: &Record<'_>) {
        let named = |route: &&Route| {
            let rest = record.logger.strip_prefix(&route.logger);
            rest.is_some_and(|rest| route.logger.is_empty() || rest.is_empty() || rest.starts_with('.'))
        };
        for route in self.routes.iter().filter(named) {
            for sink in route.sinks.iter().filter_map(|sink| self.sinks.get(*sink)) {
                sink.write(record);
            }
            if !route.propagate {
                return;
            }
        }
    }
}

impl Handler {
    fn open(sink: Sink) -> Result<Self, LogError> {
        let Sink { destination, format, date_format, least } = sink;
        check_date_format(&date_format)?;
        let least = least.map_or(Ok(LevelFilter::TRACE), |least| {
            parse(&least).map_err(|source| LogError::Level { entry: least, source })
        });
        Ok(Self { output: Output::open(destination)?, format, date_format, least: least? })
    }

    fn write(&self, record: &Record<'_>) {
        if record.level > self.least {
            return;
        }
        let line = match self.format {
            LogFormat::Oslo => record.oslo(&self.date_format),
            LogFormat::Json => record.json(&self.date_format),
        };
        self.output.write(&line, record);
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

    fn on_record(&self, id: &Id, values: &NewValues<'_>, context: Context<'_, S>) {
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
        let routing = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        routing.write(&Record::new(event, around.0));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, reload};

    use super::super::levels::Levels;
    use super::super::{LogHandle, LogOptions};
    use super::*;

    struct Files(Vec<PathBuf>);

    impl Files {
        fn new(test: &str, count: usize) -> Self {
            let name = |index| format!("scoria-printer-{test}-{index}-{}", std::process::id());
            Self((0..count).map(|index| std::env::temp_dir().join(name(index))).collect())
        }

        fn sinks(&self) -> Vec<Sink> {
            self.0.iter().map(|path| Sink::new(Destination::File(path.clone()))).collect()
        }

        fn lines(&self, index: usize) -> Vec<String> {
            std::fs::read_to_string(&self.0[index]).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            for path in &self.0 {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn logged(sinks: Vec<Sink>, routes: Vec<Route>, work: impl FnOnce(&LogHandle)) {
        let (filter, levels) = reload::Layer::<_, Registry>::new(Levels::new(false, &[]).unwrap());
        let sinks = Arc::new(Sinks::open(sinks, routes).unwrap());
        let subscriber = tracing_subscriber::registry().with(filter).with(Printer::new(sinks.clone()));
        tracing::subscriber::with_default(subscriber, || work(&LogHandle { levels, sinks }));
    }

    #[test]
    fn a_line_names_time_process_level_logger_and_request() {
        let files = Files::new("oslo", 1);
        logged(files.sinks(), Vec::new(), |_| {
            tracing::info!("ready");
            let request =
                tracing::info_span!("request", request_id = "req-1", user = "u1", project = tracing::field::Empty);
            let _entered = request.enter();
            tracing::warn!(volume = "v1\nv2", size = 3, "slow");
            request.record("project", "p1");
            tracing::info_span!("step", name = "create").in_scope(|| tracing::error!("failed"));
        });
        let name = "scoria.runtime.logging.printer.tests";
        let pid = std::process::id();
        let endings = [
            format!("{pid} INFO {name} [-] ready"),
            format!("{pid} WARNING {name} [req-1 u1 -] slow size=3 volume=\"v1\\nv2\""),
            format!("{pid} ERROR {name} [req-1 u1 p1] failed"),
        ];
        let lines = files.lines(0);
        assert_eq!(lines.len(), endings.len());
        for (line, ending) in lines.iter().zip(endings) {
            let (time, rest) = line.split_at("2026-11-22 04:59:27.123 ".len());
            assert_eq!(rest, ending);
            assert!(time.as_bytes()[10] == b' ' && time.as_bytes()[19] == b'.', "{time}");
        }
    }

    #[test]
    fn a_json_line_has_oslos_keys() {
        let files = Files::new("json", 1);
        let sinks = files.sinks().into_iter().map(|sink| Sink { format: LogFormat::Json, ..sink }).collect();
        logged(sinks, Vec::new(), |_| {
            let span = tracing::info_span!("request", request_id = "req-1", user = "u1", project = "p1", volume = "v1");
            span.in_scope(|| tracing::error!(error = "no \"space\"", "failed\ntwice"));
        });
        let line: Value = serde_json::from_str(&files.lines(0)[0]).unwrap();
        assert_eq!(line["message"], "failed\ntwice");
        assert_eq!(line["levelname"], "ERROR");
        assert_eq!(line["context"], json!({"request_id": "req-1", "user": "u1", "project": "p1"}));
        assert_eq!(line["extra"], json!({"volume": "v1", "error": "no \"space\""}));
        assert!(line["msecs"].is_u64() && line["asctime"].as_str().unwrap().len() == 19, "{line}");
    }

    #[test]
    fn levels_change_while_running_and_requests_stay_known() {
        let files = Files::new("levels", 1);
        logged(files.sinks(), Vec::new(), |handle| {
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
        let lines = files.lines(0);
        let ends: Vec<_> = lines.iter().map(|line| line.split("[req-1 - -] ").nth(1).unwrap()).collect();
        let expected =
            ["info 0", "error 0", "debug 1", "info 1", "error 1", "error 2", "info 3", "error 3", "info 4", "error 4"];
        assert_eq!(ends, expected);
    }

    #[test]
    fn loggers_lead_to_their_sinks_and_on() {
        let files = Files::new("routes", 3);
        let mut sinks = files.sinks();
        sinks[1].least = Some("ERROR".to_owned());
        let route = |logger: &str, sink, propagate| Route { logger: logger.to_owned(), sinks: vec![sink], propagate };
        let routes = vec![route("", 0, false), route("cinder.manager", 1, true), route("sqlx", 2, false)];
        logged(sinks, routes, |_| {
            tracing::info!(target: "scoria_manager::create", "one");
            tracing::error!(target: "scoria_manager", "two");
            tracing::info!(target: "scoria_managers", "three");
            tracing::info!(target: "sqlx::query", "four");
        });
        let said = |index| -> Vec<_> {
            files.lines(index).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(
            (said(0), said(1), said(2)),
            (vec!["one".into(), "two".into(), "three".into()], vec!["two".into()], vec!["four".into()])
        );
    }

    #[test]
    fn everything_can_be_replaced_while_running() {
        let files = Files::new("replaced", 2);
        let options = |sink: &Sink| LogOptions { sinks: vec![sink.clone()], ..LogOptions::default() };
        let sinks = files.sinks();
        logged(vec![sinks[0].clone()], Vec::new(), |handle| {
            tracing::info!("one");
            let wrong = Sink { date_format: "%!".to_owned(), ..sinks[1].clone() };
            assert!(handle.apply(LogOptions { debug: true, ..options(&wrong) }).is_err());
            tracing::debug!("nothing has changed");
            handle.apply(LogOptions { debug: true, ..options(&sinks[1]) }).unwrap();
            tracing::debug!("two");
        });
        assert!(files.lines(0).len() == 1 && files.lines(0)[0].ends_with("one"));
        assert!(files.lines(1).len() == 1 && files.lines(1)[0].ends_with("two"));
    }

    #[test]
    fn a_wrong_sink_is_named() {
        let sink = Sink { least: Some("LOUD".to_owned()), ..Sink::new(Destination::Stderr) };
        assert!(Sinks::open(vec![sink], Vec::new()).unwrap_err().to_string().contains("LOUD"));
        let sink = Sink { date_format: "%Y %!".to_owned(), ..Sink::new(Destination::Stderr) };
        let error = Sinks::open(vec![sink], Vec::new()).unwrap_err().to_string();
        assert!(error.contains("log_date_format = %Y %!"), "{error}");
    }
}
