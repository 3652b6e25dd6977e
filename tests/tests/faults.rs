//! Broken brokers, cut connections and killed daemons: what the API accepted comes to its end, once.

use std::time::Duration;

use scoria_testkit::faults::{Link, Proxy};
use scoria_testkit::{PythonChild, RabbitMq, wait_until};
use scoria_tests::Cloud;
use tokio::time::sleep;

/// Several clients at work; returns once the first volume is there.
async fn crowd(cloud: &Cloud, clients: &str, rounds: &str) -> PythonChild {
    let (url, share) = (cloud.cinder.url(), cloud.site.share().display().to_string());
    let mut crowd = cloud.start_script("crowd", &[&url, &share, clients, rounds]).unwrap();
    assert_eq!(crowd.next(Duration::from_secs(120)).await.unwrap()["started"], true);
    crowd
}

async fn all_done(mut crowd: PythonChild, rounds: u64) {
    let report = crowd.next(Duration::from_secs(400)).await.unwrap();
    assert_eq!(report["rounds"], rounds, "{report}");
}

#[tokio::test]
async fn a_restarted_broker_loses_nothing() {
    // Queues that survive the restart are the operator's part of the bargain.
    let durable = [("oslo_messaging_rabbit", "amqp_durable_queues", "true")];
    let cloud = Cloud::on(RabbitMq::start().await.unwrap(), &durable).await.unwrap();
    let mut scoria = cloud.scoria("scoria", &[]).await.unwrap();
    scoria.allow_errors();
    let crowd = crowd(&cloud, "3", "4").await;
    cloud.broker.stop_app().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    cloud.broker.start_app().await.unwrap();
    all_done(crowd, 12).await;
    scoria.ready().await.unwrap();
    scoria.stop().await.unwrap();
}

#[tokio::test]
async fn cut_and_stalled_connections_lose_nothing_and_do_nothing_twice() {
    let cloud = Cloud::start().await.unwrap();
    let proxy = Proxy::start(cloud.broker.port()).unwrap();
    let through_proxy =
        cloud.broker.url().replace(&format!(":{}/", cloud.broker.port()), &format!(":{}/", proxy.port()));
    let settings = [
        ("DEFAULT", "transport_url", through_proxy.as_str()),
        ("oslo_messaging_rabbit", "heartbeat_timeout_threshold", "4"),
    ];
    let mut scoria = cloud.scoria("scoria", &settings).await.unwrap();
    scoria.allow_errors();
    let crowd = crowd(&cloud, "4", "5").await;
    for _ in 0..4 {
        proxy.cut();
        sleep(Duration::from_secs(2)).await;
    }
    proxy.set(Link::Stalled);
    sleep(Duration::from_secs(10)).await;
    proxy.set(Link::Cut);
    sleep(Duration::from_secs(1)).await;
    proxy.set(Link::Up);
    all_done(crowd, 20).await;
    scoria.ready().await.unwrap();
    scoria.stop().await.unwrap();
}

#[tokio::test]
async fn deleted_queues_come_back() {
    let cloud = Cloud::start().await.unwrap();
    let mut scoria = cloud.scoria("scoria", &[]).await.unwrap();
    scoria.allow_errors();
    for queue in ["cinder-volume", "cinder-volume.scoria@nfs1", "cinder-volume.scoria@nfs1.scoria"] {
        cloud.broker.ctl(&["delete_queue", queue, "--vhost", cloud.broker.vhost()]).await.unwrap();
    }
    let back = async || {
        let queues = cloud.broker.queues().await.unwrap_or_default();
        queues.iter().any(|(name, ..)| name == "cinder-volume.scoria@nfs1.scoria")
    };
    wait_until("the queue is declared again", Duration::from_secs(60), back).await.unwrap();
    let id = cloud.volume().await.unwrap();
    cloud.delete_volume(&id).await.unwrap();
    cloud.wait_for_status(&id, None).await.unwrap();
    scoria.ready().await.unwrap();
    scoria.stop().await.unwrap();
}

#[tokio::test]
async fn a_memory_alarm_delays_and_loses_nothing() {
    let cloud = Cloud::on(RabbitMq::start().await.unwrap(), &[]).await.unwrap();
    let mut scoria = cloud.scoria("scoria", &[]).await.unwrap();
    let crowd = crowd(&cloud, "3", "4").await;
    cloud.broker.memory_alarm(true).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    cloud.broker.memory_alarm(false).await.unwrap();
    all_done(crowd, 12).await;
    scoria.ready().await.unwrap();
    scoria.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_daemons_request_goes_to_the_other_one() {
    let cloud = Cloud::start().await.unwrap();
    let settings = [("DEFAULT", "host", "node")];
    let mut first = cloud.scoria("first", &settings).await.unwrap();
    let id = cloud.volume().await.unwrap();
    // Python holds the lock, so that the request is certainly under way when its daemon dies.
    let conf = cloud.site.conf("holder", &[]).unwrap().display().to_string();
    let mut holder = cloud.start_script("hold_lock", &[&conf, &format!("{id}-delete_volume")]).unwrap();
    assert_eq!(holder.next(Duration::from_secs(60)).await.unwrap()["held"], true);
    cloud.delete_volume(&id).await.unwrap();
    let queue = "cinder-volume.node@nfs1.node";
    let taken = async || {
        let queues = cloud.broker.queues().await.unwrap_or_default();
        queues.iter().any(|(name, ready, unacknowledged)| name == queue && (*ready, *unacknowledged) == (0, 1))
    };
    wait_until("the request is taken and not acknowledged", Duration::from_secs(60), taken).await.unwrap();
    let mut second = cloud.scoria("second", &settings).await.unwrap();
    first.kill();
    holder.tell("let go").await.unwrap();
    cloud.wait_for_status(&id, None).await.unwrap();
    assert!(!cloud.file(&id).exists());
    assert!(second.log().unwrap().contains(&id), "the other daemon did it");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn killed_daemons_lose_nothing() {
    let cloud = Cloud::start().await.unwrap();
    let settings = [("DEFAULT", "host", "node")];
    let mut first = cloud.scoria("first", &settings).await.unwrap();
    let mut second = cloud.scoria("second", &settings).await.unwrap();
    first.allow_errors();
    second.allow_errors();
    let crowd = crowd(&cloud, "4", "5").await;
    for _ in 0..3 {
        first.restart(&cloud.site).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        second.restart(&cloud.site).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    all_done(crowd, 20).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}
