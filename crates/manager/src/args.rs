//! Arguments of a request, taken out by name and type, with the errors that a Python method would raise.

use scoria_model::{AttachmentId, Connector, Fault, FaultClass, Snapshot, SnapshotId, Volume, VolumeId, object};
use serde_json::{Map, Value};

/// The arguments of one request. Whatever was not asked for by the end is an unexpected argument.
pub(crate) struct Args {
    method: String,
    left: Map<String, Value>,
}

impl Args {
    pub(crate) fn new(method: &str, args: &Map<String, Value>) -> Self {
        Self { method: method.to_owned(), left: args.clone() }
    }

    fn type_error(&self, text: &str) -> Fault {
        Fault::new(FaultClass::TypeError, format!("VolumeManager.{}() {text}", self.method))
    }

    fn wrong(&self, name: &str, expected: &str, found: &Value) -> Fault {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.type_error(&format!("argument '{name}': expected {expected}, got {found}"))
    }

    fn required(&mut self, name: &str) -> Result<Value, Fault> {
        self.left
            .remove(name)
            .ok_or_else(|| self.type_error(&format!("missing 1 required positional argument: '{name}'")))
    }

    /// An argument that may be absent or null.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn volume(&mut self, name: &str) -> Result<Volume, Fault> {
        let value = self.required(name)?;
        object::decode_volume(&value)
    }

    /// A volume that older clients do not send.
    pub(crate) fn optional_volume(&mut self, name: &str) -> Result<Option<Volume>, Fault> {
        self.optional(name).map(|value| object::decode_volume(&value)).transpose()
    }

    pub(crate) fn snapshot(&mut self, name: &str) -> Result<Snapshot, Fault> {
        let value = self.required(name)?;
        object::decode_snapshot(&value)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, Fault> {
        match self.required(name)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(name, "a string", &other)),
        }
    }

    pub(crate) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.optional(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string or null", &other)),
        }
    }

    pub(crate) fn volume_id(&mut self, name: &str) -> Result<VolumeId, Fault> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Fault::volume_not_found(text))
    }

    pub(crate) fn attachment_id(&mut self, name: &str) -> Result<AttachmentId, Fault> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Fault::attachment_not_found(text))
    }

    pub(crate) fn size(&mut self, name: &str) -> Result<u64, Fault> {
        let value = self.required(name)?;
        // Python's int() takes numbers in text, and so do its peers.
        let size = value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        size.filter(|size| *size > 0).ok_or_else(|| self.wrong(name, "a size of at least 1 GiB", &value))
    }

    pub(crate) fn flag(&mut self, name: &str, default: bool) -> Result<bool, Fault> {
        match self.optional(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(name, "a boolean", &other)),
        }
    }

    pub(crate) fn connector(&mut self, name: &str) -> Result<Connector, Fault> {
        match self.required(name)? {
            Value::Object(connector) => Ok(connector),
            other => Err(self.wrong(name, "an object", &other)),
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let value = self.optional(name).unwrap_or_else(|| Value::Array(Vec::new()));
        let texts =
            value.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.ok_or_else(|| self.wrong(name, "a list of strings", &value))
    }

    /// No argument may be left.
    pub(crate) fn done(self) -> Result<(), Fault> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.type_error(&format!("got an unexpected keyword argument '{name}'"))),
        }
    }
}

/// The id a request is about, without decoding the rest: the key under which it takes its turn.
pub(crate) fn key(args: &Map<String, Value>) -> Option<String> {
    let object_id = |value: &Value| {
        let data = value.get("versioned_object.data")?;
        // A snapshot takes its turn with its volume: both work on the same chain of files.
        data.get("volume_id").or_else(|| data.get("id"))?.as_str().map(str::to_owned)
    };
    ["volume", "vref", "snapshot"]
        .iter()
        .find_map(|name| args.get(*name).and_then(object_id))
        .or_else(|| args.get("volume_id").and_then(Value::as_str).map(str::to_owned))
}

pub(crate) fn snapshot_id(text: &str) -> Result<SnapshotId, Fault> {
    text.parse().map_err(|_| Fault::snapshot_not_found(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(value: Value) -> Args {
        Args::new("extend_volume", value.as_object().unwrap())
    }

    #[test]
    fn missing_ill_typed_and_unexpected_arguments_are_type_errors_that_name_them() {
        let fault = args(json!({})).size("new_size").unwrap_err();
        assert_eq!(fault.class, FaultClass::TypeError);
        assert!(fault.message.contains("missing 1 required positional argument: 'new_size'"), "{fault}");
        let fault = args(json!({"new_size": []})).size("new_size").unwrap_err();
        assert!(fault.message.contains("expected a size"), "{fault}");
        let fault = args(json!({"what": 1})).done().unwrap_err();
        assert!(fault.message.contains("unexpected keyword argument 'what'"), "{fault}");
    }

    #[test]
    fn a_snapshot_takes_its_turn_with_its_volume() {
        let args = json!({"snapshot": {"versioned_object.data": {"id": "s", "volume_id": "v"}}});
        assert_eq!(key(args.as_object().unwrap()).as_deref(), Some("v"));
    }
}
