//! Log levels as objects (`cinder/objects/dynamic_log.py`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Datum, Object};
use crate::Fault;

/// A question for, or a change of, the levels of some loggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel {
    /// Logger, or the beginning of its name; empty or none means all.
    pub prefix: Option<String>,
    /// `DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`; none when it is asked for.
    pub level: Option<String>,
}

/// Reads a `LogLevel` object.
///
/// # Errors
/// As [`Object::decode`].
pub fn decode_log_level(value: &Value) -> Result<LogLevel, Fault> {
    let object = Object::decode_as("LogLevel", value)?;
    Ok(LogLevel { prefix: object.text("prefix"), level: object.text("level") })
}

/// Writes a `LogLevel` object.
#[must_use]
pub fn encode_log_level(level: &LogLevel) -> Value {
    object(level.prefix.as_deref(), level.level.as_deref()).encode()
}

/// Writes a `LogLevelList` from levels by logger: the answer to `get_log_levels`.
#[must_use]
pub fn encode_log_levels(levels: &BTreeMap<String, String>) -> Value {
    let levels = levels.iter().map(|(prefix, level)| object(Some(prefix), Some(level))).collect();
    Object::new("LogLevelList").with("objects", Datum::Objects(levels)).all_changed().encode()
}

/// Both fields count as changed, as in an object that its constructor filled.
fn object(prefix: Option<&str>, level: Option<&str>) -> Object {
    Object::new("LogLevel").with("prefix", prefix).with("level", level).all_changed()
}
