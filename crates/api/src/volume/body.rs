//! Reading request bodies: field by field, with the texts of Cinder's schema validation
//! (`cinder/api/validation/validators.py`, `cinder/api/schemas/`).

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use scoria_model::Metadata;
use serde_json::{Map, Value};

use super::errors::{ApiError, ApiResult};

/// `[oslo_middleware] max_request_body_size`, bytes.
pub(crate) const MAX_BYTES: usize = 114_688;

/// Largest integer of the schema's columns (`cinder/common/constants.py: DB_MAX_INT`).
const MAX_INT: u64 = 0x7FFF_FFFF;

/// Longest text of the schema's columns.
const MAX_TEXT: usize = 255;

/// A body: one JSON object.
#[derive(Debug, Clone)]
pub(crate) struct Body(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(error.status(), "Request is too large."))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) | Err(_) => Err(ApiError::bad_request("Malformed request body")),
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> ApiResult<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if ["application/json", "application/vnd.openstack.volume+json"].contains(&media.as_str()) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Type"))
}

impl Body {
    /// The object under `key`, beside which nothing but `also` may stand.
    pub(crate) fn object(&self, key: &'static str, also: &[&str]) -> ApiResult<Fields<'_>> {
        let known = [&[key], also].concat();
        let top = self.fields();
        top.require(key)?;
        top.only(&known)?.object(key)
    }

    /// The object itself.
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields { map: &self.0, name: None }
    }

    /// The one action of the body and its arguments; an action without arguments has null ones.
    pub(crate) fn action(&self) -> ApiResult<(&str, &Value)> {
        match self.0.iter().next() {
            Some((name, arguments)) if self.0.len() == 1 => Ok((name, arguments)),
            Some((_, _)) => {
                let second = self.0.keys().nth(1).map(String::as_str).unwrap_or_default();
                Err(self.fields().complain(unexpected(second)))
            }
            None => Err(ApiError::bad_request("Malformed request body")),
        }
    }
}

/// The fields of one object of a body. Every reader gives `None` for a field that is absent or null.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    /// The object.
    pub(crate) map: &'a Map<String, Value>,
    /// The field that it stands under; none for the body itself.
    name: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Arguments of the action `name`, which must be an object.
    pub(crate) fn of_action(name: &'a str, arguments: &'a Value) -> ApiResult<Self> {
        let map = arguments.as_object().ok_or_else(|| wrong_type(name, arguments, "'object'"))?;
        Ok(Self { map, name: Some(name) })
    }

    /// Refuses fields that are not in the list.
    pub(crate) fn only(self, known: &[&str]) -> ApiResult<Self> {
        match self.map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(extra) => Err(self.complain(unexpected(extra))),
            None => Ok(self),
        }
    }

    /// Refuses the absence of a field.
    pub(crate) fn require(self, key: &str) -> ApiResult<&'a Value> {
        self.map.get(key).ok_or_else(|| self.complain(format!("'{key}' is a required property")))
    }

    /// Cinder's sentence about the object as a whole.
    pub(crate) fn complain(self, why: impl std::fmt::Display) -> ApiError {
        match self.name {
            Some(name) => invalid(name, &Value::Object(self.map.clone()), why),
            None => ApiError::bad_request(why.to_string()),
        }
    }

    /// Refuses an object without any of the fields that a change may have.
    pub(crate) fn not_empty(self) -> ApiResult<()> {
        match self.map.is_empty() {
            true => Err(self.complain("{} is not valid under any of the given schemas")),
            false => Ok(()),
        }
    }

    /// Whether the field is there, be it null.
    pub(crate) fn contains(self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    fn value(self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An object that must be there.
    pub(crate) fn object(self, key: &'a str) -> ApiResult<Self> {
        let value = self.require(key)?;
        let map = value.as_object().ok_or_else(|| wrong_type(key, value, "'object'"))?;
        Ok(Self { map, name: Some(key) })
    }

    /// An object that may be absent.
    pub(crate) fn optional_object(self, key: &str) -> ApiResult<Option<&'a Map<String, Value>>> {
        self.value(key)
            .map(|value| value.as_object().ok_or_else(|| wrong_type(key, value, "'object', 'null'")))
            .transpose()
    }

    /// A text of at most 255 characters, as it stands.
    pub(crate) fn text(self, key: &str) -> ApiResult<Option<&'a str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(key, value, "'string', 'null'"))?;
        if text.chars().count() > MAX_TEXT {
            return Err(invalid(key, value, format_args!("{} is too long", python(value))));
        }
        Ok(Some(text))
    }

    /// The first of two spellings of a name or description that is there, without white space around it
    /// (`clean_name_and_description`). `Some(None)` is a null: it clears the field.
    pub(crate) fn label(self, key: &str, other: &str) -> ApiResult<Option<Option<String>>> {
        for key in [key, other] {
            if self.contains(key) {
                return Ok(Some(self.text(key)?.map(|text| text.trim().to_owned())));
            }
        }
        Ok(None)
    }

    /// A UUID, in any of the spellings that Cinder takes; given back in lower case with dashes.
    pub(crate) fn uuid(self, key: &str) -> ApiResult<Option<String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(key, value, "'string'"))?;
        match uuid::Uuid::parse_str(text) {
            Ok(id) => Ok(Some(id.to_string())),
            Err(_) => Err(invalid(key, value, format_args!("{} is not a 'uuid'", python(value)))),
        }
    }

    /// A boolean, or one of the texts that stand for one (`parameter_types.boolean`).
    pub(crate) fn boolean(self, key: &str) -> ApiResult<Option<bool>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let known = match value {
            Value::Bool(known) => Some(*known),
            Value::String(text) => parse_boolean(text),
            _ => None,
        };
        known.map(Some).ok_or_else(|| invalid(key, value, format_args!("{} is not a boolean", python(value))))
    }

    /// A size in GiB: a positive integer, or its digits (`parameter_types.volume_size`).
    pub(crate) fn size(self, key: &str) -> ApiResult<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = match value {
            Value::Number(number) if number.as_f64().is_some_and(|number| number < 1.0) => {
                return Err(invalid(key, value, format_args!("{number} is less than the minimum of 1")));
            }
            Value::Number(number) => number.as_u64().ok_or_else(|| wrong_type(key, value, "'integer', 'string'"))?,
            Value::String(digits) if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) => {
                digits.parse().unwrap_or(u64::MAX)
            }
            Value::String(_) => {
                return Err(invalid(key, value, format_args!("{} does not match '^[0-9]+$'", python(value))));
            }
            _ => return Err(wrong_type(key, value, "'integer', 'string'")),
        };
        match number {
            0 => Err(invalid(key, value, format_args!("{number} is less than the minimum of 1"))),
            1..=MAX_INT => Ok(Some(number)),
            _ => Err(invalid(key, value, format_args!("{number} is greater than the maximum of {MAX_INT}"))),
        }
    }

    /// Key and value pairs (`parameter_types.extra_specs`).
    pub(crate) fn metadata(self, key: &str) -> ApiResult<Option<Metadata>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| wrong_type(key, value, "'object'"))?;
        let mut metadata = Metadata::new();
        for (name, value) in map {
            let harmless = |c: char| c.is_ascii_alphanumeric() || "-_:. /".contains(c);
            if name.is_empty() || name.len() > MAX_TEXT || !name.chars().all(harmless) {
                let message = format!(
                    "Invalid input for field/attribute {key}. Value: {}. '{name}' does not match any of the regexes: \
                     '^[a-zA-Z0-9-_:. /]{{1,255}}$'",
                    python(&Value::Object(map.clone()))
                );
                return Err(ApiError::bad_request(message));
            }
            let text = value.as_str().ok_or_else(|| wrong_type(name, value, "'string'"))?;
            if text.chars().count() > MAX_TEXT {
                return Err(invalid(name, value, format_args!("{} is too long", python(value))));
            }
            metadata.insert(name.clone(), text.to_owned());
        }
        Ok(Some(metadata))
    }

    /// One of the given words.
    pub(crate) fn word(self, key: &str, words: &[&str]) -> ApiResult<Option<&'a str>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        if words.contains(&text) {
            return Ok(Some(text));
        }
        let known = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
        Err(invalid(key, &text.into(), format_args!("'{text}' is not one of [{known}]")))
    }
}

/// The texts that Cinder takes for a boolean (`oslo_utils.strutils.bool_from_string`).
pub(crate) fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

/// Cinder's sentence about one field.
pub(crate) fn invalid(key: &str, value: &Value, why: impl std::fmt::Display) -> ApiError {
    let shown = match value {
        Value::String(text) => text.clone(),
        other => python(other),
    };
    ApiError::bad_request(format!("Invalid input for field/attribute {key}. Value: {shown}. {why}"))
}

fn wrong_type(key: &str, value: &Value, types: &str) -> ApiError {
    invalid(key, value, format_args!("{} is not of type {types}", python(value)))
}

fn unexpected(key: &str) -> String {
    format!("Additional properties are not allowed ('{key}' was unexpected)")
}

/// A value as Python shows it.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let items = map.iter().map(|(key, value)| format!("'{key}': {}", python(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: Value) -> Body {
        match value {
            Value::Object(map) => Body(map),
            other => panic!("{other} is no body"),
        }
    }

    fn message<T: std::fmt::Debug>(result: ApiResult<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        error.message
    }

    #[test]
    fn sizes_are_positive_integers_or_their_digits() {
        let size = |value: Value| body(json!({"volume": {"size": value}})).object("volume", &[])?.size("size");
        assert_eq!(size(json!(3)), Ok(Some(3)));
        assert_eq!(size(json!("3")), Ok(Some(3)));
        assert_eq!(size(json!(null)), Ok(None));
        assert_eq!(
            message(size(json!(0))),
            "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1"
        );
        assert_eq!(
            message(size(json!("x"))),
            "Invalid input for field/attribute size. Value: x. 'x' does not match '^[0-9]+$'"
        );
        for bad in [json!(-1), json!(1.5), json!("0"), json!(""), json!(true), json!([]), json!(1_u64 << 31)] {
            message(size(bad));
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        assert_eq!(message(body(json!({})).object("volume", &[])), "'volume' is a required property");
        assert_eq!(
            message(body(json!({"volume": {}, "x": 1})).object("volume", &[])),
            "Additional properties are not allowed ('x' was unexpected)"
        );
        assert_eq!(
            message(body(json!({"volume": []})).object("volume", &[])),
            "Invalid input for field/attribute volume. Value: []. [] is not of type 'object'"
        );
        let nested = body(json!({"volume": {"x": 1}}));
        let fields = nested.object("volume", &[]).unwrap();
        assert_eq!(
            message(fields.only(&["size"])),
            "Invalid input for field/attribute volume. Value: {'x': 1}. Additional properties are not allowed ('x' was \
             unexpected)"
        );
        assert_eq!(
            message(fields.require("size")),
            "Invalid input for field/attribute volume. Value: {'x': 1}. 'size' is a required property"
        );
        let actions = body(json!({"os-extend": {}, "os-attach": {}}));
        message(actions.action());
        message(body(json!({})).action());
    }

    #[test]
    fn labels_lose_the_space_around_them_and_null_clears() {
        let given = body(json!({"volume": {"display_name": "  a b ", "description": null}}));
        let fields = given.object("volume", &[]).unwrap();
        assert_eq!(fields.label("name", "display_name"), Ok(Some(Some("a b".to_owned()))));
        assert_eq!(fields.label("description", "display_description"), Ok(Some(None)));
        let long = body(json!({"volume": {"name": "x".repeat(256)}}));
        assert!(message(long.object("volume", &[]).unwrap().label("name", "display_name")).ends_with("is too long"));
    }

    #[test]
    fn metadata_are_texts_under_harmless_keys() {
        let read = |value: Value| body(json!({"v": {"metadata": value}})).object("v", &[])?.metadata("metadata");
        assert_eq!(read(json!({"a": "b"})).unwrap().unwrap()["a"], "b");
        for bad in [json!({"": "b"}), json!({"a\n": "b"}), json!({"a": 1}), json!({"a": null}), json!(["a"])] {
            message(read(bad));
        }
    }

    #[test]
    fn booleans_come_in_many_words() {
        for (text, known) in [("True", Some(true)), ("on", Some(true)), ("NO", Some(false)), ("maybe", None)] {
            assert_eq!(parse_boolean(text), known, "{text}");
        }
    }
}
