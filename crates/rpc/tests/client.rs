//! Our requests beside those of Cinder's own clients for the same resources.

mod wire;

use std::time::Duration;

use scoria_model::object::{self, History, RequestSpec};
use scoria_model::{AttachmentId, Connector, RequestContext, Snapshot, Timestamp, Volume};
use scoria_rpc::providers::memory::{MemoryBroker, Sent};
use scoria_rpc::{Client, Destination, Error, Request, Target};
use serde_json::{Map, Value};

/// A captured request, and a client whose next request is compared with it.
struct Case {
    method: &'static str,
    routing_key: String,
    message: Value,
    args: Map<String, Value>,
    context: RequestContext,
    broker: MemoryBroker,
    client: Client,
}

impl Case {
    fn new(file: &'static str, number: usize) -> Self {
        let example = wire::examples(file).swap_remove(number);
        let message = example["message"].clone();
        let context = scoria_rpc::decode(&wire::sealed(&message)).unwrap().context;
        let broker = MemoryBroker::recording();
        Self {
            method: file,
            routing_key: match example["exchange"].as_str() {
                Some("openstack") => example["routing_key"].as_str().unwrap().to_owned(),
                exchange => exchange.unwrap().to_owned(),
            },
            args: message["args"].as_object().unwrap().clone(),
            message,
            context,
            client: Client::new(broker.transport(), Duration::ZERO),
            broker,
        }
    }

    fn volume(&self, arg: &str) -> Volume {
        object::decode_volume(&self.args[arg]).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        object::decode_snapshot(&self.args["snapshot"]).unwrap()
    }

    fn connector(&self) -> Connector {
        self.args["connector"].as_object().unwrap().clone()
    }

    fn attachment(&self) -> AttachmentId {
        self.args["attachment_id"].as_str().unwrap().parse().unwrap()
    }

    fn text(&self, arg: &str) -> &str {
        self.args[arg].as_str().unwrap()
    }

    fn sent(&self) -> (Destination, Request) {
        let [Sent::Request { to, request }] = &self.broker.sent()[..] else { panic!("{}: one request", self.method) };
        (to.clone(), request.clone().unwrap())
    }

    /// Asserts that what was sent says the same as what was captured.
    fn check(&self) {
        let (to, request) = self.sent();
        let key = match to {
            Destination::Topic(topic) => topic,
            Destination::Server(Target { topic, server }) => format!("{topic}.{server}"),
            Destination::Fanout(topic) => format!("{topic}_fanout"),
        };
        assert_eq!(key, self.routing_key, "{}", self.method);
        assert_eq!(
            (&request.method, &request.version),
            (&text(&self.message["method"]), &text(&self.message["version"]))
        );
        assert_eq!(Value::Object(request.context.to_map()), Value::Object(self.context.to_map()), "{}", self.method);
        assert_eq!(request.args.keys().collect::<Vec<_>>(), self.args.keys().collect::<Vec<_>>(), "{}", self.method);
        for (name, theirs) in &self.args {
            let ours = &request.args[name];
            if wire::objects(theirs).next().is_some() {
                wire::same(theirs, ours, self.method);
            } else {
                assert_eq!(ours, theirs, "{}: {name}", self.method);
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn reports_to_the_scheduler() {
    for number in 0..2 {
        let case = Case::new("scheduler.update_service_capabilities", number);
        let (at, capabilities) =
            (Timestamp::parse(case.text("timestamp")).unwrap(), case.args["capabilities"].as_object().unwrap());
        let cluster = case.args["cluster_name"].as_str();
        case.client
            .update_service_capabilities(&case.context, case.text("host"), cluster, capabilities, at)
            .await
            .unwrap();
        case.check();

        let case = Case::new("scheduler.notify_service_capabilities", number);
        let (at, capabilities) =
            (Timestamp::parse(case.text("timestamp")).unwrap(), case.args["capabilities"].as_object().unwrap());
        case.client.notify_service_capabilities(&case.context, case.text("backend"), capabilities, at).await.unwrap();
        case.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_back_to_the_scheduler() {
    let case = Case::new("scheduler.create_volume", 0);
    let spec = RequestSpec::from_object(&case.args["request_spec"]).unwrap();
    case.client.schedule_create_volume(&case.context, &case.volume("volume"), &spec, &Map::new()).await.unwrap();
    case.check();
}

#[tokio::test(start_paused = true)]
async fn casts_to_volume_services() {
    // The one without a scheduler's help: a migration's.
    let examples = wire::examples("volume.create_volume");
    let bare = examples.iter().position(|example| example["message"]["args"]["request_spec"].is_null()).unwrap();
    let mut case = Case::new("volume.create_volume", bare);
    case.args["filter_properties"] = Value::Object(Map::new());
    case.client.create_volume(&case.context, &case.volume("volume"), None, false).await.unwrap();
    case.check();

    for number in 0..wire::examples("volume.delete_volume").len() {
        let case = Case::new("volume.delete_volume", number);
        let (unmanage, cascade) = (case.args["unmanage_only"] == true, case.args["cascade"] == true);
        case.client.delete_volume(&case.context, &case.volume("volume"), unmanage, cascade).await.unwrap();
        case.check();
    }

    let case = Case::new("volume.extend_volume", 0);
    let reservations: Vec<String> = case.args["reservations"].as_array().unwrap().iter().map(text).collect();
    let size = case.args["new_size"].as_u64().unwrap();
    case.client.extend_volume(&case.context, &case.volume("volume"), size, &reservations).await.unwrap();
    case.check();

    let case = Case::new("volume.revert_to_snapshot", 0);
    case.client.revert_to_snapshot(&case.context, &case.volume("volume"), &case.snapshot()).await.unwrap();
    case.check();
    let home = case.volume("volume");

    let case = Case::new("volume.create_snapshot", 0);
    case.client.create_snapshot(&case.context, &home, &case.snapshot()).await.unwrap();
    case.check();

    let case = Case::new("volume.delete_snapshot", 0);
    let unmanage = case.args["unmanage_only"] == true;
    case.client.delete_snapshot(&case.context, &home, &case.snapshot(), unmanage).await.unwrap();
    case.check();

    let case = Case::new("volume.set_log_levels", 0);
    let level = object::decode_log_level(&case.args["log_request"]).unwrap();
    case.client.set_log_levels(&case.context, "hosta@nfs1", &level).await.unwrap();
    case.check();

    let case = Case::new("volume.publish_service_capabilities", 0);
    case.client.publish_service_capabilities(&case.context).await.unwrap();
    case.check();
}

#[tokio::test(start_paused = true)]
async fn calls_to_volume_services() {
    fn unanswered<T: std::fmt::Debug>(answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::Timeout { .. })), "{answer:?}");
    }
    let case = Case::new("volume.initialize_connection", 0);
    let home = case.volume("volume");
    unanswered(case.client.initialize_connection(&case.context, &home, &case.connector()).await);
    case.check();

    let case = Case::new("volume.terminate_connection", 0);
    let volume = Volume { id: case.text("volume_id").parse().unwrap(), ..home.clone() };
    unanswered(case.client.terminate_connection(&case.context, &volume, Some(&case.connector()), false).await);
    case.check();

    let case = Case::new("volume.remove_export", 0);
    let volume = Volume { id: case.text("volume_id").parse().unwrap(), ..home.clone() };
    unanswered(case.client.remove_export(&case.context, &volume).await);
    case.check();

    let case = Case::new("volume.attachment_update", 0);
    let (vref, connector, id) = (case.volume("vref"), case.connector(), case.attachment());
    let answer = case.client.attachment_update(&case.context, &vref, &connector, &id);
    unanswered(answer.await);
    case.check();

    let case = Case::new("volume.attachment_delete", 0);
    unanswered(case.client.attachment_delete(&case.context, &case.volume("vref"), &case.attachment()).await);
    case.check();

    let case = Case::new("volume.attach_volume", 0);
    let (instance, host) = (case.args["instance_uuid"].as_str(), case.args["host_name"].as_str());
    let (mountpoint, mode) = (case.text("mountpoint"), case.text("mode"));
    let volume = case.volume("volume");
    unanswered(case.client.attach_volume(&case.context, &volume, instance, host, mountpoint, mode).await);
    case.check();

    let case = Case::new("volume.detach_volume", 0);
    let attachment = case.args["attachment_id"].as_str();
    unanswered(case.client.detach_volume(&case.context, &case.volume("volume"), attachment).await);
    case.check();

    let case = Case::new("volume.get_capabilities", 0);
    let host = case.routing_key.split('.').nth(1).unwrap().to_owned();
    unanswered(case.client.get_capabilities(&case.context, &format!("{host}#pool"), false).await);
    case.check();

    let case = Case::new("volume.secure_file_operations_enabled", 0);
    unanswered(case.client.secure_file_operations_enabled(&case.context, &case.volume("volume")).await);
    case.check();

    let case = Case::new("volume.get_log_levels", 0);
    let level = object::decode_log_level(&case.args["log_request"]).unwrap();
    unanswered(case.client.get_log_levels(&case.context, "hosta@nfs1", &level).await);
    case.check();
}

#[tokio::test(start_paused = true)]
async fn old_peers_get_old_labels() {
    let case = Case::new("volume.delete_volume", 0);
    let client = Client::new(case.broker.transport(), Duration::ZERO).capped(History::V1_38);
    client.delete_volume(&case.context, &case.volume("volume"), false, false).await.unwrap();
    assert_eq!(case.sent().1.args["volume"]["versioned_object.version"], "1.8");
}

#[tokio::test(start_paused = true)]
async fn a_volume_without_a_home_is_anybody_s() {
    let broker = MemoryBroker::recording();
    let client = Client::new(broker.transport(), Duration::ZERO);
    let volume = Volume::new(scoria_model::VolumeId::random(), 1);
    client.delete_volume(&RequestContext::admin(), &volume, false, false).await.unwrap();
    let [Sent::Request { to, .. }] = &broker.sent()[..] else { panic!("one request") };
    assert_eq!(*to, Destination::Topic("cinder-volume".to_owned()));
}
