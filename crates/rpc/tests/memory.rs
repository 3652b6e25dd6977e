//! The in-process broker keeps the rules of every transport, and what its test hooks promise.

use std::sync::Arc;

use scoria_model::RequestContext;
use scoria_rpc::providers::memory::{MemoryBroker, Sent};
use scoria_rpc::{Destination, Error, Health, Notification, Request, Target, Transport, conformance};
use serde_json::{Map, json};

#[tokio::test(start_paused = true)]
async fn it_is_a_transport() {
    let broker = MemoryBroker::new();
    conformance::all(&|| -> Arc<dyn Transport> { broker.transport() }).await;
}

#[tokio::test(start_paused = true)]
async fn it_survives_broken_connections() {
    let broker = MemoryBroker::new();
    let connect = || -> Arc<dyn Transport> { broker.transport() };
    conformance::broken_connection(&connect, async || broker.kill_connections()).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_request_is_handed_out_with_the_reason() {
    let broker = MemoryBroker::new();
    let transport = broker.transport();
    let target = Target::new("topic", "server");
    let mut listener = transport.listen(vec![target.clone()], 1).await.unwrap();
    broker.publish(&Destination::Server(target), b"not json".to_vec());
    let delivery = listener.next().await.unwrap();
    assert!(delivery.request().unwrap_err().reason.contains("not JSON"));
    delivery.reject().await;
    assert_eq!(broker.waiting("topic.server"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_refuses_and_keeps_what_it_has() {
    let broker = MemoryBroker::recording();
    let transport = broker.transport();
    let target = Target::new("topic", "server");
    let to = Destination::Server(target.clone());
    let mut listener = transport.listen(vec![target], 1).await.unwrap();
    let request = Request::new("m", "3.0", RequestContext::admin(), Map::new());
    transport.cast(&to, request.clone()).await.unwrap();
    broker.set_down(true);
    assert!(matches!(transport.health(), Health::Down(_)));
    assert!(matches!(transport.cast(&to, request.clone()).await, Err(Error::Unavailable(_))));
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(5), listener.next()).await;
    assert!(waiting.is_err(), "nothing is handed out while it is down");
    broker.set_down(false);
    assert_eq!(listener.next().await.unwrap().request().unwrap().unique_id, request.unique_id);
    assert_eq!(broker.requests("m").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn notifications_are_seen_by_tests() {
    let broker = MemoryBroker::recording();
    let notification = Notification {
        publisher_id: "volume.hosta@nfs1".to_owned(),
        event_type: "volume.create.start".to_owned(),
        priority: "INFO",
        payload: json!({"volume_id": "v"}),
        context: RequestContext::admin(),
    };
    broker.transport().notify(notification).await.unwrap();
    assert_eq!(broker.events(), ["volume.create.start"]);
    let Sent::Notification(message) = &broker.sent()[0] else { panic!("a notification was sent") };
    assert_eq!(message["payload"]["volume_id"], "v");
}
