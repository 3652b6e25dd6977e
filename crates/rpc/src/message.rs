//! Requests, calls and notifications, decoded.

use scoria_model::{MessageId, RequestContext};
use serde_json::{Map, Value};

/// One request, as it arrived or as it is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Method name.
    pub method: String,
    /// Arguments; each value is serialised by itself.
    pub args: Map<String, Value>,
    /// RPC version that the message needs, e.g. `3.0`.
    pub version: String,
    /// Who asked for what.
    pub context: RequestContext,
    /// Present on calls: the caller waits.
    pub call: Option<Call>,
    /// For noticing duplicates.
    pub unique_id: Option<MessageId>,
}

/// How to answer a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// To be echoed in the reply.
    pub msg_id: String,
    /// Queue of the caller.
    pub reply_q: String,
    /// Call-monitor timeout in seconds: the server must give a sign of life every half of it.
    pub monitor_timeout: Option<u64>,
}

impl Request {
    /// A request to send.
    #[must_use]
    pub fn new(method: &str, version: &str, context: RequestContext, args: Map<String, Value>) -> Self {
        Self {
            method: method.to_owned(),
            args,
            version: version.to_owned(),
            context,
            call: None,
            unique_id: Some(MessageId::random_hex()),
        }
    }
}

/// An event for whoever listens on the notification bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// `volume.<host>`, `snapshot.<host>`, …
    pub publisher_id: String,
    /// `volume.create.start`, …
    pub event_type: String,
    /// `INFO` or `ERROR`.
    pub priority: &'static str,
    /// What happened.
    pub payload: Value,
    /// Who asked; secrets are removed before sending.
    pub context: RequestContext,
}
