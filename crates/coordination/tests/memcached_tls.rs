//! memcached behind TLS, with tooz' options; Python reads the same URL.

mod common {
    pub(crate) mod locks;
    pub(crate) mod openssl;
    pub(crate) mod peer;
}

use std::path::Path;
use std::time::Duration;

use common::locks::{SOON, coordinator, soon, unconnected};
use common::openssl::openssl;
use common::peer::python_tries;
use scoria_coordination::Health;
use scoria_testkit::{Memcached, free_port};

/// An authority and another one; certificates of the first for the server's address, for another host, and for a client.
fn certificates(dir: &Path) {
    for authority in ["ca", "other"] {
        let request = "req -x509 -newkey rsa:2048 -nodes -days 2";
        openssl(dir, &format!("{request} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"));
    }
    for (name, alt) in [("server", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example"), ("client", "DNS:client")] {
        std::fs::write(dir.join("ext"), format!("subjectAltName={alt}\n")).unwrap();
        openssl(dir, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext";
        openssl(dir, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}"));
    }
}

/// A server that speaks TLS with this certificate and wants one of its clients; and its port.
async fn server(dir: &Path, certificate: &str) -> (Memcached, u16) {
    let (port, dir) = (free_port().unwrap(), dir.display());
    let ssl = format!(
        "ssl_chain_cert={dir}/{certificate}.pem,ssl_key={dir}/{certificate}.key,ssl_ca_cert={dir}/ca.pem,ssl_verify_mode=2"
    );
    let server = Memcached::start_with(&["-Z", "-l", &format!("127.0.0.1:{port}"), "-o", &ssl]).await.unwrap();
    (server, port)
}

fn url(port: u16, dir: &Path, authority: &str, more: &str) -> String {
    format!("memcached://127.0.0.1:{port}?use_ssl=True&ca_cert={}/{authority}.pem{more}", dir.display())
}

fn client(dir: &Path) -> String {
    let dir = dir.display();
    format!("&ssl_cert={dir}/client.pem&ssl_key={dir}/client.key")
}

/// Waits until it says why it is not connected.
async fn refused(url: &str, reason: &str) {
    let instance = unconnected(url).await;
    let mut said = String::new();
    let end = std::time::Instant::now() + SOON;
    while !said.contains(reason) {
        assert!(std::time::Instant::now() < end, "not refused with '{reason}' but with '{said}'");
        match instance.health() {
            Health::Up => panic!("connected, although: {reason}"),
            Health::Down(why) => said = why,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_had_over_tls_and_python_reads_the_same_url() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (server, port) = server(dir.path(), "server").await;
    for more in ["", "&ssl_check_hostname=true"] {
        let url = url(port, dir.path(), "ca", &format!("{}{more}", client(dir.path())));
        let ours = coordinator(&url).await;
        let held = soon(&ours, "a").await;
        assert_eq!(python_tries(&url, "a"), "busy");
        held.release().await.unwrap();
        assert_eq!(python_tries(&url, "a"), "got");
    }
    assert_eq!(server.keys().unwrap(), Vec::<String>::new());

    refused(&url(port, dir.path(), "other", &client(dir.path())), "certificate").await;
    refused(&url(port, dir.path(), "ca", ""), "use_ssl=true").await;
    refused(&format!("memcached://127.0.0.1:{port}"), "is use_ssl=false right?").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_in_the_certificate_counts_only_if_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (_server, port) = server(dir.path(), "elsewhere").await;
    let as_tooz = url(port, dir.path(), "ca", &client(dir.path()));
    soon(&coordinator(&as_tooz).await, "a").await.release().await.unwrap();
    refused(&format!("{as_tooz}&ssl_check_hostname=yes"), "certificate").await;
}
