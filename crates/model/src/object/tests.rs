use serde_json::{Value, json};

use super::codec::NAME;
use super::tables::SCHEMAS;
use super::*;
use crate::{Attachment, AttachmentId, Fault, FaultClass, Snapshot, SnapshotId, Volume, VolumeId};

fn envelope(class: &str, version: &str, data: Value) -> Value {
    json!({
        "versioned_object.name": class, "versioned_object.namespace": "cinder", "versioned_object.version": version,
        "versioned_object.data": data,
    })
}

fn volume(data: Value) -> Result<Object, Fault> {
    Object::decode(&envelope("Volume", "1.9", data))
}

fn class_of(outcome: Result<Object, Fault>) -> FaultClass {
    outcome.unwrap_err().class
}

#[test]
fn null_and_not_set_are_two_things() {
    let object = volume(json!({"id": "v", "host": null})).unwrap();
    assert_eq!(object.get("host"), Some(&Datum::Plain(Value::Null)));
    assert_eq!(object.get("status"), None);
    assert_eq!(object.encode(), envelope("Volume", "1.9", json!({"id": "v", "host": null})));
}

#[test]
fn null_is_a_default_an_error_or_nothing_as_the_field_says() {
    assert!(volume(json!({"use_quota": null})).unwrap().flag("use_quota", false));
    let fault = volume(json!({"id": null})).unwrap_err();
    assert_eq!(fault.to_string(), "Field `id' cannot be None");
    let fault = Object::decode(&envelope("Snapshot", "1.6", json!({"metadata": null}))).unwrap_err();
    assert_eq!(fault.class, FaultClass::ValueError);
    let fault = volume(json!({"metadata": {"k": null}})).unwrap_err();
    assert_eq!(fault.to_string(), "Field `metadata[\"k\"]' cannot be None");
    let specs = json!({"id": "t", "extra_specs": {"k": null}});
    let volume_type = Object::decode(&envelope("VolumeType", "1.3", specs.clone())).unwrap();
    assert_eq!(volume_type.encode()["versioned_object.data"], specs);
}

#[test]
fn values_are_brought_into_their_types() {
    let object = volume(json!({
        "size": "3", "bootable": "false", "multiattach": 0, "display_name": 7, "metadata": {"k": 1},
        "created_at": "2026-11-22T05:59:27.123456+01:00", "deleted": [],
    }));
    let data = object.unwrap().encode()["versioned_object.data"].clone();
    let expected = json!({
        "size": 3, "bootable": true, "multiattach": false, "display_name": "7", "metadata": {"k": "1"},
        "created_at": "2026-11-22T04:59:27Z", "deleted": false,
    });
    assert_eq!(data, expected);
    assert_eq!(volume(json!({"size": 2.9})).unwrap().size("size").unwrap(), 2);
}

#[test]
fn what_does_not_fit_gets_python_s_fault() {
    assert_eq!(class_of(volume(json!({"size": "three"}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"size": 1e300}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"size": {}}))), FaultClass::TypeError);
    assert_eq!(class_of(volume(json!({"host": ["h"]}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"attach_status": "glued"}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"launched_at": 7}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"metadata": []}))), FaultClass::ValueError);
    assert_eq!(class_of(volume(json!({"volume_type": {"id": "t"}}))), FaultClass::ValueError);
    let snapshot = envelope("Snapshot", "1.6", json!({}));
    assert_eq!(class_of(volume(json!({"volume_type": snapshot}))), FaultClass::ValueError);
    assert_eq!(class_of(Object::decode(&json!("v"))), FaultClass::TypeError);
    assert_eq!(class_of(Object::decode(&json!({NAME: "Volume"}))), FaultClass::ValueError);
    assert_eq!(class_of(Object::decode(&envelope("Teapot", "1.0", json!({})))), FaultClass::ValueError);
    let mut foreign = envelope("Volume", "1.9", json!({}));
    foreign["versioned_object.namespace"] = "nova".into();
    assert_eq!(class_of(Object::decode(&foreign)), FaultClass::ValueError);
    // A negative size is read, as Python reads it, but becomes no volume.
    let negative = envelope("Volume", "1.9", json!({"id": "v", "status": "creating", "size": -1}));
    assert_eq!(decode_volume(&negative).unwrap_err().class, FaultClass::ValueError);
    let silent = envelope("Volume", "1.9", json!({"id": "v"}));
    assert_eq!(decode_volume(&silent).unwrap_err().to_string(), "Volume without 'status'");
}

#[test]
fn older_versions_and_unknown_fields_are_read_newer_versions_are_not() {
    for version in ["1.9", "1.8", "1.0", "1.9.1"] {
        let object = Object::decode(&envelope("Volume", version, json!({"id": "v", "from_the_future": 1}))).unwrap();
        assert_eq!(object.encode(), envelope("Volume", "1.9", json!({"id": "v"})));
    }
    for version in ["1.10", "2.0", "0.9", "1", "new"] {
        let fault = Object::decode(&envelope("Volume", version, json!({}))).unwrap_err();
        assert_eq!(fault.class, FaultClass::IncompatibleObjectVersion);
        assert_eq!(fault.kwargs["supported"], "1.9");
    }
    let inner = envelope("VolumeType", "1.4", json!({}));
    assert_eq!(class_of(volume(json!({"volume_type": inner}))), FaultClass::IncompatibleObjectVersion);
}

#[test]
fn changes_are_kept_and_added_to() {
    let mut sent = envelope("RequestSpec", "1.5", json!({"image_id": null, "volume_id": "a"}));
    sent["versioned_object.changes"] = json!(["volume_id", "unknown"]);
    let mut spec = RequestSpec::from_object(&sent).unwrap();
    assert_eq!(spec.to_object()["versioned_object.changes"], json!(["volume_id"]));
    spec.snapshot_id = Some(SnapshotId::random());
    assert_eq!(spec.to_object()["versioned_object.changes"], json!(["snapshot_id", "volume_id"]));
    assert_eq!(RequestSpec::default().to_object(), envelope("RequestSpec", "1.5", json!({})));
}

#[test]
fn rows_become_objects_and_rows_again() {
    let mut volume = Volume::new(VolumeId::random(), 1);
    volume.attachments = vec![Attachment::new(AttachmentId::random(), volume.id.clone())];
    assert_eq!(decode_volume(&encode_volume(&volume)).unwrap(), volume);
    let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
    assert_eq!(decode_snapshot(&encode_snapshot(&snapshot)).unwrap(), snapshot);
    let spec = RequestSpec::for_volume(&volume);
    assert_eq!(RequestSpec::from_object(&spec.to_object()).unwrap(), spec);
}

#[test]
fn the_tables_hold_together() {
    for schema in SCHEMAS {
        assert_eq!(SCHEMAS.iter().filter(|other| other.name == schema.name).count(), 1, "{}", schema.name);
        for field in schema.fields() {
            assert_eq!(schema.fields().filter(|other| other.name == field.name).count(), 1, "{}", field.name);
            if let schema::Kind::Object(class) | schema::Kind::Objects(class) = field.kind {
                assert!(tables::find(class).is_some(), "{}.{}: {class}", schema.name, field.name);
            }
        }
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof!["[a-z_]{0,8}", Just("attached".to_owned()), Just("2026-11-22T04:59:27Z".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{0,6}", inner.clone(), 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
                proptest::collection::vec(inner, 0..2).prop_map(|list| envelope(
                    "VolumeList",
                    "1.1",
                    json!({"objects": list})
                )),
            ]
        })
    }

    /// An envelope of any class with some of its fields set to anything.
    fn any_object() -> impl Strategy<Value = Value> {
        (0..SCHEMAS.len()).prop_flat_map(|index| {
            let schema = &SCHEMAS[index];
            let names: Vec<&'static str> = schema.fields().map(|field| field.name).collect();
            proptest::collection::btree_map(proptest::sample::select(names), any_json(), 0..3).prop_map(move |data| {
                let data: Value = data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                envelope(schema.name, schema.version, data)
            })
        })
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_what_was_read_is_stable(value in prop_oneof![any_json(), any_object()]) {
            if let Ok(object) = Object::decode(&value) {
                let written = object.encode();
                let again = Object::decode(&written).unwrap();
                prop_assert_eq!(again.encode(), written);
            }
            let _ = (decode_volume(&value), decode_snapshot(&value), decode_attachment(&value));
            let _ = (RequestSpec::from_object(&value), decode_log_level(&value), decode_cleanup_request(&value));
        }
    }
}
