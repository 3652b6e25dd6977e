//! The oslo.messaging envelope, version 2.0.

use serde_json::Value;

use crate::Request;
use scoria_model::Fault;

/// A body that is no request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("message cannot be decoded: {reason}")]
pub struct DecodeError {
    /// What is wrong with it.
    pub reason: String,
    /// How to answer, when the body tells: such a caller gets the failure.
    pub call: Option<crate::Call>,
}

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

/// Reads a request.
///
/// # Errors
/// [`DecodeError`] with what is wrong.
pub fn decode(body: &[u8]) -> Result<Request, DecodeError> {
    let _ = body;
    Err(DecodeError { reason: String::new(), call: None })
}

/// Writes a request.
#[must_use]
pub fn encode(request: &Request) -> Vec<u8> {
    let _ = request;
    Vec::new()
}

/// Writes a reply.
#[must_use]
pub fn encode_reply(msg_id: &str, outcome: &Result<Value, Fault>) -> Vec<u8> {
    let _ = (msg_id, outcome);
    Vec::new()
}
