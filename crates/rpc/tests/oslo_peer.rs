//! The real oslo.messaging, oslo.versionedobjects and Cinder read what we write.
//!
//! They are looked for in the Python environment that `SCORIA_PEER_VENV` names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use scoria_model::object::{self, History, LogLevel, RequestSpec};
use scoria_model::{
    Attachment, AttachmentId, Fault, FaultClass, RequestContext, Snapshot, SnapshotId, Timestamp, Volume, VolumeId,
    VolumeType, VolumeTypeId,
};
use scoria_rpc::{Notification, Request, encode, encode_heartbeat, encode_notification, encode_reply};
use serde_json::{Map, Value, json};

/// Asks the Python side all questions at once, as it takes seconds to start.
fn ask(questions: &[Value]) -> Vec<Value> {
    let venv = std::env::var_os("SCORIA_PEER_VENV")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/peer-venv")), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "no Python peer at {}: install cinder and oslo.messaging with pip into a virtual environment and set SCORIA_PEER_VENV",
        python.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oslo_peer.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

fn question(kind: &str, body: Vec<u8>) -> Value {
    json!({"kind": kind, "body": String::from_utf8(body).unwrap()})
}

fn volume() -> Volume {
    let id = VolumeId::random();
    let mut attachment = Attachment::new(AttachmentId::random(), id.clone());
    attachment.attach_time = Timestamp::parse("2026-11-22T05:00:00Z");
    attachment.connector = json!({"ip": "192.0.2.1", "multipath": false}).as_object().cloned();
    Volume {
        user_id: Some("a-user".to_owned()),
        project_id: Some("a-project".to_owned()),
        host: Some("hosta@nfs1#nfs1".to_owned()),
        cluster_name: Some("labcluster@nfs1#nfs1".to_owned()),
        created_at: Timestamp::parse("2026-11-22T04:59:27Z"),
        metadata: [("k".to_owned(), "v\u{fc}".to_owned())].into(),
        attachments: vec![attachment],
        volume_type: Some(VolumeType {
            id: VolumeTypeId::random(),
            name: "gold".to_owned(),
            description: None,
            is_public: true,
            extra_specs: [("volume_backend_name".to_owned(), "nfs1".to_owned())].into(),
            qos_specs_id: None,
            created_at: None,
            updated_at: None,
        }),
        ..Volume::new(id, 3)
    }
}

#[test]
fn requests_and_objects_are_understood() {
    let volume = volume();
    let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size);
    let level = LogLevel { prefix: Some("cinder".to_owned()), level: Some("DEBUG".to_owned()) };
    let levels = [("cinder".to_owned(), "INFO".to_owned())].into();
    let args = json!({
        "volume": object::encode_volume(&volume),
        "snapshot": object::encode_snapshot(&snapshot),
        "attachment": object::encode_attachment(&volume.attachments[0]),
        "request_spec": RequestSpec::for_volume(&volume).to_object(),
        "log_request": object::encode_log_level(&level),
        "levels": object::encode_log_levels(&levels),
        "plain": {"list": [1, null, "x"]},
    });
    let context = RequestContext::user("a-user", "a-project");
    let request = Request::new("create_volume", "3.0", context.clone(), args.as_object().cloned().unwrap());
    let mut capped = args;
    History::V1_38.label(&mut capped);
    let old = Request::new("create_volume", "3.0", context.elevated(), capped.as_object().cloned().unwrap());
    let [answer, old] = &ask(&[question("request", encode(&request)), question("request", encode(&old))])[..] else {
        panic!("two answers")
    };
    assert_eq!(answer["unique_id"], request.unique_id.as_ref().unwrap().as_str());
    assert_eq!((&answer["method"], &answer["version"]), (&json!("create_volume"), &json!("3.0")));
    assert_eq!((&answer["user_id"], &answer["project_id"]), (&json!("a-user"), &json!("a-project")));
    assert_eq!(answer["request_id"].as_str(), context.request_id.as_deref());
    assert_eq!((&answer["is_admin"], &old["is_admin"]), (&json!(false), &json!(true)));
    let classes = json!({
        "volume": "Volume", "snapshot": "Snapshot", "attachment": "VolumeAttachment", "request_spec": "RequestSpec",
        "log_request": "LogLevel", "levels": "LogLevelList", "plain": "dict",
    });
    assert_eq!(answer["classes"], classes);
    assert_eq!(old["classes"], classes);
    // What Python writes again of what it has read says the same to us.
    let back = |name: &str| &answer["args"][name];
    assert_eq!(object::decode_volume(back("volume")).unwrap(), volume);
    assert_eq!(object::decode_snapshot(back("snapshot")).unwrap(), snapshot);
    assert_eq!(object::decode_attachment(back("attachment")).unwrap(), volume.attachments[0]);
    assert_eq!(object::decode_log_level(back("log_request")).unwrap(), level);
    let spec = RequestSpec::from_object(back("request_spec")).unwrap();
    assert_eq!((spec.volume().unwrap(), spec.volume_id), (Some(volume.clone()), Some(volume.id.clone())));
    assert_eq!(object::decode_volume(&old["args"]["volume"]).unwrap(), volume);
}

/// Every class that a fault may have.
const CLASSES: &[&str] = &[
    "VolumeNotFound",
    "SnapshotNotFound",
    "VolumeAttachmentNotFound",
    "VolumeTypeNotFound",
    "ServiceNotFound",
    "NotFound",
    "Invalid",
    "InvalidInput",
    "InvalidVolume",
    "InvalidSnapshot",
    "InvalidUUID",
    "InvalidVolumeAttachMode",
    "InvalidVolumeType",
    "InvalidConfigurationValue",
    "InvalidParameterValue",
    "VolumeAttached",
    "VolumeIsBusy",
    "SnapshotIsBusy",
    "VolumeBackendAPIException",
    "VolumeDriverException",
    "DriverNotInitialized",
    "ExportFailure",
    "RemoveExportException",
    "ExtendVolumeError",
    "MetadataCopyFailure",
    "MetadataUpdateFailure",
    "CleanableInUse",
    "OverQuota",
    "VolumeLimitExceeded",
    "VolumeSizeExceedsAvailableQuota",
    "SnapshotLimitExceeded",
    "RemoteFSException",
    "RemoteFSInvalidBackingFile",
    "NfsException",
    "NfsNoSharesMounted",
    "NfsNoSuitableShareFound",
    "CinderException",
    "NotImplementedError",
    "TypeError",
    "ValueError",
];

#[test]
fn failures_are_raised_as_the_class_they_name() {
    let mut faults: Vec<Fault> = CLASSES
        .iter()
        .map(|name| FaultClass::from_name(name).unwrap_or_else(|| panic!("{name} is a class of ours")))
        .map(|class| Fault::new(class, format!("about {}", class.name())))
        .collect();
    faults.push(Fault::volume_not_found("an-id"));
    faults.push(Fault::attachment_not_found("an-id"));
    faults.push(Fault::backend("qemu-img: 100% of it \"failed\"\n"));
    // A keyword that would collide with the constructor's own parameter must not keep it from being raised.
    faults.push(Fault::invalid_input("why").with("message", "twice"));
    let questions: Vec<Value> =
        faults.iter().map(|fault| question("reply", encode_reply("id", &Err(fault.clone())))).collect();
    for (fault, answer) in faults.iter().zip(ask(&questions)) {
        let class = fault.class;
        // Built-in classes cannot be replaced by a remote variant; they carry the message before the empty traceback.
        let remote = if class.module() == "builtins" { "" } else { "_Remote" };
        assert_eq!(answer["class"], format!("{}{remote}", class.name()), "{answer}");
        assert_eq!(answer["module"], format!("{}{remote}", class.module()), "{answer}");
        // Some classes put words of their own before the message.
        let message = answer["message"].as_str().unwrap().trim_end_matches('\n');
        assert!(message.ends_with(fault.message.trim_end_matches('\n')), "{answer}");
        assert_eq!((&answer["ending"], &answer["msg_id"]), (&json!(true), &json!("id")));
        if class.module() == "cinder.exception" {
            assert_eq!(answer["kwargs"]["code"], class.code(), "{answer}");
            // What cinder-api answers with: the class's own.
            assert_eq!(answer["code"], class.code(), "{answer}");
            for (key, value) in fault.kwargs.iter().filter(|(key, _)| *key != "message") {
                assert_eq!(answer["kwargs"][key], *value);
            }
        }
    }
}

#[test]
fn results_signs_of_life_and_notifications_are_understood() {
    let notification = Notification {
        publisher_id: "volume.hosta@nfs1".to_owned(),
        event_type: "volume.create.start".to_owned(),
        priority: "INFO",
        payload: json!({"size": 1}),
        context: RequestContext {
            raw: Map::from_iter([("auth_token".to_owned(), "secret".into())]),
            ..RequestContext::user("a-user", "a-project")
        },
    };
    let dispatcher = Fault::no_such_method("m");
    let answers = ask(&[
        question("reply", encode_reply("id", &Ok(json!({"driver_volume_type": "nfs"})))),
        question("reply", encode_heartbeat("id")),
        question("reply", encode_reply("id", &Err(dispatcher))),
        question("notification", encode_notification(&notification, true)),
        question("notification", encode_notification(&notification, false)),
    ]);
    assert_eq!(answers[0], json!({"ending": true, "msg_id": "id", "result": {"driver_volume_type": "nfs"}}));
    assert_eq!(answers[1]["ending"], false);
    assert_eq!(answers[2]["class"], "RemoteError", "a class outside cinder.exception, as from a Python server");
    for answer in &answers[3..] {
        assert_eq!((&answer["event_type"], &answer["payload"]["size"]), (&json!("volume.create.start"), &json!(1)));
        assert_eq!((&answer["user_id"], &answer["auth_token"]), (&json!("a-user"), &Value::Null));
    }
}
