//! Versioned objects on the wire: an envelope with name, version and data
//! (`oslo_versionedobjects/base.py`, `cinder/objects/*.py`).
//!
//! [`Object`] reads and writes any class by its [`Schema`]; upon it stand `decode_…` and `encode_…` for the types of this
//! crate, and [`RequestSpec`]. An object from a peer is the state of some moment, not of now: operations read the row afresh.

mod attachment;
mod cleanup_request;
mod codec;
mod fields;
mod history;
mod log_level;
mod request_spec;
mod schema;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod volume;
mod volume_type;

use serde_json::Value;

use crate::{Metadata, Timestamp};

pub use attachment::{decode_attachment, encode_attachment};
pub use cleanup_request::{CleanupRequest, decode_cleanup_request};
pub use codec::{Datum, Object};
pub use history::{History, UnknownHistory};
pub use log_level::{LogLevel, decode_log_level, encode_log_level, encode_log_levels};
pub use request_spec::RequestSpec;
pub use schema::{Field, Schema};
pub use snapshot::{decode_snapshot, encode_snapshot};
pub use volume::{decode_volume, encode_volume};

/// A time as objects have it: whole seconds.
fn time(at: Option<Timestamp>) -> Value {
    at.map(Timestamp::to_object).into()
}

fn texts(map: &Metadata) -> Value {
    map.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect()
}
