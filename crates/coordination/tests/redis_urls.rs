//! Everything a `redis://` URL can say, on real servers: each way in, and what is told when there is none.

mod common {
    pub(crate) mod act;
    pub(crate) mod locks;
    pub(crate) mod openssl;
    pub(crate) mod peer;
}

use std::path::Path;
use std::time::Duration;

use common::act::act;
use common::locks::{busy, coordinator, soon, unconnected, until};
use common::openssl::openssl;
use common::peer::{Peer, python_tries};
use scoria_coordination::{Error, Health, Options, providers};
use scoria_runtime::Tasks;
use scoria_testkit::{Redis, RedisSentinels};

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

/// We and Python take turns through the same URL.
async fn both_get_in(url: &str) {
    let ours = coordinator(url).await;
    let held = soon(&ours, "a").await;
    assert_eq!(python_tries(url, "a"), "busy");
    held.release().await.unwrap();
    let mut python = Peer::python(url, &["hold", "a"]);
    python.says(&["held"]);
    busy(&ours, "a").await;
    python.let_go();
    soon(&ours, "a").await.release().await.unwrap();
}

/// What is said of a server that is of no use.
async fn refused(url: &str, expected: &str) {
    let ours = unconnected(url).await;
    let says = || matches!(ours.health(), Health::Down(why) if why.to_lowercase().contains(&expected.to_lowercase()));
    until(expected, says).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_socket_database_and_namespace() {
    let server = Redis::start().await.unwrap();
    let url = format!("redis://{}?db=3&namespace=locks&timeout=20", server.socket().display());
    both_get_in(&url).await;
    let ours = coordinator(&url).await;
    let _held = soon(&ours, "a").await;
    let keys = server.execute(&["-n", "3", "KEYS", "*_lock"]).unwrap();
    assert_eq!(keys.trim(), "locks_cinder-a_lock");
    let life: u64 = server.execute(&["-n", "3", "PTTL", "locks_cinder-a_lock"]).unwrap().trim().parse().unwrap();
    assert!((15_000..=20_000).contains(&life), "{life}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_password_or_as_a_user() {
    let server = Redis::start_with(&[("requirepass", "sesame")]).await.unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    both_get_in(&format!("redis://:sesame@{address}")).await;
    server.execute(&["ACL", "SETUSER", "locks", "on", ">open", "~_tooz*", "&_tooz*", "+@all"]).unwrap();
    both_get_in(&format!("redis://locks:open@{address}")).await;

    for wrong in ["redis://", "redis://:secret@", "redis://locks:secret@"] {
        let ours = unconnected(&format!("{wrong}{address}")).await;
        let Health::Down(_) = ours.health() else { panic!("let in") };
        tokio::time::sleep(Duration::from_millis(300)).await;
        let Health::Down(why) = ours.health() else { panic!("let in") };
        assert!(
            !why.contains("secret") && (why.contains("NOAUTH") || why.to_lowercase().contains("password")),
            "{why}"
        );
    }
}

/// As an operator has set it up for tooz: without leave to publish or to subscribe. Then nobody is woken, and waiters look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_touch_keys_waits_all_the_same() {
    let server = Redis::start().await.unwrap();
    server.execute(&["ACL", "SETUSER", "locks", "on", ">open", "~_tooz*", "resetchannels", "+@all"]).unwrap();
    let url = format!("redis://locks:open@127.0.0.1:{}", server.port());
    both_get_in(&url).await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.release().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().release().await.unwrap();
}

/// An authority, and a certificate of it for `localhost` and for clients.
fn certificates(directory: &Path) {
    // By the first test that needs it.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let new = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test";
    openssl(directory, &format!("{new} -keyout ca.key -out ca.pem"));
    let issued = "-CA ca.pem -CAkey ca.key -keyout host.key -out host.pem";
    let leaf = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    openssl(directory, &format!("{new} {issued} {leaf}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_certificates_of_our_own() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("host.pem"), file("host.key"));
    let port = scoria_testkit::free_port().unwrap();
    let settings = [
        ("tls-port", port.to_string()),
        ("tls-cert-file", certificate.clone()),
        ("tls-key-file", key.clone()),
        ("tls-ca-cert-file", ca.clone()),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let _server = Redis::start_with(&settings).await.unwrap();
    let tls = format!("redis://localhost:{port}?ssl=true&ssl_ca_certs={ca}");
    both_get_in(&format!("{tls}&ssl_certfile={certificate}&ssl_keyfile={key}")).await;
    refused(&tls, "certificate").await;
    refused(&format!("redis://localhost:{port}?ssl=true"), "certificate").await;
}

/// Users, passwords and certificates of which the servers know nothing, nor the sentinels of the servers'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_sentinels_with_users_and_certificates_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("host.pem"), file("host.key"));
    let settings = [
        ("requirepass", "among-themselves"),
        ("user", "watcher on >look ~* &* +@all"),
        ("tls-cert-file", &certificate),
        ("tls-key-file", &key),
        ("tls-ca-cert-file", &ca),
    ];
    let servers = RedisSentinels::start_with(0, Duration::from_secs(5), Some("sesame"), &settings).await.unwrap();
    servers.servers[0].execute(&["ACL", "SETUSER", "locks", "on", ">open", "~_tooz*", "&_tooz*", "+@all"]).unwrap();
    let with = |server: &str, sentinels: &str| {
        let url = servers.url().replace("redis://:sesame@", &format!("redis://{server}@"));
        url.replace("&sentinel_password=among-themselves", sentinels)
    };
    let (ours, theirs) = ("locks:open", "&sentinel_username=watcher&sentinel_password=look");
    both_get_in(&with(ours, theirs)).await;
    refused(&with(ours, ""), "NOAUTH").await;
    for wrong in [
        with(ours, "&sentinel_username=locks&sentinel_password=open"),
        with(ours, "&sentinel_username=watcher&sentinel_password=open"),
        with("watcher:look", theirs),
    ] {
        refused(&wrong, "password").await;
    }

    // A Python client that asks sentinels over TLS cannot reach a server without it.
    let tls = servers.ports().iter().zip(servers.tls_ports()).fold(with(ours, theirs), |url, (plain, tls)| {
        url.replace(&format!("127.0.0.1:{plain}"), &format!("127.0.0.1:{tls}"))
    });
    refused(&tls, "no sentinel names the master").await;
    let tls = format!("{tls}&sentinel_ssl=true&ssl_ca_certs={ca}");
    refused(&tls, "certificate").await;
    let one = coordinator(&format!("{tls}&ssl_certfile={certificate}&ssl_keyfile={key}")).await;
    soon(&one, "a").await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_or_a_replica_is_refused_with_the_remedy() {
    let cluster = Redis::start_with(&[("cluster-enabled", "yes")]).await.unwrap();
    refused(&cluster.url(), "a Redis Cluster cannot keep locks as tooz does: use one server, or one with sentinels")
        .await;
    let master = Redis::start().await.unwrap();
    let replica = Redis::start_with(&[("replicaof", &format!("127.0.0.1 {}", master.port()))]).await.unwrap();
    refused(&replica.url(), "is a replica, not the master").await;
}

#[tokio::test]
async fn wrong_options_are_one_error_at_start() {
    for (url, expected) in [
        ("redis://h?lock_timeout=0", "lock_timeout=0"),
        ("redis://h?lock_timeout=soon", "lock_timeout=soon"),
        ("redis://h?sentinel=m", "needs its port"),
        ("redis://", "needs a host or the path of a socket"),
    ] {
        match providers::open(url, &Options::default()).await {
            Err(Error::Config(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}
