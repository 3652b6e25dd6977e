//! What is printed: tables for people, JSON for scripts, progress for those who wait.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Failure, Result};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

impl Format {
    /// A list: a table of these keys, or an array of everything.
    pub(crate) fn list<T: Serialize>(self, items: &[T], columns: &[&str]) -> Result<()> {
        match self {
            Self::Json => json(&items),
            Self::Table => {
                let rows = items.iter().map(value).collect::<Result<Vec<_>>>()?;
                let cells = |row: &Value| columns.iter().map(|key| cell(&row[*key])).collect::<Vec<_>>();
                let header = columns.iter().map(|key| key.replace('_', " ").to_uppercase()).collect();
                print(&table(Some(header), rows.iter().map(cells)))
            }
        }
    }

    /// One thing: a line per key, or an object.
    pub(crate) fn one<T: Serialize>(self, item: &T) -> Result<()> {
        match (self, value(item)?) {
            (Self::Table, Value::Object(fields)) => {
                print(&table(None, fields.iter().map(|(key, value)| vec![key.replace('_', " "), cell(value)])))
            }
            (_, other) => json(&other),
        }
    }

    /// One thing: a line for each of these keys in this order, or an object of everything.
    pub(crate) fn fields(self, item: &Value, keys: &[&str]) -> Result<()> {
        match self {
            Self::Json => json(item),
            Self::Table => print(&table(None, keys.iter().map(|key| vec![key.replace('_', " "), cell(&item[*key])]))),
        }
    }
}

fn value<T: Serialize>(item: &T) -> Result<Value> {
    serde_json::to_value(item).map_err(|error| Failure::failed(format!("cannot be shown: {error}")))
}

fn json<T: Serialize>(item: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(item).map_err(|error| Failure::failed(format!("cannot be shown: {error}")));
    print(&(text? + "\n"))
}

fn table(header: Option<Vec<String>>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// A value as people read it. Names come from users: what would steer a terminal is shown, not obeyed.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Object(fields) if fields.is_empty() => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says on a terminal what is being waited for, and for how long; elsewhere nothing. It is gone when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Begins.
    pub(crate) fn start(message: impl Into<String>) -> Self {
        // Hidden unless standard error is a terminal.
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(style.expect("a fixed template"));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar.set_message(message.into());
        Self(bar)
    }

    /// Says something else from now on.
    pub(crate) fn say(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\nc")), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!((cell(&Value::Null), cell(&json!({}))), ("-".to_owned(), "-".to_owned()));
        assert_eq!((cell(&json!(1.25)), cell(&json!(3))), ("1.2".to_owned(), "3".to_owned()));
    }

    #[test]
    fn tables_have_a_column_per_key() {
        let rows = [vec!["long-name".to_owned(), "1".to_owned()], vec!["x".to_owned(), "22".to_owned()]];
        let header = Some(vec!["NAME".to_owned(), "SIZE".to_owned()]);
        assert_eq!(table(header, rows.into_iter()), "NAME       SIZE\nlong-name  1\nx          22\n");
    }
}
