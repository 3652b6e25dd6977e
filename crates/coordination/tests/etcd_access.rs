//! etcd behind TLS, with client certificates, and with users and passwords.

mod common {
    pub(crate) mod etcd;
    pub(crate) mod locks;
    pub(crate) mod openssl;
    pub(crate) mod peer;
}

use std::path::Path;

use common::etcd::only_sessions_are_left;
use common::locks::{busy, coordinator, once, soon, unconnected, until};
use common::openssl::openssl;
use common::peer::{Peer, python_tries};
use scoria_coordination::{Error, Health, Options, providers};
use scoria_runtime::Tasks;
use scoria_testkit::Etcd;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// An authority and what it has signed: for 127.0.0.1 as a server, and for a client. And an authority nobody trusts.
fn certificates(dir: &Path) {
    for authority in ["ca", "stranger"] {
        let subject = format!("-subj /CN={authority}");
        openssl(
            dir,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -keyout {authority}.key -out {authority}.pem -days 2 {subject}"
            ),
        );
    }
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(dir, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        openssl(dir, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}"));
    }
}

async fn says(url: &str, what: &str) {
    let ours = unconnected(url).await;
    let why = || match ours.health() {
        Health::Up => panic!("it is connected"),
        Health::Down(why) => why,
    };
    until(what, || why().contains(what)).await;
    assert!(matches!(once(&ours, "a").await, Err(Error::Unavailable(_))));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_certificate_of_ours_in_both_formats_and_beside_python() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let etcd = Etcd::start_with_tls(dir.path()).await.unwrap();
    let port = etcd.tls_port().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let files = format!("ca_cert={ca}&cert_cert={certificate}&cert_key={key}");

    let own = coordinator(&format!("etcd://127.0.0.1:{port}?{files}")).await;
    soon(&own, "a").await.release().await.unwrap();
    own.close().await;

    let tooz = format!("etcd3+https://127.0.0.1:{port}?{files}");
    let ours = coordinator(&tooz).await;
    let mut python = Peer::python(&tooz, &["hold", "a"]);
    python.says(&["held"]);
    busy(&ours, "a").await;
    python.let_go();
    let held = soon(&ours, "a").await;
    assert_eq!(python_tries(&tooz, "a"), "busy");
    held.release().await.unwrap();

    says(&format!("etcd3+https://127.0.0.1:{port}?ca_cert={ca}"), "ertificate").await;
    says(&format!("etcd3+https://127.0.0.1:{port}?ca_cert={}", file("stranger.pem")), "certificate").await;
    says(&format!("etcd3+http://127.0.0.1:{port}"), "etcd at http://127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_log_in_and_again_when_their_token_is_forgotten() {
    let mut etcd = Etcd::start().await.unwrap();
    let port = etcd.port();
    for (path, body) in [
        ("auth/user/add", json!({ "name": "root", "password": "root" })),
        ("auth/role/add", json!({ "name": "root" })),
        ("auth/user/grant", json!({ "user": "root", "role": "root" })),
        ("auth/user/add", json!({ "name": "locks", "password": "p@ss/word" })),
        ("auth/role/add", json!({ "name": "locks" })),
        // From `/scoria/` to `/scoria0`: all that begins so, and nothing else.
        (
            "auth/role/grant",
            json!({ "name": "locks", "perm":
                { "permType": "READWRITE", "key": "L3Njb3JpYS8=", "range_end": "L3Njb3JpYTA=" } }),
        ),
        ("auth/user/grant", json!({ "user": "locks", "role": "locks" })),
        ("auth/enable", json!({})),
    ] {
        etcd.ask(0, path, &body).await.unwrap();
    }
    let ours = coordinator(&format!("etcd://locks:p%40ss%2Fword@127.0.0.1:{port}?timeout=60")).await;
    let held = soon(&ours, "a").await;
    // Tokens are only in the server's memory.
    etcd.kill(0);
    etcd.restart(0).await.unwrap();
    held.verify().await.unwrap();
    held.release().await.unwrap();
    soon(&ours, "a").await.release().await.unwrap();
    ours.close().await;

    says(&format!("etcd://locks:wrong@127.0.0.1:{port}"), "authentication failed").await;
    says(&format!("etcd://127.0.0.1:{port}"), "user name is empty").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_said() {
    let etcd = Etcd::start().await.unwrap();
    // Of the gateway, which is not asked.
    let older = coordinator(&format!("etcd3+http://127.0.0.1:{}?api_version=v3beta", etcd.port())).await;
    soon(&older, "a").await.release().await.unwrap();
    older.close().await;
    only_sessions_are_left(&etcd, 0).await;
    let http1 = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = http1.local_addr().unwrap().port();
    let tasks = Tasks::new();
    drop(tasks.spawn("http/1.1", async move {
        let mut clients = Vec::new();
        loop {
            let (mut client, _) = http1.accept().await.unwrap();
            client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            clients.push(client);
        }
    }));
    says(&format!("etcd3+http://127.0.0.1:{port}"), "does not speak HTTP/2").await;
    let refused = providers::open("etcd://u:secret@h?timeout=soon", &Options::default()).await.unwrap_err().to_string();
    assert!(refused.contains("timeout=soon: it has to be a whole number") && !refused.contains("secret"), "{refused}");
}
