//! Requests to clean up after a service (`cinder/objects/cleanup.py: CleanupRequest`).

use serde_json::Value;

use super::Object;
use crate::{Fault, Timestamp};

/// Whose interrupted work is to be settled; what is `None` does not narrow it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupRequest {
    /// The service's id.
    pub service_id: Option<i64>,
    /// The cluster.
    pub cluster_name: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// `cinder-volume`, `cinder-scheduler`, …
    pub binary: Option<String>,
    /// Whether the service is up.
    pub is_up: bool,
    /// Whether it is disabled.
    pub disabled: Option<bool>,
    /// One resource only.
    pub resource_id: Option<String>,
    /// `Volume` or `Snapshot`.
    pub resource_type: Option<String>,
    /// Only what was not touched since.
    pub until: Option<Timestamp>,
}

/// Reads a `CleanupRequest` object.
///
/// # Errors
/// As [`Object::decode`].
pub fn decode_cleanup_request(value: &Value) -> Result<CleanupRequest, Fault> {
    let object = Object::decode_as("CleanupRequest", value)?;
    Ok(CleanupRequest {
        service_id: object.plain("service_id").and_then(Value::as_i64),
        cluster_name: object.text("cluster_name"),
        host: object.text("host"),
        binary: object.text("binary"),
        is_up: object.flag("is_up", false),
        disabled: object.plain("disabled").and_then(Value::as_bool),
        resource_id: object.text("resource_id"),
        resource_type: object.text("resource_type"),
        until: object.time("until"),
    })
}
