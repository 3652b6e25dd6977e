//! The queues, exchanges and bindings that we declare are those of the Python service: compared with what `rabbitmqctl` said
//! while cinder-volume 29.0.0 ran (`tests/wire/broker/`).

mod amqp_support;

use std::collections::BTreeSet;
use std::time::Duration;

use amqp_support::{connect, next, options, table, target, within};
use scoria_model::RequestContext;
use scoria_rpc::{Destination, Notification, Target, Transport};
use scoria_testkit::RabbitMq;
use serde_json::Value;

/// One row: name, type, attributes, arguments, in a form that can be compared.
type Row = String;

fn text(row: &Value, key: &str) -> String {
    match &row[key] {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// `[{"x-expires",1800000}]` (rabbitmqctl's text form) and `[["x-expires","signedint",1800000]]` or `{"x-expires": 1800000}`
/// (its JSON forms) as sorted `key=value` pairs.
fn arguments(row: &Value) -> String {
    let written = match &row["arguments"] {
        Value::Object(pairs) => pairs.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        Value::Array(triples) => triples.iter().map(|t| format!("{}={}", t[0].as_str().unwrap(), t[2])).collect(),
        Value::String(erlang) => {
            let inner = erlang.trim_matches(['[', ']']);
            let pairs = inner.split("},{").filter(|pair| !pair.is_empty());
            pairs
                .map(|pair| pair.trim_matches(['{', '}']).replacen("\",", "=", 1).trim_start_matches('"').to_owned())
                .collect()
        }
        other => vec![other.to_string()],
    };
    let mut written: Vec<String> = written;
    written.sort();
    written.join(" ").replace('"', "")
}

/// Names of our own carry a random suffix.
fn name(row: &Value, key: &str) -> String {
    let name = text(row, key);
    match name.rsplit_once('_') {
        Some((stem, suffix)) if suffix.len() == 32 && suffix.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{stem}_<uuid hex>")
        }
        _ => name,
    }
}

fn queue(row: &Value) -> Row {
    let kind = text(row, "type").replace("rabbit_classic_queue", "classic").replace("rabbit_quorum_queue", "quorum");
    let (durable, auto_delete) = (text(row, "durable"), text(row, "auto_delete"));
    format!("{} {kind} durable={durable} auto_delete={auto_delete} {}", name(row, "name"), arguments(row))
}

fn exchange(row: &Value) -> Row {
    let attributes = [text(row, "type"), text(row, "durable"), text(row, "auto_delete")].join(" ");
    format!("{} {attributes} {}", name(row, "name"), arguments(row))
}

fn binding(row: &Value) -> Row {
    let (source, destination) = (name(row, "source_name"), name(row, "destination_name"));
    format!("{source} -> {destination} by {:?}", text(row, "routing_key"))
}

async fn ours(broker: &RabbitMq, vhost: &str) -> [BTreeSet<Row>; 3] {
    let queues = ["name", "durable", "auto_delete", "arguments", "type"];
    let queues = table(broker, vhost, "list_queues", &queues).await;
    let exchanges = ["name", "type", "durable", "auto_delete", "arguments"];
    let exchanges = table(broker, vhost, "list_exchanges", &exchanges).await;
    let bindings = ["source_name", "destination_name", "routing_key"];
    let bindings = table(broker, vhost, "list_bindings", &bindings).await;
    [
        queues.iter().map(queue).collect(),
        exchanges.iter().filter(|row| !is_built_in(&text(row, "name"))).map(exchange).collect(),
        bindings.iter().filter(|row| !is_built_in(&text(row, "source_name"))).map(binding).collect(),
    ]
}

fn is_built_in(exchange: &str) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

/// What of a capture belongs to the volume service with these topics.
fn captured(json: &str, mine: &[String]) -> [BTreeSet<Row>; 3] {
    let capture: Value = serde_json::from_str(json).unwrap();
    let rows = |table: &str, name: &str, row: fn(&Value) -> Row| {
        let rows = capture[table].as_array().map(Vec::as_slice).unwrap_or_default();
        let wanted = |row: &&Value| {
            let stem = text(row, name).replace("_<uuid hex>", "");
            mine.contains(&stem) || mine.contains(&stem.replace("_fanout", ""))
        };
        rows.iter().filter(wanted).map(row).collect()
    };
    [rows("queues", "name", queue), rows("exchanges", "name", exchange), rows("bindings", "destination_name", binding)]
}

fn targets(host: &str, cluster: Option<&str>) -> Vec<Target> {
    let service = |name: &str| Target::new(format!("cinder-volume.{name}@nfs1"), name);
    let mut targets = vec![Target::new("cinder-volume", format!("{host}@nfs1")), service(host)];
    targets.extend(cluster.map(service));
    targets
}

fn assert_same(case: &str, what: &str, ours: &BTreeSet<Row>, theirs: &BTreeSet<Row>) {
    let (missing, extra): (Vec<_>, Vec<_>) = (theirs.difference(ours).collect(), ours.difference(theirs).collect());
    assert!(missing.is_empty() && extra.is_empty(), "{case}, {what}:\n missing {missing:#?}\n extra {extra:#?}");
}

async fn compare(broker: &RabbitMq, case: &str, capture: &str, host: &str, cluster: Option<&str>) {
    let vhost = format!("{case}{}", broker.vhost().trim_matches('/'));
    broker.ctl(&["add_vhost", &vhost]).await.unwrap();
    broker.ctl(&["set_permissions", "--vhost", &vhost, "guest", ".*", ".*", ".*"]).await.unwrap();
    let mut options = options(broker);
    options.virtual_host.clone_from(&vhost);
    options.rabbit.amqp_durable_queues = case == "durable";
    options.rabbit.rabbit_quorum_queue = case == "quorum";
    options.rabbit.rabbit_transient_quorum_queue = case == "quorum";
    options.notifications.drivers = vec!["messagingv2".to_owned()];
    let transport = connect(options);
    let mut listener = within(transport.listen(targets(host, cluster), 8)).await.unwrap();

    let mut mine = vec!["openstack".to_owned(), "cinder-volume".to_owned()];
    for name in [Some(host), cluster].into_iter().flatten() {
        mine.extend([format!("cinder-volume.{name}@nfs1"), format!("cinder-volume.{name}@nfs1.{name}")]);
    }
    // In the first two captures the whole of Cinder ran, with notifications on.
    if matches!(case, "nocluster" | "cluster") {
        mine.extend(["reply".to_owned(), "notifications.info".to_owned()]);
        let nobody = Destination::Topic("nobody".to_owned());
        let short = Duration::from_millis(300);
        transport.call(&nobody, amqp_support::request("any", 1), short).await.unwrap_err();
        let context = RequestContext::admin();
        let (publisher_id, event_type) = ("volume.hosta@nfs1".to_owned(), "volume.create.start".to_owned());
        let notification = Notification { publisher_id, event_type, priority: "INFO", payload: Value::Null, context };
        transport.notify(notification).await.unwrap();
    }
    let (ours_now, theirs) = (ours(broker, &vhost).await, captured(capture, &mine));
    assert!(theirs[0].len() >= 6, "{case}: the capture has the service's queues");
    assert_same(case, "queues", &ours_now[0], &theirs[0]);
    // The first capture has queues only.
    if !theirs[1].is_empty() {
        assert_same(case, "exchanges", &ours_now[1], &theirs[1]);
    }
    if !theirs[2].is_empty() {
        assert_same(case, "bindings", &ours_now[2], &theirs[2]);
    }

    listener.stop().await;
    let left = ours(broker, &vhost).await;
    assert!(left[0].iter().all(|row| !row.contains("_fanout_")), "{case}: fanout queues go with their listener");
    assert!(left[0].iter().any(|row| row.starts_with("cinder-volume ")), "{case}: topic queues stay");
    transport.close().await;
    broker.ctl(&["delete_vhost", &vhost]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topology_equals_the_python_service_s() {
    let broker = RabbitMq::shared().await.unwrap();
    compare(&broker, "nocluster", include_str!("wire/broker/topology-nocluster.json"), "hostb", None).await;
    compare(&broker, "cluster", include_str!("wire/broker/topology-cluster.json"), "hosta", Some("labcluster")).await;
    compare(&broker, "durable", include_str!("wire/broker/topology-durable.json"), "hostq", Some("qcluster")).await;
    compare(&broker, "quorum", include_str!("wire/broker/topology-quorum.json"), "hostq", Some("qcluster")).await;
}

/// Streams: one queue per topic, read on from where it was left, not from the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fanout_over_a_stream() {
    let broker = RabbitMq::shared().await.unwrap();
    let mut options = options(&broker);
    options.rabbit.rabbit_stream_fanout = true;
    options.rabbit.rabbit_transient_quorum_queue = true;
    let transport = connect(options);
    let target = target("stream");
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    let everyone = Destination::Fanout(target.topic.clone());
    for number in 0..3 {
        transport.cast(&everyone, amqp_support::request("report", number)).await.unwrap();
        let delivery = next(&mut listener).await;
        assert_eq!(amqp_support::number(&*delivery), number as u64);
        assert!(delivery.ack().await);
    }
    broker.close_connections().await.unwrap();
    amqp_support::up(&transport).await;
    transport.cast(&everyone, amqp_support::request("report", 3)).await.unwrap();
    assert_eq!(amqp_support::number(&*next(&mut listener).await), 3, "what was read before does not come again");
    listener.stop().await;
    transport.close().await;
}

/// Somebody else made the exchange durable: we work with what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_durability_is_taken_as_it_is() {
    let broker = RabbitMq::shared().await.unwrap();
    let target = target("durability");
    let plain = connect(options(&broker));
    let mut listener = within(plain.listen(vec![target.clone()], 1)).await.unwrap();
    let mut durable = options(&broker);
    durable.rabbit.amqp_durable_queues = true;
    let durable = connect(durable);
    let mut second = within(durable.listen(vec![target.clone()], 1)).await.unwrap();
    for number in 0..2 {
        amqp_support::cast(&durable, &target, "shared", number).await;
    }
    // Both consume the one non-durable queue.
    let (one, two) = (next(&mut listener).await, next(&mut second).await);
    assert!(one.ack().await && two.ack().await);
    listener.stop().await;
    second.stop().await;
    plain.close().await;
    durable.close().await;
}

/// With the queue manager, queues of our own have the same names after each start, and stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_queues_keep_their_names() {
    let broker = RabbitMq::shared().await.unwrap();
    let mut options = options(&broker);
    options.rabbit.use_queue_manager = true;
    options.rabbit.hostname = "hosta".to_owned();
    options.rabbit.processname = "scoria-volume-nfs1".to_owned();
    let target = target("managed");
    for _start in 0..2 {
        let transport = connect(options.clone());
        let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
        listener.stop().await;
        transport.close().await;
        let queues = broker.queues().await.unwrap();
        let fanout: Vec<_> = queues.iter().filter(|queue| queue.0.contains("_fanout_")).collect();
        assert_eq!(fanout.len(), 1, "{queues:?}");
        assert_eq!(fanout[0].0, "test.managed_fanout_hosta:scoria-volume-nfs1:1");
    }
}
