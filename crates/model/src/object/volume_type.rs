//! Volume types as objects (`cinder/objects/volume_type.py: VolumeType`).

use super::{Object, time};
use crate::{Fault, VolumeType};

impl TryFrom<&Object> for VolumeType {
    type Error = Fault;
    fn try_from(object: &Object) -> Result<Self, Fault> {
        Ok(Self {
            id: object.required("id", object.id("id")?)?,
            name: object.text("name").unwrap_or_default(),
            description: object.text("description"),
            is_public: object.flag("is_public", true),
            extra_specs: object.texts("extra_specs"),
            qos_specs_id: object.text("qos_specs_id"),
            created_at: object.time("created_at"),
            updated_at: object.time("updated_at"),
        })
    }
}

impl From<&VolumeType> for Object {
    fn from(volume_type: &VolumeType) -> Self {
        Self::new("VolumeType")
            .with("id", volume_type.id.as_str())
            .with("name", volume_type.name.clone())
            .with("description", volume_type.description.clone())
            .with("is_public", volume_type.is_public)
            .with("extra_specs", super::texts(&volume_type.extra_specs))
            .with("qos_specs_id", volume_type.qos_specs_id.clone())
            .with("created_at", time(volume_type.created_at))
            .with("updated_at", time(volume_type.updated_at))
            .with("deleted_at", time(None))
            .with("deleted", false)
    }
}
