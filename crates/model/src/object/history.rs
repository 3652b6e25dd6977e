//! Versions of all objects together (`cinder/objects/base.py: CinderObjectVersionsHistory`).

use std::str::FromStr;

use serde_json::Value;

use super::codec::{NAME, VERSION};
use super::tables;

/// A version of the object history: what a service writes into `services.object_current_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum History {
    /// `1.38`: releases before Xena.
    V1_38,
    /// `1.39`: since Xena, and what we speak.
    V1_39,
}

/// A version of the object history that we cannot write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "object version '{0}' is unknown: known are 1.38 and 1.39; another service of this cloud is too old or too new"
)]
pub struct UnknownHistory(String);

impl FromStr for History {
    type Err = UnknownHistory;
    fn from_str(text: &str) -> Result<Self, UnknownHistory> {
        match text {
            "1.38" => Ok(Self::V1_38),
            "1.39" => Ok(Self::V1_39),
            other => Err(UnknownHistory(other.to_owned())),
        }
    }
}

impl History {
    /// Labels every object in `value`, at any depth, with the version that peers of this history know. The data stay as
    /// they are: 1.38 differs by one field that older peers skip, and Cinder sends it to them too.
    pub fn label(self, value: &mut Value) {
        if self == Self::V1_39 {
            return;
        }
        match value {
            Value::Array(elements) => elements.iter_mut().for_each(|element| self.label(element)),
            Value::Object(map) => {
                let schema = map.get(NAME).and_then(Value::as_str).and_then(tables::find);
                if let Some(schema) = schema.filter(|_| map.contains_key(VERSION)) {
                    map.insert(VERSION.to_owned(), schema.version_1_38.into());
                }
                map.values_mut().for_each(|element| self.label(element));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{decode_volume, encode_volume};
    use crate::{Volume, VolumeId};

    #[test]
    fn old_peers_get_old_labels_at_every_depth() {
        let volume = encode_volume(&Volume::new(VolumeId::random(), 1));
        let mut args = serde_json::json!({"volume": volume, "list": [volume], "plain": {"a": 1}});
        let native = args.clone();
        History::V1_39.label(&mut args);
        assert_eq!(args, native);
        "1.38".parse::<History>().unwrap().label(&mut args);
        assert_eq!(args["volume"][VERSION], "1.8");
        assert_eq!(args["list"][0][VERSION], "1.8");
        assert_eq!(args["volume"]["versioned_object.data"]["use_quota"], true);
        assert!(decode_volume(&args["volume"]).is_ok());
        assert!("1.40".parse::<History>().is_err());
    }
}
