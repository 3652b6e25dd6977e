//! Volume types (`cinder/api/v3/views/types.py`).

use scoria_model::VolumeType;
use serde_json::{Value, json};

/// A volume type, as an administrator sees it.
pub(crate) fn volume_type(of: &VolumeType) -> Value {
    json!({
        "id": of.id.as_str(),
        "name": of.name,
        "is_public": of.is_public,
        "description": of.description,
        "extra_specs": of.extra_specs,
        "qos_specs_id": of.qos_specs_id,
        "os-volume-type-access:is_public": of.is_public,
    })
}
