//! Typed reading of an object's fields. What is not set and what is null read the same here.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::codec::{Datum, Object, value_error};
use crate::{Fault, IdError, Metadata, Timestamp};

impl Object {
    /// The plain value of a field.
    #[must_use]
    pub fn plain(&self, field: &str) -> Option<&Value> {
        match self.get(field)? {
            Datum::Plain(value) if !value.is_null() => Some(value),
            _ => None,
        }
    }

    /// Text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        self.plain(field).and_then(Value::as_str).map(str::to_owned)
    }

    /// Text or words of a status type.
    #[must_use]
    pub fn word<T: From<String>>(&self, field: &str) -> Option<T> {
        self.text(field).map(T::from)
    }

    /// Truth, with what it is when it was not said.
    #[must_use]
    pub fn flag(&self, field: &str, default: bool) -> bool {
        self.plain(field).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A time; it was checked when the object was read.
    #[must_use]
    pub fn time(&self, field: &str) -> Option<Timestamp> {
        self.plain(field).and_then(Value::as_str).and_then(Timestamp::parse)
    }

    /// A map of texts; a null value counts as empty text.
    #[must_use]
    pub fn texts(&self, field: &str) -> Metadata {
        let pairs = self.map(field).unwrap_or_default().into_iter();
        pairs.map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect()
    }

    /// A map.
    #[must_use]
    pub fn map(&self, field: &str) -> Option<Map<String, Value>> {
        self.plain(field).and_then(Value::as_object).cloned()
    }

    /// An object in a field.
    #[must_use]
    pub fn object(&self, field: &str) -> Option<&Object> {
        match self.get(field)? {
            Datum::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements of a list object in a field (`VolumeAttachmentList`, …).
    #[must_use]
    pub fn elements(&self, field: &str) -> &[Object] {
        match self.object(field).and_then(|list| list.get("objects")) {
            Some(Datum::Objects(objects)) => objects,
            _ => &[],
        }
    }

    /// A size in GiB; null counts as nothing.
    ///
    /// # Errors
    /// `ValueError` when it is below zero.
    pub fn size(&self, field: &str) -> Result<u64, Fault> {
        let size = self.plain(field).and_then(Value::as_i64).unwrap_or(0);
        let invalid = |_| value_error(format!("{} of a {} cannot be {size}", field, self.class()));
        u64::try_from(size).map_err(invalid)
    }

    /// An id.
    ///
    /// # Errors
    /// `ValueError` when it has characters that no id has.
    pub fn id<T: FromStr<Err = IdError>>(&self, field: &str) -> Result<Option<T>, Fault> {
        self.text(field).map(|text| text.parse::<T>()).transpose().map_err(|error| value_error(error.to_string()))
    }

    /// What must be there: turns `None` into a clear error.
    ///
    /// # Errors
    /// `ValueError` that names class and field.
    pub fn required<T>(&self, field: &str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| value_error(format!("{} without '{field}'", self.class())))
    }
}
