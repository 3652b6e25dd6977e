//! Not there, at the start or later: the service is up, says so, takes no work, and begins by itself.

use std::time::Duration;

use anyhow::Result;
use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, Redis, ZooKeeper, free_port};

use crate::{BACKOFF, Service};

/// How long it is watched that nothing happens.
const WHILE: Duration = Duration::from_secs(2);

/// A lock service that comes and goes.
trait Server {
    fn url(&self) -> String;
    fn kill(&mut self);
    async fn restart(&mut self);
}

macro_rules! server {
    ($server:ty, $url:ident $(, $member:expr)?) => {
        impl Server for $server {
            fn url(&self) -> String {
                // As tooz has it.
                self.$url().replace("postgres://", "postgresql://")
            }

            fn kill(&mut self) {
                let _ = <$server>::kill(self $(, $member)?);
            }

            async fn restart(&mut self) {
                <$server>::restart(self $(, $member)?).await.unwrap();
            }
        }
    };
}

server!(Redis, url);
server!(ZooKeeper, url);
server!(Etcd, url, 0);
server!(Memcached, url);
server!(MariaDb, sqlx_url);
server!(Postgres, sqlx_url);

/// A service that was started while its lock service was not there, and works since it is.
async fn started_without(server: &mut impl Server, kind: &str) -> Service {
    // Its port is known; nobody listens there yet.
    server.kill();
    let service = Service::start(&server.url());
    service.wait_for_trouble("no work is taken: locks unavailable").await;
    let log = service.log();
    assert!(log.contains("ready"), "{log}");
    let protects = log.lines().find(|said| said.contains("it protects")).unwrap_or_else(|| panic!("{log}"));
    assert!(protects.contains(&format!("lock service {kind}: the cluster, ")), "{protects}");
    let volume = service.ask_for_volume().await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(service.status(&volume).await, "creating");

    server.restart().await;
    service.wait("the volume is there", async || service.status(&volume).await == "available").await;
    service.wait_for_good_health().await;
    tries_are_logged(&service.log());
    service
}

/// The blueprint's lines: each try that failed with its number and the wait until the next one, and that one succeeded.
fn tries_are_logged(log: &str) {
    let (tries, _) = log.split_once("Reconnected to coordination backend.").unwrap_or_else(|| panic!("{log}"));
    let tries: Vec<_> = tries.lines().filter_map(|line| line.split_once("Reconnect attempt ")).collect();
    assert!(tries.len() > 2, "{log}");
    for (number, (_, said)) in (1..).zip(tries) {
        let wait = said.strip_prefix(&format!("{number} failed. Next try in ")).and_then(|rest| rest.split_once("s."));
        let (wait, _) = wait.unwrap_or_else(|| panic!("try {number}: {said}"));
        assert!(wait.split_once('.').is_some_and(|(_, part)| part.len() == 2), "try {number}: {said}");
        let wait: f64 = wait.parse().unwrap();
        assert!((BACKOFF[0]..=BACKOFF[1]).contains(&wait), "try {number}: {said}");
    }
}

#[tokio::test]
async fn it_starts_without_its_lock_service_and_works_whenever_there_is_one() {
    let mut redis = Redis::start().await.unwrap();
    let service = started_without(&mut redis, "redis").await;

    // The same when it goes away later.
    redis.kill();
    service.wait_for_trouble("no work is taken: locks unavailable").await;
    let second = service.ask_for_volume().await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(service.status(&second).await, "creating");
    redis.restart().await.unwrap();
    service.wait("the volume is there", async || service.status(&second).await == "available").await;
    service.wait_for_good_health().await;

    let log = service.log();
    let said = |text: &str| log.matches(text).count();
    assert_eq!(said("locks unavailable"), 2, "once for each time\n{log}");
    assert_eq!(said("available again, taking work"), 2, "{log}");
    assert_eq!(said("Reconnected to coordination backend."), 2, "{log}");
    service.ends().await;
}

async fn starts_without<S: Server>(server: impl Future<Output = Result<S>>, kind: &str) {
    let mut server = server.await.unwrap();
    started_without(&mut server, kind).await.ends().await;
}

/// All at once: most of it is waiting.
#[tokio::test]
async fn it_starts_without_its_lock_service_whichever_that_is() {
    tokio::join!(
        starts_without(ZooKeeper::start(), "zookeeper"),
        starts_without(Etcd::start(), "etcd"),
        starts_without(Memcached::start(), "memcached"),
        starts_without(MariaDb::start(), "mysql"),
        starts_without(Postgres::start(), "postgresql"),
    );
}

#[tokio::test]
async fn one_that_never_had_its_lock_service_can_be_stopped() {
    let service = Service::start(&format!("redis://127.0.0.1:{}", free_port().unwrap()));
    service.wait_for_trouble("locks").await;
    service.ends().await;
}
