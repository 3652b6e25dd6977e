//! Real messages of the Python services: read, understood, and written again without a difference.

mod wire;

use scoria_model::object::{self, Object, RequestSpec};
use scoria_model::{Fault, FaultClass};
use scoria_rpc::{Error, decode, decode_reply, encode, encode_reply, open};
use serde_json::{Map, Value, json};

use wire::{field, normal, objects, same};

#[test]
fn every_request_is_read_as_it_was_sent_and_written_again_without_a_difference() {
    for (file, example) in wire::requests() {
        let message = &example["message"];
        let request = decode(&wire::sealed(message)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(request.method, message["method"], "{file}");
        assert_eq!(request.version, message["version"], "{file}");
        assert_eq!(Value::Object(request.args.clone()), message["args"], "{file}");
        assert_eq!(request.unique_id.as_ref().map(|id| id.as_str()), message["_unique_id"].as_str(), "{file}");
        let call = request.call.as_ref();
        assert_eq!(call.is_some(), example["pattern"] == "call", "{file}");
        assert_eq!(call.map(|call| call.reply_q.as_str()), message["_reply_q"].as_str(), "{file}");
        assert_eq!(request.context.request_id.as_deref(), message["_context_request_id"].as_str(), "{file}");
        assert_eq!(request.context.user_id.as_deref(), message["_context_user_id"].as_str(), "{file}");
        assert_eq!(request.context.is_admin, message["_context_is_admin"], "{file}");
        let again = Value::Object(open(&encode(&request)).unwrap());
        assert_eq!(&again, message, "{file}");
    }
}

#[test]
fn the_bytes_from_the_broker_are_read() {
    let example = &wire::examples("volume.terminate_connection")[0];
    let request = decode(example["raw_body"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(Value::Object(request.args), example["message"]["args"]);
}

#[test]
fn every_object_is_read_and_written_again_without_a_difference() {
    let mut classes = std::collections::BTreeSet::new();
    for (file, example) in wire::requests() {
        for sent in objects(&example["message"]["args"]).chain(objects(&example["replies"])) {
            let object = Object::decode(sent).unwrap_or_else(|fault| panic!("{file}: {fault}"));
            assert_eq!(normal(&object.encode()), normal(sent), "{file}");
            classes.insert(object.class());
        }
    }
    for class in
        ["Volume", "Snapshot", "VolumeAttachment", "RequestSpec", "LogLevelList", "Group", "Backup", "CleanupRequest"]
    {
        assert!(classes.contains(class), "no {class} among {classes:?}");
    }
}

#[test]
fn volumes_become_typed_and_objects_again() {
    let mut seen = 0;
    for (file, example) in wire::requests() {
        for sent in objects(&example["message"]["args"]).filter(|sent| sent["versioned_object.name"] == "Volume") {
            let volume = object::decode_volume(sent).unwrap_or_else(|fault| panic!("{file}: {fault}"));
            assert_eq!(volume.id.as_str(), field(sent, "id"), "{file}");
            assert_eq!(volume.status.as_str(), field(sent, "status"), "{file}");
            assert_eq!(volume.host.as_deref(), field(sent, "host").as_str(), "{file}");
            assert_eq!(volume.cluster_name.as_deref(), field(sent, "cluster_name").as_str(), "{file}");
            assert_eq!(json!(volume.size), *field(sent, "size"), "{file}");
            if let Some(metadata) = field(sent, "metadata").as_object() {
                assert_eq!(json!(volume.metadata), json!(metadata), "{file}");
            }
            assert_eq!(json!(volume.scheduled_at.map(|at| at.to_object())), *field(sent, "scheduled_at"), "{file}");
            let again = object::encode_volume(&volume);
            assert_eq!(object::decode_volume(&again).unwrap(), volume, "{file}");
            same(sent, &again, &file);
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn attachments_of_volumes_are_read() {
    let sent = &wire::examples("volume.detach_volume")[0]["message"]["args"]["volume"];
    let volume = object::decode_volume(sent).unwrap();
    let [attachment] = volume.attachments.as_slice() else { panic!("one attachment: {:?}", volume.attachments) };
    assert_eq!(attachment.volume_id, volume.id);
    assert_eq!((attachment.attach_status.as_str(), attachment.attach_mode.as_deref()), ("attached", Some("rw")));
    assert_eq!(attachment.mountpoint.as_deref(), Some("/dev/vdb"));
}

#[test]
fn snapshots_become_typed_and_objects_again() {
    for method in ["volume.create_snapshot", "volume.delete_snapshot", "volume.revert_to_snapshot"] {
        for example in wire::examples(method) {
            let sent = &example["message"]["args"]["snapshot"];
            let snapshot = object::decode_snapshot(sent).unwrap();
            assert_eq!(snapshot.id.as_str(), field(sent, "id"));
            assert_eq!(snapshot.volume_id.as_str(), field(sent, "volume_id"));
            assert_eq!(json!(snapshot.volume_size), *field(sent, "volume_size"));
            let again = object::encode_snapshot(&snapshot);
            assert_eq!(object::decode_snapshot(&again).unwrap(), snapshot);
            same(sent, &again, method);
        }
    }
}

#[test]
fn a_request_specification_keeps_everything_but_what_is_changed() {
    let mut sources = Vec::new();
    for example in wire::examples("volume.create_volume") {
        let sent = &example["message"]["args"]["request_spec"];
        if sent.is_null() {
            continue;
        }
        let spec = RequestSpec::from_object(sent).unwrap();
        assert_eq!(normal(&spec.to_object()), normal(sent));
        assert_eq!(spec.volume().unwrap().unwrap().id, *spec.volume_id.as_ref().unwrap());
        assert_eq!(spec.volume_properties().unwrap().size("size").unwrap(), spec.volume().unwrap().unwrap().size);
        sources.push((spec.snapshot_id.is_some(), spec.source_volid.is_some(), spec.image_id.is_some()));
        let other = scoria_model::VolumeId::random();
        let mut expected = sent.clone();
        expected["versioned_object.data"]["volume_id"] = other.as_str().into();
        assert_eq!(normal(&spec.with_volume_id(&other).to_object()), normal(&expected));
    }
    for source in [(true, false, false), (false, true, false), (false, false, false)] {
        assert!(sources.contains(&source), "no request with (snapshot, volume, image) = {source:?}");
    }
}

#[test]
fn log_levels_are_read_and_answered() {
    let example = &wire::examples("volume.get_log_levels")[0];
    let asked = object::decode_log_level(&example["message"]["args"]["log_request"]).unwrap();
    assert!(asked.prefix.is_some());
    let answer = &example["replies"][0]["result"];
    let levels = Object::decode_as("LogLevelList", answer).unwrap();
    let Some(object::Datum::Objects(levels)) = levels.get("objects") else { panic!("a list of levels") };
    let levels = levels.iter().map(|level| (level.text("prefix").unwrap(), level.text("level").unwrap())).collect();
    assert_eq!(
        normal(&object::encode_log_levels(&levels))["versioned_object.data"],
        normal(answer)["versioned_object.data"]
    );
    let request = &wire::examples("volume.do_cleanup")[0]["message"]["args"]["cleanup_request"];
    let cleanup = object::decode_cleanup_request(request).unwrap();
    assert_eq!(cleanup.binary.as_deref(), field(request, "binary").as_str());
}

#[test]
fn results_are_read_and_written_alike() {
    for example in wire::read("reply/success-replies.json") {
        let message = &example["message"];
        let reply = decode_reply(&wire::sealed(message)).unwrap();
        assert!(reply.ending);
        assert_eq!(reply.result.as_ref().unwrap(), &message["result"]);
        let ours = open(&encode_reply(&reply.msg_id, &Ok(message["result"].clone()))).unwrap();
        assert_eq!(without_id(ours), without_id(message.as_object().unwrap().clone()));
    }
}

#[test]
fn failures_are_read_and_written_alike() {
    let mut classes = Vec::new();
    for example in wire::read("reply/failure-replies.json") {
        let message = &example["message"];
        let mut sent: Value = serde_json::from_str(message["failure"].as_str().unwrap()).unwrap();
        let fault = match decode_reply(&wire::sealed(message)).unwrap().outcome() {
            Err(Error::Remote(fault)) => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!((fault.class.name(), &fault.message), (sent["class"].as_str().unwrap(), &text(&sent["message"])));
        classes.push(fault.class);
        let ours = open(&encode_reply("id", &Err(fault))).unwrap();
        let ours: Value = serde_json::from_str(ours["failure"].as_str().unwrap()).unwrap();
        sent["tb"] = json!([]);
        assert_eq!(ours, sent);
    }
    assert!(classes.contains(&FaultClass::VolumeBackendAPIException) && classes.contains(&FaultClass::NoSuchMethod));
}

#[test]
fn an_ill_typed_argument_gets_the_fault_that_python_would_answer() {
    let sent = &wire::examples("volume.create_volume")[0]["message"]["args"]["volume"];
    let with = |key: &str, value: Value| {
        let mut changed = sent.clone();
        changed["versioned_object.data"][key] = value;
        object::decode_volume(&changed).unwrap_err()
    };
    let is = |fault: Fault, class: FaultClass| assert_eq!(fault.class, class, "{fault}");
    is(with("size", json!("big")), FaultClass::ValueError);
    is(with("size", json!([])), FaultClass::TypeError);
    is(with("id", Value::Null), FaultClass::ValueError);
    is(with("id", json!("../../etc/passwd")), FaultClass::ValueError);
    is(with("metadata", json!({"k": null})), FaultClass::ValueError);
    is(with("attach_status", json!("glued")), FaultClass::ValueError);
    is(with("created_at", json!("yesterday")), FaultClass::ValueError);
    is(with("volume_type", json!("gold")), FaultClass::ValueError);
    let mut newer = sent.clone();
    newer["versioned_object.version"] = "1.10".into();
    is(object::decode_volume(&newer).unwrap_err(), FaultClass::IncompatibleObjectVersion);
    is(object::decode_volume(&json!("a-volume")).unwrap_err(), FaultClass::TypeError);
    let snapshot = &wire::examples("volume.create_snapshot")[0]["message"]["args"]["snapshot"];
    is(object::decode_volume(snapshot).unwrap_err(), FaultClass::TypeError);
}

fn without_id(mut message: Map<String, Value>) -> Map<String, Value> {
    message.remove("_unique_id");
    message
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
