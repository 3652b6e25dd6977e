//! The oslo.messaging envelope, version 2.0, and the requests in it
//! (`oslo_messaging/_drivers/common.py: serialize_msg`, `amqp.py: pack_context`).
//!
//! A body is `{"oslo.version": "2.0", "oslo.message": "<JSON text>"}`; one without these keys is the message itself (1.0).

use scoria_model::{Fault, FaultClass, MessageId, RequestContext};
use serde_json::{Map, Value, json};

use crate::{Call, Request};

/// Largest body in bytes that is looked at. Cinder's largest messages (capabilities of many pools, a service catalogue)
/// have some hundred kilobytes.
pub const MAX_BODY_BYTES: usize = 16 << 20;

const ENVELOPE_VERSION: &str = "2.0";
const VERSION_KEY: &str = "oslo.version";
const MESSAGE_KEY: &str = "oslo.message";
const CONTEXT_PREFIX: &str = "_context_";

/// A body that is no request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("message cannot be decoded: {reason}")]
pub struct DecodeError {
    /// What is wrong with it.
    pub reason: String,
    /// How to answer, when the body tells: such a caller gets the failure.
    pub call: Option<Call>,
}

impl DecodeError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), call: None }
    }

    /// The failure for a caller that waits.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::new(FaultClass::ValueError, self.to_string())
    }
}

/// Reads a request.
///
/// # Errors
/// [`DecodeError`] with what is wrong, and with the way to answer as soon as that much could be read.
pub fn decode(body: &[u8]) -> Result<Request, DecodeError> {
    let mut message = open(body)?;
    let call = take_call(&mut message)?;
    read_request(message, call.clone()).map_err(|reason| DecodeError { reason, call })
}

fn read_request(mut message: Map<String, Value>, call: Option<Call>) -> Result<Request, String> {
    let method = match message.remove("method") {
        Some(Value::String(method)) if !method.is_empty() => method,
        Some(other) => return Err(format!("'method' is {}, expected text", kind(&other))),
        None => return Err("'method' is missing".to_owned()),
    };
    let args = match message.remove("args") {
        Some(Value::Object(args)) => args,
        None => Map::new(),
        Some(other) => return Err(format!("'args' of {method} is {}, expected an object", kind(&other))),
    };
    let version = match message.remove("version") {
        Some(Value::String(version)) => version,
        None | Some(Value::Null) => "1.0".to_owned(),
        Some(other) => return Err(format!("'version' of {method} is {}, expected text", kind(&other))),
    };
    match message.remove("namespace") {
        None | Some(Value::Null) => {}
        Some(other) => return Err(format!("no endpoint has the namespace {other} that {method} was sent to")),
    }
    let unique_id = match message.remove("_unique_id") {
        // An id in a foreign form cannot be a duplicate of one of ours: not worth losing the request.
        Some(Value::String(id)) => id.parse::<MessageId>().ok(),
        None | Some(Value::Null) => None,
        Some(other) => return Err(format!("'_unique_id' of {method} is {}, expected text", kind(&other))),
    };
    let context = message
        .into_iter()
        .filter_map(|(key, value)| key.strip_prefix(CONTEXT_PREFIX).map(|key| (key.to_owned(), value)))
        .collect();
    Ok(Request { method, args, version, context: RequestContext::from_map(context), call, unique_id })
}

/// Reads how to answer; a message without `_msg_id` is a cast.
fn take_call(message: &mut Map<String, Value>) -> Result<Option<Call>, DecodeError> {
    let msg_id = match message.remove("_msg_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(id)) => id,
        Some(other) => return Err(DecodeError::new(format!("'_msg_id' is {}, expected text", kind(&other)))),
    };
    let Some(Value::String(reply_q)) = message.remove("_reply_q") else {
        return Err(DecodeError::new(format!("call {msg_id} names no queue for its reply ('_reply_q')")));
    };
    let monitor = message.remove("_timeout").unwrap_or(Value::Null);
    // Whole seconds; a fraction is cut, and less than a second counts as one.
    let monitor_timeout =
        monitor.as_f64().filter(|seconds| *seconds > 0.0).map(|seconds| (seconds.min(86_400.0) as u64).max(1));
    let call = Call { msg_id, reply_q, monitor_timeout };
    match monitor {
        Value::Null | Value::Number(_) => Ok(Some(call)),
        other => {
            let reason = format!("'_timeout' is {}, expected seconds", kind(&other));
            Err(DecodeError { reason, call: Some(call) })
        }
    }
}

/// Writes a request.
#[must_use]
pub fn encode(request: &Request) -> Vec<u8> {
    let mut message = Map::new();
    message.insert("method".to_owned(), request.method.clone().into());
    message.insert("args".to_owned(), request.args.clone().into());
    message.insert("version".to_owned(), request.version.clone().into());
    if let Some(call) = &request.call {
        message.insert("_msg_id".to_owned(), call.msg_id.clone().into());
        message.insert("_reply_q".to_owned(), call.reply_q.clone().into());
        message.insert("_timeout".to_owned(), call.monitor_timeout.into());
    }
    if let Some(unique_id) = &request.unique_id {
        message.insert("_unique_id".to_owned(), unique_id.as_str().into());
    }
    add_context(&mut message, request.context.to_map());
    seal(&Value::Object(message))
}

/// Adds a context, one key per field.
pub(crate) fn add_context(message: &mut Map<String, Value>, context: Map<String, Value>) {
    message.extend(context.into_iter().map(|(key, value)| (format!("{CONTEXT_PREFIX}{key}"), value)));
}

/// Puts a message into the envelope.
pub(crate) fn seal(message: &Value) -> Vec<u8> {
    json!({ VERSION_KEY: ENVELOPE_VERSION, MESSAGE_KEY: message.to_string() }).to_string().into_bytes()
}

/// Takes a message out of its envelope, if it has one.
///
/// # Errors
/// [`DecodeError`] without a way to answer: what cannot be opened does not tell any.
pub fn open(body: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        let reason = format!("{} bytes are more than the limit of {MAX_BODY_BYTES}", body.len());
        return Err(DecodeError::new(reason));
    }
    let outer = object(serde_json::from_slice(body), "body")?;
    let (Some(version), Some(message)) = (outer.get(VERSION_KEY), outer.get(MESSAGE_KEY)) else {
        return Ok(outer);
    };
    if !version.as_str().is_some_and(envelope_version_is_known) {
        let reason = format!("envelope version {version} is not supported, expected {ENVELOPE_VERSION}");
        return Err(DecodeError::new(reason));
    }
    let Some(text) = message.as_str() else {
        return Err(DecodeError::new(format!("'{MESSAGE_KEY}' is {}, expected JSON text", kind(message))));
    };
    object(serde_json::from_str(text), MESSAGE_KEY)
}

fn object(parsed: Result<Value, serde_json::Error>, what: &str) -> Result<Map<String, Value>, DecodeError> {
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(DecodeError::new(format!("the {what} is {}, expected an object", kind(&other)))),
        Err(error) => Err(DecodeError::new(format!("the {what} is not JSON: {error}"))),
    }
}

/// Same major version, and no newer minor one.
fn envelope_version_is_known(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    matches!((parts.next(), parts.next()), (Some(Ok(2)), Some(Ok(0))))
}

/// What a value is, for an error text.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(message: Value) -> Vec<u8> {
        seal(&message)
    }

    fn reason(body: &[u8]) -> String {
        decode(body).unwrap_err().reason
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let args = json!({"volume_id": "v", "force": false}).as_object().unwrap().clone();
        let mut request = Request::new("terminate_connection", "3.0", RequestContext::user("u", "p"), args);
        request.call = Some(Call { msg_id: "a".into(), reply_q: "reply_b".into(), monitor_timeout: Some(10) });
        let decoded = decode(&encode(&request)).unwrap();
        assert_eq!((&decoded.args, &decoded.call), (&request.args, &request.call));
        assert_eq!(decoded.unique_id, request.unique_id);
        assert_eq!(decoded.context.user_id.as_deref(), Some("u"));
        // A second trip changes nothing: what is not known the first time is filled in then.
        assert_eq!(decode(&encode(&decoded)).unwrap(), decoded);
    }

    #[test]
    fn a_bare_message_is_read_too() {
        let body = json!({"method": "freeze_host", "_context_user_id": "u"}).to_string();
        let request = decode(body.as_bytes()).unwrap();
        assert_eq!((request.method.as_str(), request.version.as_str()), ("freeze_host", "1.0"));
        assert_eq!(request.context.user_id.as_deref(), Some("u"));
        assert_eq!((request.call, request.unique_id), (None, None));
    }

    #[test]
    fn what_is_no_request_is_named() {
        assert!(reason(b"\xff\x00").contains("not JSON"));
        assert!(reason(b"[1]").contains("a list"));
        assert!(reason(br#"{"oslo.version": "2.1", "oslo.message": "{}"}"#).contains("\"2.1\" is not supported"));
        assert!(reason(br#"{"oslo.version": 2.0, "oslo.message": "{}"}"#).contains("not supported"));
        assert!(reason(br#"{"oslo.version": "2.0", "oslo.message": {}}"#).contains("expected JSON text"));
        assert!(reason(br#"{"oslo.version": "2.0", "oslo.message": "{"}"#).contains("oslo.message is not JSON"));
        assert!(reason(&sealed(json!({"args": {}}))).contains("'method' is missing"));
        assert!(reason(&sealed(json!({"method": "m", "args": []}))).contains("'args' of m is a list"));
        assert!(reason(&sealed(json!({"method": "m", "version": 3}))).contains("'version' of m"));
        assert!(reason(&sealed(json!({"method": "m", "_msg_id": "x"}))).contains("_reply_q"));
        assert!(reason(&vec![b' '; MAX_BODY_BYTES + 1]).contains("limit"));
        // Deep nesting must not exhaust the stack.
        assert!(reason("[".repeat(100_000).as_bytes()).contains("not JSON"));
    }

    #[test]
    fn a_bad_call_still_tells_whom_to_answer() {
        let body = sealed(json!({"method": 7, "_msg_id": "id", "_reply_q": "reply_q", "_timeout": null}));
        let error = decode(&body).unwrap_err();
        assert_eq!(error.call.as_ref().map(|call| call.reply_q.as_str()), Some("reply_q"));
        assert_eq!(error.fault().class, FaultClass::ValueError);
        let body = sealed(json!({"method": "m", "_msg_id": "id", "_reply_q": "reply_q", "_timeout": "soon"}));
        assert!(decode(&body).unwrap_err().call.is_some());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body);
        }

        #[test]
        fn decoding_never_panics_on_ill_typed_messages(
            key in "(method|args|version|namespace|_msg_id|_reply_q|_timeout|_unique_id|_context_roles)",
            value in crate::testing::any_json(),
            wrapped in any::<bool>(),
        ) {
            let mut message = json!({"method": "m", "args": {}, "_msg_id": "i", "_reply_q": "q", "_unique_id": "u"});
            message[key] = value;
            let _ = decode(&if wrapped { seal(&message) } else { message.to_string().into_bytes() });
        }

        #[test]
        fn encoding_and_decoding_are_inverse(value in crate::testing::any_json(), name in "[a-z_]{1,12}") {
            let args = Map::from_iter([(name, value)]);
            let request = Request::new("m", "3.0", RequestContext::user("u", "p"), args);
            let once = decode(&encode(&request)).unwrap();
            prop_assert_eq!(&once.args, &request.args);
            prop_assert_eq!(decode(&encode(&once)).unwrap(), once);
        }
    }
}
