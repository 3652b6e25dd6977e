//! What every [`Transport`] does, as tests (feature `conformance`).
//!
//! Each function takes a way to connect, so that two parties can be played, uses addresses of its own, so that one broker
//! serves them all, and panics with what was not as it must be. [`all`] runs every one but [`broken_connection`], which
//! must be told how to break a connection.

use std::sync::Arc;
use std::time::Duration;

use scoria_model::{Fault, RequestContext};
use serde_json::{Value, json};

use crate::{Delivery, Destination, Error, Health, Listener, Request, Target, Transport};

/// Makes a connection to the broker under test, each call another one.
pub type Connect<'a> = &'a (dyn Fn() -> Arc<dyn Transport> + Sync);

/// Long enough for a slow broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to watch that nothing comes.
const SILENCE: Duration = Duration::from_millis(400);

/// Runs the whole suite, one after another.
pub async fn all(connect: Connect<'_>) {
    cast_reaches_its_server(connect).await;
    casts_wait_for_a_listener(connect).await;
    cast_to_nobody_is_lost(connect).await;
    two_listeners_share_the_work(connect).await;
    fanout_reaches_everyone(connect).await;
    shared_queue_delivers_once(connect).await;
    call_gets_its_result(connect).await;
    call_gets_the_failure(connect).await;
    call_times_out(connect).await;
    expired_call_is_not_delivered(connect).await;
    prefetch_bounds_what_is_unsettled(connect).await;
    requeued_comes_again(connect).await;
    dropped_comes_again(connect).await;
    rejected_does_not_come_again(connect).await;
    stopped_listener_hands_back_what_it_has_not_handed_out(connect).await;
    closed_transport_hands_everything_back(connect).await;
}

/// A cast arrives as it was sent, at the server it was sent to and at any server of the topic.
pub async fn cast_reaches_its_server(connect: Connect<'_>) {
    let (near, far) = (connect(), connect());
    let target = target();
    let mut listener = listen(&near, &target, 10).await;
    for to in [Destination::Server(target.clone()), Destination::Topic(target.topic.clone())] {
        let sent = request("delete_volume");
        far.cast(&to, sent.clone()).await.expect("the broker is there");
        let delivery = next(&mut listener).await;
        let got = delivery.request().expect("a request was sent");
        assert_eq!((&got.method, &got.version, &got.args), (&sent.method, &sent.version, &sent.args));
        assert_eq!((&got.call, &got.unique_id), (&None, &sent.unique_id));
        assert_eq!(got.context.user_id, sent.context.user_id);
        assert!(!delivery.redelivered() && delivery.is_live());
        delivery.reply(Ok(Value::Null)).await.expect("a reply to a cast does nothing");
        assert!(delivery.ack().await);
    }
    assert_eq!((near.health(), far.health()), (Health::Up, Health::Up));
    finish(listener, [near, far]).await;
}

/// Topic queues outlive their listeners.
pub async fn casts_wait_for_a_listener(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    listen(&transport, &target, 1).await.stop().await;
    cast(&transport, &target, "waits").await;
    let mut listener = listen(&transport, &target, 1).await;
    assert_eq!(take(&mut listener).await, "waits");
    finish(listener, [transport]).await;
}

/// A queue that nobody has declared takes nothing; the sender is not told, as with oslo.messaging.
pub async fn cast_to_nobody_is_lost(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    cast(&transport, &target, "lost").await;
    let mut listener = listen(&transport, &target, 1).await;
    nothing(&mut listener).await;
    finish(listener, [transport]).await;
}

/// Listeners on one target (the members of a cluster) get each message once between them.
pub async fn two_listeners_share_the_work(connect: Connect<'_>) {
    let (a, b) = (connect(), connect());
    let target = target();
    let mut first = listen(&a, &target, 1).await;
    let mut second = listen(&b, &target, 1).await;
    cast(&a, &target, "one").await;
    cast(&a, &target, "two").await;
    let (one, two) = (next(&mut first).await, next(&mut second).await);
    let mut methods = [method(&*one), method(&*two)];
    methods.sort();
    assert_eq!(methods, ["one", "two"]);
    assert!(one.ack().await && two.ack().await);
    nothing(&mut first).await;
    nothing(&mut second).await;
    second.stop().await;
    finish(first, [a, b]).await;
}

/// A fanout reaches every listener of the topic, whatever its server is called.
pub async fn fanout_reaches_everyone(connect: Connect<'_>) {
    let (a, b) = (connect(), connect());
    let here = target();
    let there = Target::new(here.topic.clone(), "other");
    let mut first = listen(&a, &here, 1).await;
    let mut second = listen(&b, &there, 1).await;
    let to = Destination::Fanout(here.topic.clone());
    a.cast(&to, request("publish_service_capabilities")).await.expect("the broker is there");
    for listener in [&mut first, &mut second] {
        assert_eq!(take(listener).await, "publish_service_capabilities");
        nothing(listener).await;
    }
    second.stop().await;
    finish(first, [a, b]).await;
}

/// The volume service's two targets meet in one queue (`cinder-volume.host@backend`): no message comes twice for that.
pub async fn shared_queue_delivers_once(connect: Connect<'_>) {
    let transport = connect();
    let Target { topic, .. } = target();
    let targets =
        vec![Target::new(topic.clone(), "host@backend"), Target::new(format!("{topic}.host@backend"), "host")];
    let mut listener = transport.listen(targets.clone(), 10).await.expect("not closed");
    for target in &targets {
        cast(&transport, target, "once").await;
        assert_eq!(take(&mut listener).await, "once");
        nothing(&mut listener).await;
    }
    finish(listener, [transport]).await;
}

/// A call gets its own result, also when the delivery was acknowledged before, and calls do not get mixed up.
pub async fn call_gets_its_result(connect: Connect<'_>) {
    let (server, client) = (connect(), connect());
    let target = target();
    let to = Destination::Server(target.clone());
    let mut listener = listen(&server, &target, 10).await;
    let serve = async {
        let (first, second) = (next(&mut listener).await, next(&mut listener).await);
        // Answered in the other order.
        for delivery in [second, first] {
            assert!(delivery.request().expect("a request was sent").call.is_some());
            assert!(delivery.ack().await);
            let result = json!({"echo": method(&*delivery)});
            delivery.reply(Ok(result)).await.expect("the caller is there");
        }
    };
    let (one, two, ()) =
        tokio::join!(client.call(&to, request("one"), PATIENCE), client.call(&to, request("two"), PATIENCE), serve);
    assert_eq!(one.expect("answered"), json!({"echo": "one"}));
    assert_eq!(two.expect("answered"), json!({"echo": "two"}));
    finish(listener, [server, client]).await;
}

/// A failure keeps its class, message and keyword arguments.
pub async fn call_gets_the_failure(connect: Connect<'_>) {
    let (server, client) = (connect(), connect());
    let target = target();
    let mut listener = listen(&server, &target, 10).await;
    let fault = Fault::volume_not_found("3f2b0b4e");
    let serve = async {
        let delivery = next(&mut listener).await;
        delivery.reply(Err(fault.clone())).await.expect("the caller is there");
        assert!(delivery.ack().await);
    };
    let to = Destination::Server(target);
    let (answer, ()) = tokio::join!(client.call(&to, request("initialize_connection"), PATIENCE), serve);
    assert!(matches!(&answer, Err(Error::Remote(same)) if *same == fault), "{answer:?}");
    finish(listener, [server, client]).await;
}

/// Without an answer a call ends after its timeout, whether somebody took it or nobody is there.
pub async fn call_times_out(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    let mut listener = listen(&transport, &target, 10).await;
    let timeout = Duration::from_millis(1500);
    let (to, nowhere) = (Destination::Server(target), Destination::Server(self::target()));
    let (answer, lost, taken) = tokio::join!(
        transport.call(&to, request("slow"), timeout),
        transport.call(&nowhere, request("lost"), timeout),
        next(&mut listener)
    );
    for answer in [answer, lost] {
        assert!(matches!(&answer, Err(Error::Timeout { .. })), "{answer:?}");
    }
    taken.reply(Ok(Value::Null)).await.expect("a caller that has gone is no error");
    assert!(taken.ack().await);
    finish(listener, [transport]).await;
}

/// A call that nobody took in its time is not delivered later: its caller has long been told that it failed.
pub async fn expired_call_is_not_delivered(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    listen(&transport, &target, 1).await.stop().await;
    let to = Destination::Server(target.clone());
    let answer = transport.call(&to, request("too_late"), Duration::from_millis(500)).await;
    assert!(matches!(&answer, Err(Error::Timeout { .. })), "{answer:?}");
    tokio::time::sleep(SILENCE).await;
    cast(&transport, &target, "in_time").await;
    let mut listener = listen(&transport, &target, 1).await;
    assert_eq!(take(&mut listener).await, "in_time");
    finish(listener, [transport]).await;
}

/// No more than the prefetch is unsettled; settling one lets in another.
pub async fn prefetch_bounds_what_is_unsettled(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    let mut listener = listen(&transport, &target, 2).await;
    for name in ["one", "two", "three"] {
        cast(&transport, &target, name).await;
    }
    let (one, two) = (next(&mut listener).await, next(&mut listener).await);
    nothing(&mut listener).await;
    assert!(one.ack().await);
    assert_eq!(take(&mut listener).await, "three");
    assert!(two.ack().await);
    finish(listener, [transport]).await;
}

/// What is handed back comes again, to anyone, and says so.
pub async fn requeued_comes_again(connect: Connect<'_>) {
    let (a, b) = (connect(), connect());
    let target = target();
    let mut first = listen(&a, &target, 1).await;
    cast(&a, &target, "again").await;
    let delivery = next(&mut first).await;
    assert!(!delivery.redelivered());
    first.stop().await;
    let mut second = listen(&b, &target, 1).await;
    delivery.requeue().await;
    again(&mut second).await;
    finish(second, [a, b]).await;
}

/// A delivery that is forgotten comes again.
pub async fn dropped_comes_again(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    let mut listener = listen(&transport, &target, 1).await;
    cast(&transport, &target, "again").await;
    drop(next(&mut listener).await);
    again(&mut listener).await;
    finish(listener, [transport]).await;
}

/// What was given up does not come again, and leaves room for others.
pub async fn rejected_does_not_come_again(connect: Connect<'_>) {
    let transport = connect();
    let target = target();
    let mut listener = listen(&transport, &target, 1).await;
    cast(&transport, &target, "bad").await;
    next(&mut listener).await.reject().await;
    nothing(&mut listener).await;
    cast(&transport, &target, "good").await;
    assert_eq!(take(&mut listener).await, "good");
    finish(listener, [transport]).await;
}

/// After `stop` nothing more is handed out, what was can still be settled, and the rest goes to others.
pub async fn stopped_listener_hands_back_what_it_has_not_handed_out(connect: Connect<'_>) {
    let (a, b) = (connect(), connect());
    let target = target();
    let mut first = listen(&a, &target, 10).await;
    for name in ["one", "two", "three"] {
        cast(&a, &target, name).await;
    }
    let one = next(&mut first).await;
    tokio::time::sleep(SILENCE).await;
    first.stop().await;
    assert!(within(first.next()).await.is_none());
    let mut second = listen(&b, &target, 10).await;
    assert!(one.is_live());
    assert!(one.ack().await);
    let mut rest = [take(&mut second).await, take(&mut second).await];
    rest.sort();
    assert_eq!(rest, ["three", "two"]);
    nothing(&mut second).await;
    finish(second, [a, b]).await;
}

/// A process that goes leaves its unsettled messages to the others.
pub async fn closed_transport_hands_everything_back(connect: Connect<'_>) {
    let (a, b) = (connect(), connect());
    let target = target();
    let mut first = listen(&a, &target, 10).await;
    cast(&b, &target, "again").await;
    let held = next(&mut first).await;
    a.close().await;
    assert!(!held.is_live());
    assert!(!held.ack().await, "a dead delivery cannot be acknowledged");
    assert!(within(first.next()).await.is_none());
    let refused = a.cast(&Destination::Server(target.clone()), request("late")).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let mut second = listen(&b, &target, 10).await;
    again(&mut second).await;
    finish(second, [b]).await;
}

/// When `kill` has broken the connections of this transport, what was unsettled is dead and comes again by itself, and
/// the transport goes on.
pub async fn broken_connection(connect: Connect<'_>, kill: impl AsyncFnOnce()) {
    let transport = connect();
    let target = target();
    let mut listener = listen(&transport, &target, 10).await;
    cast(&transport, &target, "again").await;
    let held = next(&mut listener).await;
    kill().await;
    let second = next(&mut listener).await;
    assert!(!held.is_live() && second.is_live());
    assert!(!held.ack().await, "a dead delivery cannot be acknowledged");
    assert_eq!((method(&*second).as_str(), second.redelivered()), ("again", true));
    assert!(second.ack().await);
    cast(&transport, &target, "after").await;
    assert_eq!(take(&mut listener).await, "after");
    finish(listener, [transport]).await;
}

/// An address that no other test uses.
fn target() -> Target {
    Target::new(format!("conformance.{}", uuid::Uuid::new_v4().simple()), "server")
}

fn request(method: &str) -> Request {
    let args = json!({"size": 3, "name": "caf\u{e9}", "nothing": null, "nested": {"list": [1, "two"]}});
    let args = args.as_object().cloned().unwrap_or_default();
    Request::new(method, "3.0", RequestContext::user("a-user", "a-project"), args)
}

async fn listen(transport: &Arc<dyn Transport>, target: &Target, prefetch: u16) -> Box<dyn Listener> {
    within(transport.listen(vec![target.clone()], prefetch)).await.expect("not closed")
}

async fn cast(transport: &Arc<dyn Transport>, target: &Target, method: &str) {
    let to = Destination::Server(target.clone());
    within(transport.cast(&to, request(method))).await.expect("the broker is there");
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn next(listener: &mut Box<dyn Listener>) -> Box<dyn Delivery> {
    within(listener.next()).await.expect("the listener was not stopped")
}

/// The next delivery's method, after acknowledging it.
async fn take(listener: &mut Box<dyn Listener>) -> String {
    let delivery = next(listener).await;
    assert!(delivery.ack().await);
    method(&*delivery)
}

fn method(delivery: &dyn Delivery) -> String {
    delivery.request().expect("a request was sent").method.clone()
}

/// The message `again` comes once more, says so, and is acknowledged.
async fn again(listener: &mut Box<dyn Listener>) {
    let delivery = next(listener).await;
    assert_eq!((method(&*delivery).as_str(), delivery.redelivered()), ("again", true));
    assert!(delivery.delivery_count().is_none_or(|count| count == 1));
    assert!(delivery.ack().await);
    nothing(listener).await;
}

async fn nothing(listener: &mut Box<dyn Listener>) {
    if let Ok(Some(delivery)) = tokio::time::timeout(SILENCE, listener.next()).await {
        panic!("unexpected message {:?}", delivery.request());
    }
}

async fn finish<const N: usize>(mut listener: Box<dyn Listener>, transports: [Arc<dyn Transport>; N]) {
    within(listener.stop()).await;
    for transport in transports {
        within(transport.close()).await;
    }
}
