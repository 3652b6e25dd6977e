//! The types of options and how their texts are read (`oslo_config/types.py`).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::ini::{is_space, strip};

/// What texts an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Str,
    /// One of these texts, exactly.
    Choice(&'static [&'static str]),
    /// `true 1 on yes` or `false 0 off no`, in any case.
    Bool,
    /// A whole number. Empty means none.
    Int {
        /// The lowest one allowed.
        min: i64,
        /// The highest one allowed.
        max: i64,
    },
    /// A number. Empty means none.
    Float {
        /// The lowest one allowed.
        min: f64,
        /// The highest one allowed.
        max: f64,
    },
    /// A TCP port, 0 to 65535. Empty means none.
    Port,
    /// Texts separated by commas.
    List,
    /// `key:value` pairs separated by commas.
    Dict,
    /// A text for each time the option is given.
    MultiStr,
    /// An IPv4 or IPv6 address or a host name.
    HostAddress,
}

/// The value of an option that has one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of `Str`, `Choice` and `HostAddress`.
    Str(String),
    /// Of `Bool`.
    Bool(bool),
    /// Of `Int` and `Port`.
    Int(i64),
    /// Of `Float`.
    Float(f64),
    /// Of `List` and `MultiStr`.
    List(Vec<String>),
    /// Of `Dict`, in the order given.
    Dict(Vec<(String, String)>),
}

impl Kind {
    /// A whole number of any size.
    pub const INT: Self = Self::Int { min: i64::MIN, max: i64::MAX };
    /// A whole number from `min` on.
    #[must_use]
    pub const fn at_least(min: i64) -> Self {
        Self::Int { min, max: i64::MAX }
    }

    /// Reads one text; `None` is an empty number. A `MultiStr` is read item by item, by the caller.
    ///
    /// # Errors
    /// What is allowed, as half a sentence that follows the value.
    pub fn parse(&self, text: &str) -> Result<Option<Value>, String> {
        let value = match self {
            Self::Str | Self::MultiStr => Value::Str(text.to_owned()),
            Self::Choice(choices) if choices.contains(&text) => Value::Str(text.to_owned()),
            Self::Choice(choices) => return Err(format!("must be one of {}", quoted(choices))),
            Self::Bool => match text.to_lowercase().as_str() {
                "true" | "1" | "on" | "yes" => Value::Bool(true),
                "false" | "0" | "off" | "no" => Value::Bool(false),
                _ => return Err("must be true or false".to_owned()),
            },
            Self::Int { min, max } => return integer(text, *min, *max),
            Self::Port => return integer(text, 0, 65535),
            Self::Float { min, max } => return float(text, *min, *max),
            Self::List => Value::List(list(text)),
            Self::Dict => Value::Dict(dict(text)?),
            Self::HostAddress => match host_address(text) {
                Some(host) => Value::Str(host.to_owned()),
                None => return Err("must be an IPv4 address, an IPv6 address or a host name".to_owned()),
            },
        };
        Ok(Some(value))
    }

    /// What the documentation calls it, e.g. `integer value, at least 3`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Str => "string value".to_owned(),
            Self::Choice(choices) => format!("string value, one of {}", quoted(choices)),
            Self::Bool => "boolean value".to_owned(),
            Self::Int { min, max } => format!("integer value{}", bounds(*min, *max, i64::MIN, i64::MAX)),
            Self::Float { min, max } => {
                format!("floating point value{}", bounds(*min, *max, f64::NEG_INFINITY, f64::INFINITY))
            }
            Self::Port => "port value, 0 to 65535".to_owned(),
            Self::List => "list value".to_owned(),
            Self::Dict => "dict value".to_owned(),
            Self::MultiStr => "multi valued".to_owned(),
            Self::HostAddress => "host address value".to_owned(),
        }
    }
}

/// The value as `$name` puts it into another one, and as the configuration is shown.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            // Python's spelling: it ends up in texts that Python services may read too.
            Self::Bool(yes) => f.write_str(if *yes { "True" } else { "False" }),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::List(items) => f.write_str(&items.join(",")),
            Self::Dict(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

fn quoted(choices: &[&str]) -> String {
    choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ")
}

/// `, 3 to 9`, `, at least 3`, `, at most 9` or nothing.
fn bounds<T: PartialEq + std::fmt::Display>(min: T, max: T, lowest: T, highest: T) -> String {
    match (min == lowest, max == highest) {
        (true, true) => String::new(),
        (false, true) => format!(", at least {min}"),
        (true, false) => format!(", at most {max}"),
        (false, false) => format!(", {min} to {max}"),
    }
}

/// Python takes `1_000`: an underscore between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let wrong = text.starts_with('_')
        || text.ends_with('_')
        || text.as_bytes().windows(2).any(|pair| {
            pair.contains(&b'_') && !pair.iter().all(|b| b.is_ascii_digit() || *b == b'_') || pair == b"__"
        });
    (!wrong).then(|| text.replace('_', ""))
}

fn integer(text: &str, min: i64, max: i64) -> Result<Option<Value>, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(None);
    }
    match without_underscores(text).and_then(|digits| digits.parse().ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(Some(Value::Int(number))),
        _ => Err(format!("must be a whole number{}", bounds(min, max, i64::MIN, i64::MAX))),
    }
}

fn float(text: &str, min: f64, max: f64) -> Result<Option<Value>, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(None);
    }
    match without_underscores(text).and_then(|digits| digits.parse().ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(Some(Value::Float(number))),
        _ => Err(format!("must be a number{}", bounds(min, max, f64::NEG_INFINITY, f64::INFINITY))),
    }
}

fn list(text: &str) -> Vec<String> {
    let text = strip(text).trim_end_matches(',');
    if text.is_empty() { Vec::new() } else { text.split(',').map(|item| strip(item).to_owned()).collect() }
}

/// A part without a `:` belongs to the part that follows it, with its comma: Python tries again with more text.
fn dict(text: &str) -> Result<Vec<(String, String)>, String> {
    const ALLOWED: &str = "must be KEY:VALUE pairs separated by commas";
    let mut pairs: Vec<(String, String)> = Vec::new();
    if strip(text).is_empty() {
        return Ok(pairs);
    }
    let mut pending = String::new();
    for part in strip(text).split(',') {
        pending.push_str(part);
        let Some((key, value)) = pending.split_once(':') else {
            pending.push(',');
            continue;
        };
        let key = strip(key);
        if key.is_empty() {
            return Err(format!("has a pair without a key; it {ALLOWED}"));
        }
        if pairs.iter().any(|(known, _)| known == key) {
            return Err(format!("has the key '{key}' twice"));
        }
        pairs.push((key.to_owned(), strip(value).to_owned()));
        pending.clear();
    }
    if pending.is_empty() { Ok(pairs) } else { Err(ALLOWED.to_owned()) }
}

/// The address; a host name comes back without its final dot.
fn host_address(text: &str) -> Option<&str> {
    if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Some(text);
    }
    if text.len() > 253 {
        return None;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits only is a mistyped IPv4 address.
    let last = name.rsplit('.').next().unwrap_or(name);
    let good = name.split('.').all(label_is_good) && last.bytes().any(|b| !b.is_ascii_digit());
    (good && !name.contains(is_space)).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(kind: Kind, text: &str) -> Value {
        kind.parse(text).unwrap().unwrap()
    }

    #[test]
    fn booleans_numbers_and_choices() {
        assert_eq!(ok(Kind::Bool, "YES"), Value::Bool(true));
        assert!(Kind::Bool.parse("").is_err());
        assert_eq!(ok(Kind::INT, " +1_000 "), Value::Int(1000));
        assert_eq!(Kind::INT.parse("").unwrap(), None);
        for wrong in ["1.0", "_1", "1__0", "0x1", "1_", "-_1"] {
            assert!(Kind::INT.parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Kind::at_least(3).parse("2").unwrap_err(), "must be a whole number, at least 3");
        assert_eq!(Kind::Port.parse("65536").unwrap_err(), "must be a whole number, 0 to 65535");
        let rate = Kind::Float { min: 0.0, max: 4.5 };
        assert_eq!(ok(rate, "1e0"), Value::Float(1.0));
        assert!(rate.parse("4.6").is_err() && rate.parse("nan").is_err());
        assert_eq!(Kind::Choice(&["a", "b"]).parse("A").unwrap_err(), "must be one of 'a', 'b'");
    }

    #[test]
    fn lists_and_dicts() {
        let texts = |items: &[&str]| Value::List(items.iter().map(|&item| item.to_owned()).collect());
        assert_eq!(ok(Kind::List, " a, 'b',,c,"), texts(&["a", "'b'", "", "c"]));
        assert_eq!(ok(Kind::List, " "), texts(&[]));
        let dict = |pairs: &[(&str, &str)]| {
            Value::Dict(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
        };
        assert_eq!(ok(Kind::Dict, "k:v:w, x : y"), dict(&[("k", "v:w"), ("x", "y")]));
        assert_eq!(ok(Kind::Dict, "a,b:c"), dict(&[("a,b", "c")]));
        assert_eq!(ok(Kind::Dict, ""), dict(&[]));
        for wrong in ["a", "a:b,c", ":v", "a:b,a:c", "a:b,"] {
            assert!(Kind::Dict.parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_addresses() {
        assert_eq!(ok(Kind::HostAddress, "::1"), Value::Str("::1".to_owned()));
        assert_eq!(ok(Kind::HostAddress, "node-1.example.org."), Value::Str("node-1.example.org".to_owned()));
        for wrong in ["", "10.0.0.256", "10.0.0", "-a", "a b", "[::1]"] {
            assert!(Kind::HostAddress.parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_type_panic(text in "\\PC*") {
            for kind in [Kind::Bool, Kind::INT, Kind::Port, Kind::List, Kind::Dict, Kind::HostAddress] {
                let _ = kind.parse(&text);
            }
        }
    }
}
