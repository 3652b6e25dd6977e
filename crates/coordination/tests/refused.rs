//! A URL that cannot be used is refused at the start, once, with the reason and what can be used; no password is shown.

use scoria_coordination::{Error, Options, providers};

/// What is listed after every refusal.
const KNOWN: &[&str] = &[
    "zookeeper://",
    "redis://",
    "etcd://",
    "etcd3+http://",
    "memcached://",
    "mysql://",
    "postgresql://",
    "database://",
    "file://",
    "memory://",
];

async fn refusal(url: &str) -> String {
    match providers::open(url, &Options::default()).await {
        Err(error @ Error::Config(_)) => error.to_string(),
        other => panic!("{url}: {other:?}"),
    }
}

#[tokio::test]
async fn schemes_that_tooz_has_or_had_say_why_not_and_what_else() {
    for (url, why) in [
        ("ipc://", "ipc:// (semaphores of one machine) is not supported"),
        ("kubernetes://?namespace=default", "it is deprecated in tooz"),
        ("consul://localhost:8500", "tooz has dropped it"),
        ("zake://", "use memory:// in tests"),
        ("etcd3://localhost:2379", "use etcd3+http://"),
        ("rediss://localhost", "write redis:// with ssl=true"),
        ("postgres://localhost/x", "is written postgresql://"),
        ("mysql+pymysql://u:hush@localhost/x", "is written mysql://"),
        ("nats://u:hush@localhost", "there is no lock service 'nats://'"),
        ("MONGO://u:hush@localhost", "there is no lock service 'mongo://'"),
    ] {
        let error = refusal(url).await;
        assert!(error.starts_with("[coordination] backend_url: ") && error.contains(why), "{url}: {error}");
        for known in KNOWN {
            assert!(error.contains(known), "{url}: {known} is not listed in: {error}");
        }
        assert!(!error.contains("hush") && !error.contains('\n') && !error.contains("  "), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_url_says_what_one_looks_like() {
    for bad in ["", "u:hush@localhost", "/var/lib/cinder", "local host://x"] {
        let error = refusal(bad).await;
        assert!(!error.contains("hush"), "{error}");
    }
    assert!(refusal("/var/lib/cinder").await.contains("write for example file:///var/lib/cinder"));
}
