//! Replies and failures (`oslo_messaging/_drivers/amqpdriver.py: AMQPIncomingMessage._send_reply`,
//! `common.py: serialize_remote_exception`).

use scoria_model::{Fault, FaultClass, MessageId};
use serde_json::{Map, Value, json};

use crate::envelope::{kind, open, seal};
use crate::{DecodeError, Error};

/// A reply, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The call's id.
    pub msg_id: String,
    /// False for a sign of life.
    pub ending: bool,
    /// Result, or the failure's JSON object.
    pub result: Result<Value, Value>,
}

impl Reply {
    /// What the caller gets; meaningless for a sign of life.
    ///
    /// # Errors
    /// [`Error::Remote`] when the failure's class is one of ours, [`Error::RemoteUnknown`] otherwise.
    pub fn outcome(self) -> Result<Value, Error> {
        self.result.map_err(|failure| read_failure(&failure))
    }
}

/// Writes the reply that ends a call.
#[must_use]
pub fn encode_reply(msg_id: &str, outcome: &Result<Value, Fault>) -> Vec<u8> {
    match outcome {
        Ok(result) => seal_reply(msg_id, result.clone(), Value::Null, true),
        Err(fault) => seal_reply(msg_id, Value::Null, write_failure(fault).to_string().into(), true),
    }
}

/// Writes a sign of life, for calls whose caller watches us (`_timeout`).
#[must_use]
pub fn encode_heartbeat(msg_id: &str) -> Vec<u8> {
    seal_reply(msg_id, Value::Null, Value::Null, false)
}

fn seal_reply(msg_id: &str, result: Value, failure: Value, ending: bool) -> Vec<u8> {
    let unique_id = MessageId::random_hex();
    seal(&json!({
        "result": result, "failure": failure, "ending": ending, "_msg_id": msg_id, "_unique_id": unique_id.as_str(),
    }))
}

/// Reads a reply.
///
/// # Errors
/// [`DecodeError`] when it is none; there is nobody to answer to.
pub fn decode_reply(body: &[u8]) -> Result<Reply, DecodeError> {
    let mut message = open(body)?;
    let Some(Value::String(msg_id)) = message.remove("_msg_id") else {
        return Err(DecodeError::new("a reply without '_msg_id'"));
    };
    let failure = match message.remove("failure").unwrap_or(Value::Null) {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(failure) => Some(failure),
            Err(error) => return Err(DecodeError::new(format!("the failure in reply {msg_id} is not JSON: {error}"))),
        },
        failure @ Value::Object(_) => Some(failure),
        other => return Err(DecodeError::new(format!("the failure in reply {msg_id} is {}", kind(&other)))),
    };
    let ending = match message.remove("ending") {
        Some(Value::Bool(ending)) => ending || failure.is_some(),
        None => failure.is_some(),
        Some(other) => return Err(DecodeError::new(format!("'ending' in reply {msg_id} is {}", kind(&other)))),
    };
    let result = match failure {
        Some(failure) => Err(failure),
        None => Ok(message.remove("result").unwrap_or(Value::Null)),
    };
    Ok(Reply { msg_id, ending, result })
}

/// The failure's JSON. The client builds `class(*args, **kwargs)`: a Cinder exception takes its finished message and its
/// keyword arguments with the HTTP status among them, built-in ones take the message alone.
fn write_failure(fault: &Fault) -> Value {
    let class = fault.class;
    let mut kwargs = Map::new();
    if takes_keywords(class) {
        kwargs.clone_from(&fault.kwargs);
        // The exception's own first parameter; it would be given twice.
        kwargs.remove("message");
        kwargs.insert("code".to_owned(), class.code().into());
    }
    json!({
        "class": class.name(), "module": class.module(), "message": fault.message,
        "tb": [], "args": [fault.message], "kwargs": kwargs,
    })
}

fn takes_keywords(class: FaultClass) -> bool {
    matches!(class.module(), "cinder.exception" | "oslo_versionedobjects.exception")
}

fn read_failure(failure: &Value) -> Error {
    let text = |key: &str| failure.get(key).and_then(Value::as_str).unwrap_or_default();
    let (name, message) = (text("class"), text("message").to_owned());
    // Python 2 said `exceptions` for `builtins`.
    let module = if text("module") == "exceptions" { "builtins" } else { text("module") };
    match FaultClass::from_name(name).filter(|class| class.module() == module) {
        Some(class) => {
            let mut kwargs = failure.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default();
            kwargs.remove("code");
            Error::Remote(Fault { class, message, kwargs })
        }
        None => Error::RemoteUnknown { class: format!("{module}.{name}"), message },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(outcome: Result<Value, Fault>) -> Result<Value, Error> {
        let reply = decode_reply(&encode_reply("id", &outcome)).unwrap();
        assert_eq!((reply.msg_id.as_str(), reply.ending), ("id", true));
        reply.outcome()
    }

    #[test]
    fn results_and_faults_come_back() {
        assert_eq!(back(Ok(json!({"a": 1}))).unwrap(), json!({"a": 1}));
        let fault = Fault::volume_not_found("xx");
        assert!(matches!(back(Err(fault.clone())), Err(Error::Remote(same)) if same == fault));
        let fault = Fault::unsupported_version("4.0", "m");
        assert!(matches!(back(Err(fault.clone())), Err(Error::Remote(same)) if same == fault));
    }

    #[test]
    fn a_sign_of_life_does_not_end_the_call() {
        let reply = decode_reply(&encode_heartbeat("id")).unwrap();
        assert_eq!((reply.ending, reply.result), (false, Ok(Value::Null)));
    }

    #[test]
    fn an_unknown_class_keeps_its_name_and_message() {
        let failure = json!({"class": "Odd", "module": "other.exc", "message": "m", "args": [], "kwargs": {}});
        let body = seal(&json!({"_msg_id": "id", "failure": failure.to_string(), "ending": true}));
        let error = decode_reply(&body).unwrap().outcome().unwrap_err();
        assert_eq!(error.to_string(), "remote error: other.exc.Odd: m");
        // A class of that name in another module is another class.
        let failure = json!({"class": "VolumeNotFound", "module": "other.exc", "message": "m"});
        let body = seal(&json!({"_msg_id": "id", "failure": failure, "ending": true}));
        assert!(matches!(decode_reply(&body).unwrap().outcome(), Err(Error::RemoteUnknown { .. })));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [
            json!({}),
            json!({"_msg_id": 1}),
            json!({"_msg_id": "i", "failure": "{"}),
            json!({"_msg_id": "i", "failure": 1}),
        ] {
            decode_reply(&seal(&bad)).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_reply(&body);
        }

        #[test]
        fn ill_typed_replies_are_no_panic(key in "(_msg_id|failure|ending|result)", value in crate::testing::any_json()) {
            let mut message = json!({"_msg_id": "i", "failure": null, "ending": true, "result": 1});
            message[key] = value;
            let _ = decode_reply(&seal(&message)).map(Reply::outcome);
        }
    }
}
