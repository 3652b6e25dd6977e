//! What breaks between us and the broker: nothing is lost, nothing is settled that was not, and all comes back by itself.

mod amqp_support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use amqp_support::{cast, connect, next, number, options, options_on, request, target, until, up, within};
use scoria_rpc::{Call, Destination, Error, Health, Transport};
use scoria_testkit::RabbitMq;
use scoria_testkit::faults::{Link, Proxy};

/// Messages of the virtual host, ready and unsettled.
async fn messages(broker: &RabbitMq) -> (u64, u64) {
    let queues = broker.queues().await.unwrap();
    queues.iter().fold((0, 0), |(ready, unsettled), queue| (ready + queue.1, unsettled + queue.2))
}

fn down_reason(health: &Health) -> &str {
    match health {
        Health::Down(reason) => reason,
        Health::Up => "up",
    }
}

/// The node is killed while a message is being worked on and others wait, and is killed in good order after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_loses_nothing() {
    let mut broker = RabbitMq::start().await.unwrap();
    let mut durable = options(&broker);
    durable.rabbit.amqp_durable_queues = true;
    let transport = connect(durable);
    let target = target("restart");
    let mut listener = within(transport.listen(vec![target.clone()], 2)).await.unwrap();
    for number in 0..5 {
        cast(&transport, &target, "work", number).await;
    }
    let held = next(&mut listener).await;
    broker.kill().unwrap();
    until("the loss is noticed", async || !held.is_live()).await;
    assert!(!held.ack().await, "an acknowledgement that cannot reach the broker is none");
    assert!(matches!(transport.health(), Health::Down(_)));
    // Sent while there is nobody to take it.
    let late = {
        let (transport, to) = (transport.clone(), Destination::Server(target.clone()));
        async move { transport.cast(&to, request("work", 5)).await }
    };
    let (restarted, late) = tokio::join!(broker.restart(), late);
    restarted.unwrap();
    late.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 6 {
        let delivery = next(&mut listener).await;
        if delivery.ack().await {
            seen.insert(number(&*delivery));
        }
    }

    cast(&transport, &target, "work", 6).await;
    let held = next(&mut listener).await;
    broker.stop_app().await.unwrap();
    assert!(!held.is_live() && !held.ack().await);
    broker.start_app().await.unwrap();
    let again = next(&mut listener).await;
    assert_eq!((number(&*again), again.redelivered()), (6, true));
    assert!(again.ack().await);
    until("nothing is left", async || messages(&broker).await == (0, 0)).await;
    transport.close().await;
}

/// A queue is deleted under its consumer: it is declared again, and what came from the others is still ours to settle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_comes_back() {
    let broker = RabbitMq::shared().await.unwrap();
    let transport = connect(options(&broker));
    let target = target("deleted");
    let mut listener = within(transport.listen(vec![target.clone()], 2)).await.unwrap();
    transport.cast(&Destination::Topic(target.topic.clone()), request("held", 1)).await.unwrap();
    let held = next(&mut listener).await;
    let queue = format!("{}.{}", target.topic, target.server);
    broker.ctl(&["delete_queue", "--vhost", broker.vhost(), &queue]).await.unwrap();
    until("the queue is back", async || broker.queues().await.unwrap().iter().any(|known| known.0 == queue)).await;
    cast(&transport, &target, "after", 2).await;
    let after = next(&mut listener).await;
    assert_eq!(number(&*after), 2);
    assert!(held.is_live() && held.ack().await && after.ack().await);

    // So does the reply queue.
    let answer = async {
        let delivery = next(&mut listener).await;
        let reply_q = delivery.request().unwrap().call.clone().unwrap().reply_q;
        broker.ctl(&["delete_queue", "--vhost", broker.vhost(), &reply_q]).await.unwrap();
        delivery.reply(Ok("still found".into())).await.unwrap();
        assert!(delivery.ack().await);
    };
    let call = Destination::Server(target.clone());
    let (answer, ()) = tokio::join!(transport.call(&call, request("call", 3), amqp_support::PATIENCE), answer);
    assert_eq!(answer.unwrap(), "still found");
    listener.stop().await;
    transport.close().await;
}

/// The broker closes the channel (here: its consumer timeout, in production half an hour). What was in hand is dead, and
/// comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_channel_is_opened_again() {
    let broker = RabbitMq::start().await.unwrap();
    let short =
        "application:set_env(rabbit, consumer_timeout, 500), application:set_env(rabbit, channel_tick_interval, 500).";
    broker.ctl(&["eval", short]).await.unwrap();
    let transport = connect(options(&broker));
    let target = target("channel");
    let mut listener = within(transport.listen(vec![target.clone()], 2)).await.unwrap();
    cast(&transport, &target, "slow", 1).await;
    let held = next(&mut listener).await;
    until("the channel is closed", async || !held.is_live()).await;
    assert!(!held.ack().await);
    let again = next(&mut listener).await;
    assert_eq!((number(&*again), again.redelivered()), (1, true));
    assert!(again.ack().await);
    assert_eq!(transport.health(), Health::Up, "the connection stands");
    transport.close().await;
}

/// Memory alarm: sending waits and times out with the reason, while receiving and settling go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_only_what_is_sent() {
    let broker = RabbitMq::start().await.unwrap();
    let mut impatient = options(&broker);
    impatient.publish_timeout = Duration::from_secs(2);
    let (transport, patient) = (connect(impatient), connect(options(&broker)));
    let target = target("alarm");
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    for number in 0..2 {
        cast(&transport, &target, "before", number).await;
    }
    let held = next(&mut listener).await;
    broker.memory_alarm(true).await.unwrap();
    // The broker blocks a connection when it sends; before that it does not know.
    let refused = transport.cast(&Destination::Server(target.clone()), request("blocked", 2)).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    until("the alarm is known", async || down_reason(&transport.health()).contains("blocks publishers")).await;
    let refused = transport.cast(&Destination::Server(target.clone()), request("blocked", 3)).await.unwrap_err();
    assert!(refused.to_string().contains("blocks publishers"), "{refused}");

    assert!(held.ack().await);
    let second = next(&mut listener).await;
    assert_eq!(number(&*second), 1);
    assert!(second.ack().await);
    until("both are settled", async || messages(&broker).await.1 == 0).await;

    let waiting = Destination::Server(target.clone());
    let (sent, ()) = tokio::join!(patient.cast(&waiting, request("waits", 4)), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.memory_alarm(false).await.unwrap();
    });
    sent.unwrap();
    up(&transport).await;
    // The first one was under way when the alarm came, and arrives now; the second was never begun.
    let mut arrived = BTreeSet::new();
    while !arrived.contains(&4) {
        let delivery = next(&mut listener).await;
        arrived.insert(number(&*delivery));
        assert!(delivery.ack().await);
    }
    assert!(!arrived.contains(&3), "{arrived:?}");
    patient.close().await;
    transport.close().await;
}

/// Of two brokers one is dead; then the other one, and the first is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_brokers_is_enough() {
    let broker = RabbitMq::shared().await.unwrap();
    let (left, right) = (Proxy::start(broker.port()).unwrap(), Proxy::start(broker.port()).unwrap());
    left.set(Link::Cut);
    let transport = connect(options_on(&[left.port(), right.port()], broker.vhost()));
    let target = target("two");
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    cast(&transport, &target, "right", 1).await;
    let held = next(&mut listener).await;
    left.set(Link::Up);
    right.set(Link::Cut);
    until("the loss is noticed", async || !held.is_live()).await;
    // Whoever works on it keeps the slot until it settles it, even though that has no effect any more.
    assert!(!held.ack().await);
    let again = next(&mut listener).await;
    assert!(again.redelivered() && again.ack().await);
    cast(&transport, &target, "left", 2).await;
    assert!(next(&mut listener).await.ack().await);
    assert!(left.connections() >= 2);
    transport.close().await;
}

/// A process that is cut off for good: its work goes to the other one, and it can settle nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_process_held_goes_to_the_next() {
    let broker = RabbitMq::shared().await.unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    let (lost, other) = (connect(options_on(&[proxy.port()], broker.vhost())), connect(options(&broker)));
    let target = target("crash");
    let mut first = within(lost.listen(vec![target.clone()], 3)).await.unwrap();
    for number in 0..3 {
        cast(&other, &target, "work", number).await;
    }
    let held = next(&mut first).await;
    let done = next(&mut first).await;
    assert!(done.ack().await);
    // An acknowledgement is on its way when it returns, not yet there.
    until("the broker has the acknowledgement", async || messages(&broker).await == (0, 2)).await;
    proxy.set(Link::Cut);
    until("the loss is noticed", async || !held.is_live()).await;
    assert!(!held.ack().await);

    let mut second = within(other.listen(vec![target.clone()], 3)).await.unwrap();
    let mut again = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut second).await;
        assert!(delivery.redelivered());
        again.push(number(&*delivery));
        assert!(delivery.ack().await);
    }
    again.sort_unstable();
    assert_eq!(again, [0, 2], "all but the settled one");
    until("nothing is left", async || messages(&broker).await == (0, 0)).await;
    lost.close().await;
    other.close().await;
}

/// The broker takes a message but its confirmation is lost: it is sent again, with the same id, so that the receiver can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_confirmation_makes_a_duplicate_not_a_loss() {
    let broker = RabbitMq::shared().await.unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    let (sender, receiver) = (connect(options_on(&[proxy.port()], broker.vhost())), connect(options(&broker)));
    let target = target("duplicate");
    let mut listener = within(receiver.listen(vec![target.clone()], 3)).await.unwrap();
    cast(&sender, &target, "warm", 0).await;
    assert!(next(&mut listener).await.ack().await);

    proxy.set(Link::AnswersLost);
    let to = Destination::Server(target.clone());
    let sending = sender.cast(&to, request("once", 1));
    let receiving = async {
        let first = next(&mut listener).await;
        proxy.set(Link::Up);
        proxy.cut();
        let second = next(&mut listener).await;
        (first, second)
    };
    let (sent, (first, second)) = tokio::join!(sending, receiving);
    sent.unwrap();
    let ids = [&first, &second].map(|delivery| delivery.request().unwrap().unique_id.clone().unwrap());
    assert_eq!(ids[0], ids[1]);
    assert!(first.ack().await && second.ack().await);
    sender.close().await;
    receiver.close().await;
}

/// A partition without a word: heartbeats end it, deliveries die, and everything goes on when it heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_partition_is_noticed() {
    let broker = RabbitMq::shared().await.unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    let mut options = options_on(&[proxy.port()], broker.vhost());
    options.rabbit.heartbeat_timeout_threshold = Duration::from_secs(1);
    let transport = connect(options);
    let target = target("partition");
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    cast(&transport, &target, "work", 1).await;
    let held = next(&mut listener).await;
    proxy.set(Link::Stalled);
    until("the silence is noticed", async || !held.is_live()).await;
    assert!(!held.ack().await);
    proxy.set(Link::Up);
    let again = next(&mut listener).await;
    assert!(again.redelivered() && again.ack().await);
    up(&transport).await;
    transport.close().await;
}

/// A server that accepts and says nothing is given up each time, without leaving threads behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_server_costs_nothing() {
    let mute = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let transport = connect(options_on(&[mute.local_addr().unwrap().port()], "/"));
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("lapin")).count()
    };
    until("it is given up", async || down_reason(&transport.health()).contains("no answer within")).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(threads() <= 2, "one thread per connection being tried: {}", threads());
    let refused = transport.call(&Destination::Topic("t".into()), request("m", 1), Duration::from_millis(200)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    within(transport.close()).await;
    until("its threads have ended", async || threads() == 0).await;
}

/// What an operator reads when the transport URL is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_and_hosts_are_explained() {
    let broker = RabbitMq::shared().await.unwrap();
    let mut password = options(&broker);
    password.hosts[0].password = "wrong".to_owned();
    let mut vhost = options(&broker);
    vhost.virtual_host = "nowhere".to_owned();
    let mut host = options(&broker);
    host.hosts[0].host = "no-such-host.invalid".to_owned();
    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for (options, expected) in [
        (password, "check user \"guest\" and its password"),
        (vhost, "check virtual host \"nowhere\""),
        (host, "no-such-host.invalid"),
        (options_on(&[closed], "/"), "refused"),
    ] {
        let transport = connect(options);
        let mut last = String::new();
        until(expected, async || {
            last = down_reason(&transport.health()).to_owned();
            !last.contains("not yet")
        })
        .await;
        assert!(last.contains(expected), "{last}");
        within(transport.close()).await;
        assert!(matches!(transport.listen(vec![], 1).await, Err(Error::Closed)));
    }
}

/// The broker is away when we start: listening waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_later_is_waited_for() {
    let broker = RabbitMq::shared().await.unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    proxy.set(Link::Cut);
    let transport = connect(options_on(&[proxy.port()], broker.vhost()));
    let target = target("later");
    let listening = transport.listen(vec![target.clone()], 1);
    let (listener, ()) = tokio::join!(within(listening), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.set(Link::Up);
    });
    let mut listener = listener.unwrap();
    cast(&transport, &target, "work", 1).await;
    assert!(next(&mut listener).await.ack().await);
    transport.close().await;
}

/// The caller is gone, and its queue with it: the reply is offered for a while, then dropped, and the next one at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_to_a_missing_queue_are_dropped() {
    let broker = RabbitMq::shared().await.unwrap();
    let mut short = options(&broker);
    short.rabbit.kombu_missing_consumer_retry_timeout = Duration::from_secs(1);
    let transport = connect(short);
    let target = target("gone");
    let mut listener = within(transport.listen(vec![target.clone()], 2)).await.unwrap();
    let mut took = Vec::new();
    for number in 0..2 {
        let mut call = request("call", number);
        let reply_q = "reply_gone".to_owned();
        call.call = Some(Call { msg_id: number.to_string(), reply_q, monitor_timeout: None });
        transport.cast(&Destination::Server(target.clone()), call).await.unwrap();
        let delivery = next(&mut listener).await;
        let started = Instant::now();
        within(delivery.reply(Ok(number.into()))).await.unwrap();
        took.push(started.elapsed());
        assert!(delivery.ack().await);
    }
    assert!(took[0] >= Duration::from_secs(1) && took[1] < Duration::from_millis(200), "{took:?}");
    transport.close().await;
}

/// What is no request arrives as such, can be given up, and holds up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_told_from_requests() {
    let broker = RabbitMq::shared().await.unwrap();
    let transport = connect(options(&broker));
    let target = target("garbage");
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    let raw = lapin::Connection::connect(&broker.amqp_url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    let key = format!("{}.{}", target.topic, target.server);
    let compressed = lapin::types::FieldTable::from(std::collections::BTreeMap::from([(
        "compression".into(),
        lapin::types::AMQPValue::LongString("application/x-lzma".into()),
    )]));
    for (body, headers, expected) in [
        (&b"\xff\x00 no JSON"[..], None, "cannot be decoded"),
        (b"{}", Some(compressed), "set kombu_compression to gzip"),
    ] {
        let properties = lapin::BasicProperties::default().with_headers(headers.unwrap_or_default());
        channel
            .basic_publish("openstack".into(), key.as_str().into(), Default::default(), body, properties)
            .await
            .unwrap();
        let delivery = next(&mut listener).await;
        let error = delivery.request().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        delivery.reject().await;
    }
    cast(&transport, &target, "good", 1).await;
    assert!(next(&mut listener).await.ack().await);
    let long = Destination::Topic("t".repeat(256));
    let refused = transport.cast(&long, request("m", 1)).await.unwrap_err();
    assert!(refused.to_string().contains("too long"), "{refused}");
    transport.close().await;
}

/// A caller that loses its connection while it waits gets its answer all the same: its reply queue keeps its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_survives_a_broken_connection() {
    let broker = RabbitMq::shared().await.unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    let (client, server) = (connect(options_on(&[proxy.port()], broker.vhost())), connect(options(&broker)));
    let target = target("call");
    let mut listener = within(server.listen(vec![target.clone()], 1)).await.unwrap();
    let serving = async {
        let delivery = next(&mut listener).await;
        assert!(delivery.ack().await);
        proxy.cut();
        delivery.reply(Ok("answered".into())).await.unwrap();
    };
    let to = Destination::Server(target.clone());
    let (answer, ()) = tokio::join!(client.call(&to, request("call", 1), amqp_support::PATIENCE), serving);
    assert_eq!(answer.unwrap(), "answered");
    client.close().await;
    server.close().await;
}
