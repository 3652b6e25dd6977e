//! What the AMQP tests share: options for a test broker, waiting, short ways to send and take.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::sync::Arc;
use std::time::Duration;

use scoria_model::RequestContext;
use scoria_rpc::providers::amqp::{AmqpOptions, AmqpTransport, BrokerHost};
use scoria_rpc::{Delivery, Destination, Health, Listener, Request, Target, Transport};
use scoria_testkit::RabbitMq;
use serde_json::{Value, json};

/// Long enough for a broker that starts on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Options for a broker; short waits between tries, so that tests do not wait for politeness.
pub(crate) fn options(broker: &RabbitMq) -> AmqpOptions {
    options_on(&[broker.port()], broker.vhost())
}

/// The same for several ports of this machine.
pub(crate) fn options_on(ports: &[u16], vhost: &str) -> AmqpOptions {
    let mut options = AmqpOptions {
        hosts: ports.iter().map(|port| BrokerHost::new("127.0.0.1", *port, "guest", "guest")).collect(),
        virtual_host: vhost.to_owned(),
        ..AmqpOptions::default()
    };
    options.rabbit.kombu_reconnect_delay = Duration::from_millis(50);
    options.rabbit.rabbit_retry_interval = Duration::from_millis(100);
    options.rabbit.rabbit_retry_backoff = Duration::from_millis(100);
    options.rabbit.rabbit_interval_max = Duration::from_millis(500);
    options
}

/// Connects. What happens is in the output of a test that fails.
pub(crate) fn connect(options: AmqpOptions) -> Arc<AmqpTransport> {
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
    AmqpTransport::connect(options).expect("good options")
}

/// A target that no other test uses.
pub(crate) fn target(name: &str) -> Target {
    Target::new(format!("test.{name}"), "server")
}

/// A request with a number in it.
pub(crate) fn request(method: &str, number: usize) -> Request {
    let args = json!({ "number": number }).as_object().cloned().unwrap_or_default();
    Request::new(method, "3.0", RequestContext::user("a-user", "a-project"), args)
}

/// Casts to the target's server.
pub(crate) async fn cast(transport: &AmqpTransport, target: &Target, method: &str, number: usize) {
    transport.cast(&Destination::Server(target.clone()), request(method, number)).await.expect("taken by the broker");
}

/// The next delivery.
pub(crate) async fn next(listener: &mut Box<dyn Listener>) -> Box<dyn Delivery> {
    within(listener.next()).await.expect("the listener was not stopped")
}

/// The number in a request.
pub(crate) fn number(delivery: &dyn Delivery) -> u64 {
    delivery.request().expect("a request").args["number"].as_u64().expect("a number")
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: did not happen in time");
}

/// Waits for a connection.
pub(crate) async fn up(transport: &AmqpTransport) {
    until("the transport is up", async || transport.health() == Health::Up).await;
}

/// A table of `rabbitmqctl`, as JSON.
pub(crate) async fn table(broker: &RabbitMq, vhost: &str, command: &str, columns: &[&str]) -> Vec<Value> {
    let mut args = vec![command, "--vhost", vhost, "--formatter", "json"];
    args.extend(columns);
    let out = broker.ctl(&args).await.expect("rabbitmqctl runs");
    let start = out.find('[').expect("a JSON list");
    serde_json::from_str(&out[start..]).expect("JSON")
}
