//! The ZooKeeper locks over TLS, beside tooz.

mod common {
    pub(crate) mod locks;
    pub(crate) mod openssl;
    pub(crate) mod peer;
    pub(crate) mod zookeeper;
}

use std::path::Path;

use common::locks::{once, soon};
use common::openssl::openssl;
use common::peer::Peer;
use common::zookeeper::{coordinator, eventually};
use scoria_coordination::{Coordinator, Health, Options};
use scoria_testkit::{ZooKeeper, free_port};

/// Certificates of a CA of our own: `ca.pem`, and for each name `NAME.pem` and `NAME.key`.
fn certify(directory: &Path, names: &[(&str, &str)]) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    for (name, subject) in names {
        std::fs::write(directory.join("ext"), format!("subjectAltName={subject}\nbasicConstraints=CA:FALSE\n"))
            .unwrap();
        openssl(directory, &format!("req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let ca = "-CA ca.pem -CAkey ca.key -CAcreateserial";
        openssl(directory, &format!("x509 -req -in {name}.csr {ca} -days 2 -extfile ext -out {name}.pem"));
        // A server of ZooKeeper's takes both from one file.
        let both =
            ["key", "pem"].map(|kind| std::fs::read_to_string(directory.join(format!("{name}.{kind}"))).unwrap());
        std::fs::write(directory.join(format!("{name}.both.pem")), both.concat()).unwrap();
    }
}

async fn serve(directory: &Path, name: &str) -> (ZooKeeper, u16) {
    let port = free_port().unwrap();
    let (files, port_and_address) =
        (directory.display(), format!("secureClientPort={port}\nsecureClientPortAddress=127.0.0.1"));
    let config = format!(
        "{port_and_address}\nssl.keyStore.location={files}/{name}.both.pem\nssl.keyStore.type=PEM\n\
         ssl.trustStore.location={files}/ca.pem\nssl.trustStore.type=PEM\nssl.clientAuth=need\nssl.hostnameVerification=false\n"
    );
    (ZooKeeper::start_with(&config).await.unwrap(), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_certificates_and_a_wrong_name_is_refused() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path();
    certify(files, &[("right", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere"), ("client", "DNS:client")]);
    let here = files.display();
    let options = format!("timeout=6&use_ssl=1&ca={here}/ca.pem&certfile={here}/client.pem&keyfile={here}/client.key");

    openssl(files, "pkcs8 -topk8 -v2 aes256 -passout pass:secret -in client.key -out client.locked.key");
    let locked = options.replace("client.key", "client.locked.key");

    let (_right, port) = serve(files, "right").await;
    let url = format!("zookeeper://127.0.0.1:{port}?{options}");
    let ours = coordinator(&url).await;
    let held = once(&ours, "a").await.unwrap();
    assert_eq!(Peer::python(&url, &["try", "a"]).says(&["got", "busy"]), "busy");
    held.release().await.unwrap();
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    once(&ours, "a").await.unwrap_err();
    python.let_go();

    let locked = format!("zookeeper://127.0.0.1:{port}?{locked}&keyfile_password=");
    once(&coordinator(&format!("{locked}secret")).await, "a").await.unwrap().release().await.unwrap();
    let error = Coordinator::open(&format!("{locked}guess"), &Options::default()).await.unwrap_err().to_string();
    assert!(error.contains("keyfile_password=***") && !error.contains("guess"), "{error}");

    let (_wrong, port) = serve(files, "wrong").await;
    let url = format!("zookeeper://127.0.0.1:{port}?{options}");
    let refused = Coordinator::open(&url, &Options::default()).await.unwrap();
    let down = || async { matches!(refused.health(), Health::Down(why) if why.contains("no server answers")) };
    eventually("the reason", down).await;
    let trusting = coordinator(&format!("{url}&verify_certs=false")).await;
    soon(&trusting, "a").await.release().await.unwrap();
}
