//! Configurations of Python's logging module, as `[DEFAULT] log_config_append` names them (`logging.config.fileConfig`): what of
//! them a service that is not written in Python can honour, and what not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::ini;

/// What such a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PythonLogging {
    /// `NAME=LEVEL`; the root logger is called `root`.
    pub levels: Vec<String>,
    /// The handlers that can be honoured.
    pub handlers: Vec<Handler>,
    /// The loggers that have handlers, the root logger with the empty name.
    pub loggers: Vec<Logger>,
    /// What cannot be honoured, each in some words.
    pub ignored: Vec<String>,
}

/// A place for lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Where they go.
    pub to: HandlerTo,
    /// Whether they are JSON objects.
    pub json: bool,
    /// `strftime` format of the time, where the formatter has one.
    pub date_format: Option<String>,
    /// Lines below this level are left out.
    pub level: Option<String>,
}

/// Where a handler's lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerTo {
    /// `sys.stdout`.
    Stdout,
    /// `sys.stderr`.
    Stderr,
    /// A file, opened afresh when it was moved away.
    File(PathBuf),
    /// A local syslog.
    Syslog {
        /// Its socket; the system's when there is none.
        socket: Option<PathBuf>,
        /// Its facility, where one is named.
        facility: Option<String>,
    },
    /// systemd's journal.
    Journal {
        /// Its facility, where one is named.
        facility: Option<String>,
    },
}

/// A logger's handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logger {
    /// The dotted name.
    pub name: String,
    /// Which of [`PythonLogging::handlers`].
    pub handlers: Vec<usize>,
    /// Whether the lines go on to the handlers of shorter names, too.
    pub propagate: bool,
}

type Section<'a> = BTreeMap<String, &'a str>;

/// Reads such a file.
///
/// # Errors
/// [`Error::Unreadable`], [`Error::Syntax`], and for what Python refuses as well: names without a section, no root logger.
pub fn read(path: &Path) -> Result<PythonLogging, Error> {
    let unreadable = |reason: String| Error::Unreadable { path: path.to_path_buf(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let ini = ini::parse(&text).map_err(|error| Error::Syntax {
        path: path.to_path_buf(),
        line: error.line,
        problem: error.problem.to_owned(),
    })?;
    parse(&ini)
        .map_err(|problem| unreadable(format!("{problem} (it is to be a file for Python's logging.config.fileConfig)")))
}

fn parse(ini: &ini::Ini) -> Result<PythonLogging, String> {
    let mut sections: BTreeMap<&str, Section<'_>> =
        ini.sections.iter().map(|(section, _)| (section.as_str(), Section::new())).collect();
    for entry in &ini.entries {
        sections.entry(&entry.section).or_default().insert(entry.key.to_lowercase(), &entry.value);
    }
    let section = |name: &str| sections.get(name).ok_or_else(|| format!("section [{name}] is missing"));
    let keys = |of: &str| section(of).map(|section| list(section.get("keys").copied()));
    let mut read = PythonLogging::default();
    // Which of our handlers a name stands for; none for one that cannot be honoured.
    let mut handlers: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for name in keys("handlers")? {
        let handler = section(&format!("handler_{name}"))?;
        let formatter = match handler.get("formatter").copied().filter(|formatter| !formatter.is_empty()) {
            Some(formatter) => Some((formatter, section(&format!("formatter_{formatter}"))?)),
            None => None,
        };
        let index = read.handler(name, handler, formatter);
        handlers.insert(name, index);
    }
    let loggers = keys("loggers")?;
    if !loggers.contains(&"root") {
        return Err("[loggers] keys has no root".to_owned());
    }
    for name in loggers {
        let logger = section(&format!("logger_{name}"))?;
        let qualified = if name == "root" { "" } else { logger.get("qualname").copied().unwrap_or(name) };
        if let Some(level) = level(logger) {
            read.levels.push(format!("{}={level}", if name == "root" { name } else { qualified }));
        }
        let mut named = Vec::new();
        for handler in list(logger.get("handlers").copied()) {
            let known =
                handlers.get(handler).ok_or_else(|| format!("[logger_{name}] names no handler with '{handler}'"))?;
            named.extend(*known);
        }
        let propagate = name != "root" && logger.get("propagate").is_none_or(|propagate| propagate.trim() != "0");
        if name == "root" || !named.is_empty() || !propagate {
            read.loggers.push(Logger { name: qualified.to_owned(), handlers: named, propagate });
        }
    }
    Ok(read)
}

impl PythonLogging {
    /// Adds a handler, or notes why not.
    fn handler(&mut self, name: &str, handler: &Section<'_>, formatter: Option<(&str, &Section<'_>)>) -> Option<usize> {
        let class = handler.get("class").copied().unwrap_or_default();
        let args = Arguments::read(handler);
        let bare = class.rsplit('.').next().unwrap_or_default();
        let to = match bare {
            "NullHandler" => return None,
            "StreamHandler" | "ColorHandler" if args.names.iter().any(|name| name == "sys.stdout") => HandlerTo::Stdout,
            "StreamHandler" | "ColorHandler" => HandlerTo::Stderr,
            "FileHandler" | "WatchedFileHandler" | "RotatingFileHandler" | "TimedRotatingFileHandler"
                if !args.texts.is_empty() =>
            {
                if bare.contains("Rotating") {
                    self.ignored.push(format!("the rotation of handler '{name}'"));
                }
                HandlerTo::File(PathBuf::from(&args.texts[0]))
            }
            "OSSysLogHandler" => HandlerTo::Syslog { socket: None, facility: args.facility() },
            "SysLogHandler" if args.texts.first().is_some_and(|address| address.starts_with('/')) => {
                HandlerTo::Syslog { socket: Some(PathBuf::from(&args.texts[0])), facility: args.facility() }
            }
            "OSJournalHandler" | "JournalHandler" | "JournaldLogHandler" => {
                HandlerTo::Journal { facility: args.facility() }
            }
            _ => {
                self.ignored.push(format!("handler '{name}' ({class})"));
                return None;
            }
        };
        let (mut json, mut date_format) = (false, None);
        if let Some((formatter, options)) = formatter {
            let class = options.get("class").copied().unwrap_or_default();
            json = class.ends_with("JSONFormatter");
            let has_format = options.get("format").is_some_and(|format| !format.is_empty());
            if has_format && !class.starts_with("oslo_log.") {
                self.ignored.push(format!("the line format of formatter '{formatter}'"));
            }
            date_format = options.get("datefmt").filter(|format| !format.is_empty()).map(|format| (*format).to_owned());
        }
        self.handlers.push(Handler { to, json, date_format, level: level(handler) });
        Some(self.handlers.len() - 1)
    }
}

/// The names in a list with commas.
fn list(text: Option<&str>) -> Vec<&str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The level of a section, unless it is none.
fn level(section: &Section<'_>) -> Option<String> {
    let level = section.get("level").map(|level| level.trim().to_uppercase())?;
    let level = if level == "FATAL" { "CRITICAL".to_owned() } else { level };
    Some(level).filter(|level| !level.is_empty() && level != "NOTSET")
}

/// The texts and the dotted names in `args` and `kwargs`, which are Python expressions: all that can be told of them without a
/// Python.
#[derive(Debug, Default)]
struct Arguments {
    texts: Vec<String>,
    names: Vec<String>,
}

impl Arguments {
    fn read(handler: &Section<'_>) -> Self {
        let mut read = Self::default();
        for expression in ["args", "kwargs"].into_iter().filter_map(|key| handler.get(key)) {
            read.scan(expression);
        }
        read
    }

    fn scan(&mut self, expression: &str) {
        let mut rest = expression.chars().peekable();
        while let Some(first) = rest.next() {
            if first == '\'' || first == '"' {
                self.texts.push(rest.by_ref().take_while(|next| *next != first).collect());
            } else if first.is_alphabetic() || first == '_' {
                let mut name = String::from(first);
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || ['_', '.'].contains(next)) {
                    name.push(next);
                }
                self.names.push(name);
            }
        }
    }

    /// `LOG_LOCAL0` by its name, or `local0` as a text.
    fn facility(&self) -> Option<String> {
        let named = self.names.iter().find_map(|name| name.rsplit('.').next().filter(|name| name.starts_with("LOG_")));
        let told = |text: &&String| !text.starts_with('/') && *text != "facility" && *text != "address";
        named.map(str::to_owned).or_else(|| self.texts.iter().find(told).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KOLLA: &str = "[loggers]\nkeys = root, cinder, quiet\n[handlers]\nkeys = file, out, sys, net, null\n\
        [formatters]\nkeys = context, json, own\n\
        [logger_root]\nlevel = WARNING\nhandlers = file, null\n\
        [logger_cinder]\nlevel = INFO\nhandlers = out,sys\nqualname = cinder\n\
        [logger_quiet]\nlevel = NOTSET\nhandlers = net\nqualname = amqp\npropagate = 0\n\
        [handler_file]\nclass = logging.handlers.RotatingFileHandler\nargs = ('/var/log/a.log', 'a', 10)\nformatter = json\n\
        [handler_out]\nclass = StreamHandler\nargs = (sys.stdout,)\nlevel = error\nformatter = own\n\
        [handler_sys]\nclass = handlers.SysLogHandler\nargs = ('/dev/log', handlers.SysLogHandler.LOG_LOCAL1)\n\
        [handler_net]\nclass = handlers.SysLogHandler\nargs = (('loghost', 514),)\n\
        [handler_null]\nclass = logging.NullHandler\nargs = ()\n\
        [formatter_context]\nclass = oslo_log.formatters.ContextFormatter\n\
        [formatter_json]\nclass = oslo_log.formatters.JSONFormatter\n\
        [formatter_own]\nformat = %(message)s\ndatefmt = %H:%M\n";

    fn parsed(text: &str) -> Result<PythonLogging, String> {
        parse(&ini::parse(text).unwrap())
    }

    #[test]
    fn levels_handlers_and_loggers_are_read_and_the_rest_is_named() {
        let read = parsed(KOLLA).unwrap();
        assert_eq!(read.levels, ["root=WARNING", "cinder=INFO"]);
        let handler = |to, json| Handler { to, json, date_format: None, level: None };
        let syslog = HandlerTo::Syslog { socket: Some("/dev/log".into()), facility: Some("LOG_LOCAL1".to_owned()) };
        let (date_format, level) = (Some("%H:%M".to_owned()), Some("ERROR".to_owned()));
        let expected = [
            handler(HandlerTo::File("/var/log/a.log".into()), true),
            Handler { date_format, level, ..handler(HandlerTo::Stdout, false) },
            handler(syslog, false),
        ];
        assert_eq!(read.handlers, expected);
        let logger = |name: &str, handlers: &[usize], propagate| Logger {
            name: name.to_owned(),
            handlers: handlers.to_vec(),
            propagate,
        };
        assert_eq!(
            read.loggers,
            [logger("", &[0], false), logger("cinder", &[1, 2], true), logger("amqp", &[], false)]
        );
        let ignored = [
            "the rotation of handler 'file'",
            "the line format of formatter 'own'",
            "handler 'net' (handlers.SysLogHandler)",
        ];
        assert_eq!(read.ignored, ignored);
    }

    #[test]
    fn facilities_are_found_in_every_writing() {
        for (expression, facility) in [
            ("(), kwargs", None),
            ("(syslog.LOG_DAEMON,)", Some("LOG_DAEMON")),
            ("{'facility': 'local2'}", Some("local2")),
            ("('/dev/log', 'user')", Some("user")),
        ] {
            let mut arguments = Arguments::default();
            arguments.scan(expression);
            assert_eq!(arguments.facility().as_deref(), facility, "{expression}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for (text, part) in [
            ("[handlers]\nkeys =\n", "[loggers]"),
            ("[loggers]\nkeys = a\n[handlers]\nkeys =\n[logger_a]\nlevel = INFO\n", "no root"),
            ("[loggers]\nkeys = root\n[handlers]\nkeys = x\n", "[handler_x]"),
            ("[loggers]\nkeys = root\n[handlers]\nkeys =\n[logger_root]\nhandlers = x\n", "'x'"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
