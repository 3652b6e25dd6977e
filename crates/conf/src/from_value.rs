//! From values to the Rust types of the options' structs.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::types::Value;

/// A Rust type that an option's value becomes. The error is half a sentence that follows the value.
pub(crate) trait FromValue: Sized {
    fn from_value(value: Option<Value>) -> Result<Self, String>;
}

/// For a value that is missing, or whose type does not fit the field's.
fn missing<T>() -> Result<T, String> {
    Err("must not be empty".to_owned())
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        value.map(|value| T::from_value(Some(value))).transpose()
    }
}

impl FromValue for bool {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        if let Some(Value::Bool(yes)) = value { Ok(yes) } else { missing() }
    }
}

impl FromValue for i64 {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        if let Some(Value::Int(number)) = value { Ok(number) } else { missing() }
    }
}

macro_rules! from_whole_number {
    ($($type:ty),+) => {
        $(impl FromValue for $type {
            fn from_value(value: Option<Value>) -> Result<Self, String> {
                let number = i64::from_value(value)?;
                Self::try_from(number).map_err(|_| format!("must be between 0 and {}", <$type>::MAX))
            }
        })+
    };
}
from_whole_number!(u16, u32, u64, usize);

impl FromValue for f64 {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        if let Some(Value::Float(number)) = value { Ok(number) } else { missing() }
    }
}

impl FromValue for String {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        if let Some(Value::Str(text)) = value { Ok(text) } else { missing() }
    }
}

impl FromValue for PathBuf {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        match String::from_value(value)? {
            path if path.is_empty() => missing(),
            path => Ok(path.into()),
        }
    }
}

impl FromValue for SecretString {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        String::from_value(value).map(Self::from)
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        match value {
            Some(Value::List(items)) => Ok(items),
            None => Ok(Self::new()),
            Some(_) => missing(),
        }
    }
}

/// Seconds.
impl FromValue for Duration {
    fn from_value(value: Option<Value>) -> Result<Self, String> {
        let seconds = match value {
            #[allow(clippy::cast_precision_loss)] // no operator sets a time-out of 2^53 seconds
            Some(Value::Int(seconds)) => seconds as f64,
            Some(Value::Float(seconds)) => seconds,
            _ => return missing(),
        };
        Self::try_from_secs_f64(seconds).map_err(|_| "must be a number of seconds from 0 on".to_owned())
    }
}
