//! Reading and writing any versioned object (`oslo_versionedobjects/base.py: VersionedObject`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::schema::{Fallback, Field, Kind, Null, Schema};
use super::tables;
use crate::{Fault, FaultClass, Timestamp};

pub(super) const NAME: &str = "versioned_object.name";
pub(super) const VERSION: &str = "versioned_object.version";
const NAMESPACE: &str = "versioned_object.namespace";
const DATA: &str = "versioned_object.data";
const CHANGES: &str = "versioned_object.changes";
const CINDER: &str = "cinder";

/// One versioned object: the fields that are set, checked and brought into their types. A field may be set to null, which is
/// not the same as not being set.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    schema: &'static Schema,
    data: BTreeMap<&'static str, Datum>,
    changes: BTreeSet<&'static str>,
}

/// What a field that is set holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// Null, text, number, truth, time (as the wire has it), list or map.
    Plain(Value),
    /// An object.
    Object(Object),
    /// A list of objects.
    Objects(Vec<Object>),
}

impl Object {
    /// An object of our own with no field set.
    ///
    /// # Panics
    /// When there is no such class: a mistake in this program.
    #[must_use]
    pub fn new(class: &'static str) -> Self {
        let schema = tables::find(class).expect("only classes of the tables are built");
        Self { schema, data: BTreeMap::new(), changes: BTreeSet::new() }
    }

    /// Reads an object of any class.
    ///
    /// # Errors
    /// The fault that Python's dispatcher answers with: `IncompatibleObjectVersion` for a newer version than ours,
    /// `ValueError` for what does not fit its type, `TypeError` for what is no object.
    pub fn decode(value: &Value) -> Result<Self, Fault> {
        let Some(envelope) = value.as_object().filter(|map| map.contains_key(NAME)) else {
            return Err(type_error(format!("a versioned object is required, not {}", python_type(value))));
        };
        let text = |key: &str| {
            let found = envelope.get(key).and_then(Value::as_str);
            found.ok_or_else(|| value_error(format!("a versioned object without '{key}'")))
        };
        let (name, namespace, version) = (text(NAME)?, text(NAMESPACE)?, text(VERSION)?);
        let schema = tables::find(name).filter(|_| namespace == CINDER);
        let schema = schema.ok_or_else(|| value_error(format!("Unsupported object type {namespace}.{name}")))?;
        if !is_compatible(version, schema.version) {
            return Err(incompatible(schema, version));
        }
        let Some(Value::Object(sent)) = envelope.get(DATA) else {
            return Err(value_error(format!("{name} without '{DATA}'")));
        };
        let mut data = BTreeMap::new();
        for field in schema.fields() {
            if let Some(value) = sent.get(field.name) {
                data.insert(field.name, coerce(field, value)?);
            }
        }
        let changes = match envelope.get(CHANGES) {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.filter_map(|name| schema.field(name)).map(|field| field.name).collect()
            }
            Some(other) => return Err(value_error(format!("'{CHANGES}' is {}", python_type(other)))),
        };
        Ok(Self { schema, data, changes })
    }

    /// Reads an object of this class.
    ///
    /// # Errors
    /// As [`Object::decode`], and `TypeError` when it is of another class.
    pub fn decode_as(class: &str, value: &Value) -> Result<Self, Fault> {
        let object = Self::decode(value)?;
        if object.class() != class {
            return Err(type_error(format!("a {class} is required, not a {}", object.class())));
        }
        Ok(object)
    }

    /// Class name.
    #[must_use]
    pub fn class(&self) -> &'static str {
        self.schema.name
    }

    /// Writes the object in its newest version.
    #[must_use]
    pub fn encode(&self) -> Value {
        let data: Map<String, Value> =
            self.data.iter().map(|(name, datum)| ((*name).to_owned(), datum.encode())).collect();
        let mut envelope =
            json!({ NAME: self.schema.name, NAMESPACE: CINDER, VERSION: self.schema.version, DATA: data });
        if !self.changes.is_empty() {
            envelope[CHANGES] = self.changes.iter().copied().collect();
        }
        envelope
    }

    /// What a field holds; `None` when it is not set.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Datum> {
        debug_assert!(self.schema.field(field).is_some(), "{} has no field {field}", self.class());
        self.data.get(field)
    }

    /// Sets a field as it was loaded: it does not count as changed.
    ///
    /// # Panics
    /// When the class has no such field: a mistake in this program.
    #[must_use]
    pub fn with(mut self, field: &str, datum: impl Into<Datum>) -> Self {
        let field = self.schema.field(field).expect("only fields of the tables are set");
        self.data.insert(field.name, datum.into());
        self
    }

    /// Sets a field and counts it as changed.
    ///
    /// # Panics
    /// When the class has no such field: a mistake in this program.
    pub fn change(&mut self, field: &str, datum: impl Into<Datum>) {
        let field = self.schema.field(field).expect("only fields of the tables are set");
        self.data.insert(field.name, datum.into());
        self.changes.insert(field.name);
    }

    /// The names of the fields that the sender counts as changed.
    pub fn changes(&self) -> impl Iterator<Item = &'static str> {
        self.changes.iter().copied()
    }

    /// Every field that is set counts as changed, as in an object that was built field by field.
    #[must_use]
    pub fn all_changed(mut self) -> Self {
        self.changes = self.data.keys().copied().collect();
        self
    }
}

impl Datum {
    fn encode(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Object(object) => object.encode(),
            Self::Objects(objects) => objects.iter().map(Object::encode).collect(),
        }
    }
}

impl<T: Into<Value>> From<T> for Datum {
    fn from(value: T) -> Self {
        Self::Plain(value.into())
    }
}

impl From<Object> for Datum {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

/// Brings a value into its field's type, as `Field.coerce` does after `from_primitive`.
fn coerce(field: &Field, value: &Value) -> Result<Datum, Fault> {
    let name = field.name;
    if value.is_null() {
        return match field.null {
            Null::Allowed => Ok(Datum::Plain(Value::Null)),
            Null::Refused => Err(cannot_be_none(name)),
            Null::Means(Fallback::Yes) => Ok(true.into()),
            Null::Means(Fallback::No) => Ok(false.into()),
            Null::Means(Fallback::Zero) => Ok(0.into()),
            Null::Means(Fallback::Text(text)) => Ok(text.into()),
        };
    }
    let plain = match field.kind {
        Kind::Text => to_text(name, value)?.into(),
        Kind::Int => to_int(name, value)?.into(),
        Kind::Bool => is_true(value).into(),
        Kind::Time => to_time(name, value)?.to_object().into(),
        Kind::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => word.into(),
            _ => return Err(value_error(format!("Field value {value} is invalid"))),
        },
        Kind::Texts => {
            let elements = list(name, value)?;
            elements.iter().map(|element| text_element(name, element)).collect::<Result<Value, Fault>>()?
        }
        Kind::TextMap => map_elements(name, value, text_element)?,
        Kind::NullableTextMap => map_elements(name, value, |name, element| match element {
            Value::Null => Ok(Value::Null),
            element => text_element(name, element),
        })?,
        Kind::AnyMap => map_elements(name, value, |_, element| Ok(element.clone()))?,
        Kind::Object(class) => return Ok(element(name, class, value)?.into()),
        Kind::Objects(class) => {
            let elements = list(name, value)?;
            let objects = elements.iter().map(|value| element(name, class, value)).collect::<Result<Vec<_>, _>>()?;
            return Ok(Datum::Objects(objects));
        }
    };
    Ok(Datum::Plain(plain))
}

fn element(name: &str, class: &str, value: &Value) -> Result<Object, Fault> {
    let required =
        |found: &str| value_error(format!("An object of type {class} is required in field {name}, not a {found}"));
    if value.get(NAME).is_none() {
        return Err(required(python_type(value)));
    }
    let object = Object::decode(value)?;
    if object.class() == class { Ok(object) } else { Err(required(object.class())) }
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a Vec<Value>, Fault> {
    let found = python_type(value);
    value.as_array().ok_or_else(|| value_error(format!("A list is required in field {name}, not a {found}")))
}

fn map_elements(
    name: &str,
    value: &Value,
    coerce: impl Fn(&str, &Value) -> Result<Value, Fault>,
) -> Result<Value, Fault> {
    let Some(map) = value.as_object() else {
        return Err(value_error(format!("A dict is required in field {name}, not a {}", python_type(value))));
    };
    let pairs = map.iter().map(|(key, value)| Ok((key.clone(), coerce(&format!("{name}[\"{key}\"]"), value)?)));
    pairs.collect::<Result<Map<_, _>, Fault>>().map(Value::Object)
}

fn text_element(name: &str, value: &Value) -> Result<Value, Fault> {
    if value.is_null() { Err(cannot_be_none(name)) } else { to_text(name, value).map(Value::String) }
}

fn to_text(name: &str, value: &Value) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(true) => Ok("True".to_owned()),
        Value::Bool(false) => Ok("False".to_owned()),
        other => Err(value_error(format!("A string is required in field {name}, not a {}", python_type(other)))),
    }
}

fn to_int(name: &str, value: &Value) -> Result<i64, Fault> {
    let invalid = || value_error(format!("field {name} cannot be a whole number: {value}"));
    match value {
        Value::Bool(truth) => Ok(i64::from(*truth)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Ok(int),
            // Cut, as Python does; what a database column cannot hold is no size.
            (None, Some(float)) if float.abs() < i64::MAX as f64 => Ok(float as i64),
            _ => Err(invalid()),
        },
        Value::String(text) => text.trim().parse().map_err(|_| invalid()),
        other => {
            let found = python_type(other);
            Err(type_error(format!("field {name}: a number is required, not a {found}")))
        }
    }
}

/// Python's truth.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn to_time(name: &str, value: &Value) -> Result<Timestamp, Fault> {
    let parsed = value.as_str().and_then(Timestamp::parse);
    parsed.ok_or_else(|| value_error(format!("field {name} cannot be a time: {value}")))
}

/// Same major version and no newer minor one; a third part is not looked at.
fn is_compatible(requested: &str, ours: &str) -> bool {
    let parse = |version: &str| {
        let (major, rest) = version.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    match (parse(requested), parse(ours)) {
        (Some(requested), Some(ours)) => requested.0 == ours.0 && requested.1 <= ours.1,
        _ => false,
    }
}

fn incompatible(schema: &Schema, version: &str) -> Fault {
    let (name, supported) = (schema.name, schema.version);
    let message = format!("Version {version} of {name} is not supported, supported version is {supported}");
    Fault::new(FaultClass::IncompatibleObjectVersion, message)
        .with("objname", name)
        .with("objver", version)
        .with("supported", supported)
}

fn cannot_be_none(name: &str) -> Fault {
    value_error(format!("Field `{name}' cannot be None"))
}

pub(super) fn value_error(message: String) -> Fault {
    Fault::new(FaultClass::ValueError, message)
}

fn type_error(message: String) -> Fault {
    Fault::new(FaultClass::TypeError, message)
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}
