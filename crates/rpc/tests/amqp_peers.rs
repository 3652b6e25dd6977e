//! Real oslo.messaging on the other side of a real RabbitMQ, both ways.

mod amqp_support;

use std::path::PathBuf;
use std::time::Duration;

use amqp_support::{PATIENCE, connect, next, options, request, target, within};
use scoria_model::{Fault, FaultClass, RequestContext};
use scoria_rpc::{Destination, Error, Notification, Transport};
use scoria_testkit::{PythonChild, PythonPeer, RabbitMq};
use serde_json::{Value, json};

/// Starts the script in one of its roles and waits until it is ready.
async fn peer(broker: &RabbitMq, role: &str, args: &[&str]) -> PythonChild {
    peer_at(&broker.url(), role, args).await
}

/// The same with a transport URL, in whose query oslo.messaging's options may be.
async fn peer_at(url: &str, role: &str, args: &[&str]) -> PythonChild {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/amqp_support/peer.py");
    let mut all = vec![role, url];
    all.extend(args);
    let mut child = PythonPeer::find().unwrap().start(&script, &all).unwrap();
    assert_eq!(child.next(PATIENCE).await.unwrap(), json!({"ready": true}));
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_casts_and_calls_us() {
    let broker = RabbitMq::shared().await.unwrap();
    let transport = connect(options(&broker));
    let target = target("ours");
    let mut listener = within(transport.listen(vec![target.clone()], 4)).await.unwrap();
    let mut python = peer(&broker, "client", &[]).await;
    let order = |more: Value| {
        let mut order = json!({"topic": target.topic, "server": target.server, "method": "m"});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order.to_string()
    };

    // A cast, with the context that Cinder sends.
    python.tell(&order(json!({"method": "delete_volume", "args": {"volume_id": "v"}}))).await.unwrap();
    assert_eq!(python.next(PATIENCE).await.unwrap(), json!({"result": null}));
    let delivery = next(&mut listener).await;
    let cast = delivery.request().unwrap();
    assert_eq!((cast.method.as_str(), cast.args["volume_id"].as_str()), ("delete_volume", Some("v")));
    assert_eq!((cast.context.user_id.as_deref(), &cast.call), (Some("a-user"), &None));
    assert!(delivery.ack().await);

    // A fanout.
    python.tell(&order(json!({"server": null, "fanout": true}))).await.unwrap();
    assert!(next(&mut listener).await.ack().await);
    assert_eq!(python.next(PATIENCE).await.unwrap(), json!({"result": null}));

    // A call with a result.
    python.tell(&order(json!({"call": true, "args": {"n": 1}}))).await.unwrap();
    let delivery = next(&mut listener).await;
    assert!(delivery.ack().await, "calls are acknowledged on admission");
    delivery.reply(Ok(json!({"driver_volume_type": "nfs", "data": [1, "\u{e9}"]}))).await.unwrap();
    let expected = json!({"result": {"driver_volume_type": "nfs", "data": [1, "\u{e9}"]}});
    assert_eq!(python.next(PATIENCE).await.unwrap(), expected);

    // Failures arrive as the exceptions that they name.
    for (fault, class, known) in [
        (Fault::volume_not_found("vv"), "VolumeNotFound_Remote", true),
        (Fault::backend("no"), "VolumeBackendAPIException_Remote", false),
        (Fault::no_such_method("m"), "RemoteError", false),
    ] {
        python.tell(&order(json!({"call": true}))).await.unwrap();
        let delivery = next(&mut listener).await;
        delivery.reply(Err(fault.clone())).await.unwrap();
        assert!(delivery.ack().await);
        let raised = python.next(PATIENCE).await.unwrap();
        assert_eq!((raised["error"].as_str(), raised["known"].as_bool()), (Some(class), Some(known)), "{raised}");
        assert!(raised["message"].as_str().unwrap().contains(&fault.message), "{raised}");
    }

    // A caller that watches us waits much longer than its monitor timeout while we give signs of life.
    python.tell(&order(json!({"call": true, "timeout": 30, "monitor": 2}))).await.unwrap();
    let delivery = next(&mut listener).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    delivery.reply(Ok(json!("late but there"))).await.unwrap();
    assert!(delivery.ack().await);
    assert_eq!(python.next(PATIENCE).await.unwrap(), json!({"result": "late but there"}));

    // Without them, it gives up.
    python.tell(&order(json!({"call": true, "timeout": 30, "monitor": 1}))).await.unwrap();
    let delivery = next(&mut listener).await;
    drop(delivery);
    listener.stop().await;
    assert_eq!(python.next(PATIENCE).await.unwrap()["error"], json!("MessagingTimeout"));
    python.kill().await.unwrap();
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_call_a_python_server() {
    let broker = RabbitMq::shared().await.unwrap();
    let transport = connect(options(&broker));
    let target = target("theirs");
    let mut python = peer(&broker, "server", &[&target.topic, &target.server]).await;
    let to = Destination::Server(target.clone());

    let answer = within(transport.call(&to, request("echo", 7), PATIENCE)).await.unwrap();
    assert_eq!(answer, json!({"echo": {"number": 7}}));
    let got = python.next(PATIENCE).await.unwrap();
    assert_eq!(got, json!({"method": "echo", "args": {"number": 7}, "user_id": "a-user"}));

    for to in [Destination::Topic(target.topic.clone()), Destination::Fanout(target.topic.clone()), to.clone()] {
        transport.cast(&to, request("echo", 8)).await.unwrap();
        assert_eq!(python.next(PATIENCE).await.unwrap()["args"]["number"], json!(8));
    }

    // We join it on its queues, as a member of a mixed cluster does: same attributes, and the work is shared.
    let mut listener = within(transport.listen(vec![target.clone()], 4)).await.unwrap();
    for number in 0..4 {
        transport.cast(&to, request("echo", number)).await.unwrap();
    }
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut listener).await;
        numbers.push(amqp_support::number(&*delivery));
        assert!(delivery.ack().await);
        numbers.push(python.next(PATIENCE).await.unwrap()["args"]["number"].as_u64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3]);
    listener.stop().await;

    let mut missing = request("missing", 0);
    missing.args = json!({"volume_id": "vv"}).as_object().unwrap().clone();
    let error = within(transport.call(&to, missing, PATIENCE)).await.unwrap_err();
    let Error::Remote(fault) = error else { panic!("{error:?}") };
    assert_eq!((fault.class, fault.kwargs["volume_id"].as_str()), (FaultClass::VolumeNotFound, Some("vv")));

    let mut wrong = request("wrong", 0);
    wrong.args.clear();
    let error = within(transport.call(&to, wrong, PATIENCE)).await.unwrap_err();
    assert!(matches!(&error, Error::RemoteUnknown { class, .. } if class == "builtins.KeyError"), "{error:?}");

    let error = within(transport.call(&to, request("nonsense", 0), PATIENCE)).await.unwrap_err();
    assert!(matches!(&error, Error::Remote(fault) if fault.class == FaultClass::NoSuchMethod), "{error:?}");
    let mut newer = request("echo", 0);
    newer.version = "4.0".to_owned();
    let error = within(transport.call(&to, newer, PATIENCE)).await.unwrap_err();
    assert!(matches!(&error, Error::Remote(fault) if fault.class == FaultClass::UnsupportedVersion), "{error:?}");
    python.kill().await.unwrap();
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_listener_gets_our_notifications() {
    let broker = RabbitMq::shared().await.unwrap();
    let mut options = options(&broker);
    // Towards brokers of their own, here the same, in both forms.
    options.notifications.brokers = Some((options.hosts.clone(), options.virtual_host.clone()));
    options.notifications.drivers = vec!["messagingv2".to_owned(), "messaging".to_owned(), "noop".to_owned()];
    let transport = connect(options);
    let mut context = RequestContext::user("a-user", "a-project");
    context.raw.insert("auth_token".to_owned(), json!("secret"));
    // Sent before anybody listens: the queue is there all the same.
    for (event, priority) in [("volume.create.start", "INFO"), ("volume.create.error", "ERROR")] {
        let notification = Notification {
            publisher_id: "volume.hosta@nfs1".to_owned(),
            event_type: event.to_owned(),
            priority,
            payload: json!({"volume_id": "v", "size": 1}),
            context: context.clone(),
        };
        within(transport.notify(notification)).await.unwrap();
    }
    let mut python = peer(&broker, "listener", &[]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let got = python.next(PATIENCE).await.unwrap();
        assert_eq!((&got["publisher_id"], &got["payload"]["size"]), (&json!("volume.hosta@nfs1"), &json!(1)));
        assert_eq!(got["context"]["user_id"], json!("a-user"));
        assert!(!got.to_string().contains("secret"), "no secrets on the notification bus: {got}");
        seen.push(format!("{} {}", got["priority"].as_str().unwrap(), got["event_type"].as_str().unwrap()));
    }
    seen.sort();
    let (error, info) = ("ERROR volume.create.error", "INFO volume.create.start");
    assert_eq!(seen, [error, error, info, info], "each in the enveloped and in the bare form");
    python.kill().await.unwrap();
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_read_and_sent() {
    let broker = RabbitMq::shared().await.unwrap();
    // What others compress is read whatever our own option says.
    let plain = connect(options(&broker));
    for method in ["gzip", "bzip2"] {
        let url = format!("{}?kombu_compression={method}", broker.url());
        let ours = target(&format!("ours.{method}"));
        let mut listener = within(plain.listen(vec![ours.clone()], 4)).await.unwrap();
        let mut client = peer_at(&url, "client", &[]).await;
        let order =
            json!({"topic": ours.topic, "server": ours.server, "method": "m", "call": true, "args": {"n": "\u{e9}"}});
        client.tell(&order.to_string()).await.unwrap();
        let delivery = next(&mut listener).await;
        assert_eq!(delivery.request().unwrap().args["n"], json!("\u{e9}"));
        assert!(delivery.ack().await);
        delivery.reply(Ok(json!("answered"))).await.unwrap();
        assert_eq!(client.next(PATIENCE).await.unwrap(), json!({"result": "answered"}));

        let theirs = target(&format!("theirs.{method}"));
        let mut server = peer_at(&url, "server", &[&theirs.topic, &theirs.server]).await;
        let mut options = options(&broker);
        options.rabbit.kombu_compression = Some(method.parse().unwrap());
        let compressing = connect(options);
        let to = Destination::Server(theirs.clone());
        for transport in [&compressing, &plain] {
            let answer = within(transport.call(&to, request("echo", 7), PATIENCE)).await.unwrap();
            assert_eq!(answer, json!({"echo": {"number": 7}}));
            assert_eq!(server.next(PATIENCE).await.unwrap()["args"]["number"], json!(7));
        }
        server.kill().await.unwrap();

        // Nobody reads this queue any more: what is in it is what we sent.
        compressing.cast(&to, request("echo", 8)).await.unwrap();
        let raw = lapin::Connection::connect(&broker.amqp_url(), lapin::ConnectionProperties::default()).await.unwrap();
        let queue = format!("{}.{}", theirs.topic, theirs.server);
        let channel = raw.create_channel().await.unwrap();
        let got = channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap().expect("one message");
        let text = String::from_utf8_lossy(&got.data);
        assert!(!text.contains("oslo.message"), "{text}");
        client.kill().await.unwrap();
        compressing.close().await;
    }
    plain.close().await;
}
