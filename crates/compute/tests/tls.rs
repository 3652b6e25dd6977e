//! Keystone and Nova behind TLS.

mod common {
    pub(crate) mod cloud;
}

use std::io::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::serve::Listener;
use common::cloud::FakeCloud;
use scoria_compute::{Compute, Error, Nova, Options};
use scoria_testkit::program;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new(program("openssl", "openssl").unwrap());
    let out = command.args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority and what it has signed: for 127.0.0.1 as a server, and for a client. And an authority nobody trusts.
fn certificates(dir: &Path) {
    for authority in ["ca", "stranger"] {
        let request = "req -x509 -newkey rsa:2048 -nodes -days 2";
        openssl(dir, &format!("{request} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"));
    }
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(dir, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        openssl(dir, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}"));
    }
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.unwrap();
            // A client that does not like the certificate is gone.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Behind TLS; with a certificate of the client, if it wants one.
async fn cloud(dir: &Path, wants_certificate: bool) -> FakeCloud {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let read = |name: &str| CertificateDer::from_pem_file(dir.join(name)).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let mut authorities = RootCertStore::empty();
    authorities.add(read("ca.pem")).unwrap();
    let config = match wants_certificate {
        true => ServerConfig::builder()
            .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(authorities)).build().unwrap()),
        false => ServerConfig::builder().with_no_client_auth(),
    };
    let config = config.with_single_cert(vec![read("server.pem")], key).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", tcp.local_addr().unwrap());
    FakeCloud::serve(Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }, url)
}

async fn ask(options: Options) -> std::result::Result<(), Error> {
    Nova::new(options)?.create_volume_snapshot(None, "v", &json!({})).await
}

#[tokio::test]
async fn the_authorities_of_cafile_and_no_others_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let cloud = cloud(dir.path(), false).await;
    let cafile = |name: &str| Options { cafile: Some(dir.path().join(name)), ..cloud.options() };
    ask(cafile("ca.pem")).await.unwrap();
    for distrusts in [cafile("stranger.pem"), cloud.options()] {
        let error = ask(distrusts).await.unwrap_err();
        assert!(matches!(&error, Error::NotDone(why) if why.contains("option cafile names")), "{error:?}");
    }
    ask(Options { insecure: true, ..cloud.options() }).await.unwrap();
    ask(Options { insecure: true, ..cafile("stranger.pem") }).await.unwrap();
    assert_eq!(cloud.calls().len(), 3);
}

#[tokio::test]
async fn a_certificate_is_presented() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let cloud = cloud(dir.path(), true).await;
    let file = |name: &str| Some(dir.path().join(name));
    let own = || Options { cafile: file("ca.pem"), ..cloud.options() };
    assert!(matches!(ask(own()).await, Err(Error::NotDone(_))));
    ask(Options { certfile: file("client.pem"), keyfile: file("client.key"), ..own() }).await.unwrap();
    let both = ["client.pem", "client.key"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    std::fs::write(dir.path().join("both.pem"), both.concat()).unwrap();
    ask(Options { certfile: file("both.pem"), ..own() }).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    std::fs::write(dir.path().join("empty"), "").unwrap();
    let file = |name: &str| Some(dir.path().join(name));
    let why = |options: Options| match Nova::new(options).unwrap_err() {
        Error::Config(why) => why.replace(&dir.path().display().to_string(), ""),
        other => panic!("{other:?}"),
    };
    let options = || cloud.options();
    assert!(why(Options { cafile: file("none"), ..options() }).starts_with("cafile = /none: No such file"));
    assert_eq!(why(Options { cafile: file("empty"), ..options() }), "cafile = /empty: no certificate in it");
    assert_eq!(
        why(Options { keyfile: file("k"), ..options() }),
        "keyfile = /k: it needs a certificate, option certfile"
    );
    assert!(why(Options { certfile: file("empty"), ..options() }).starts_with("certfile = /empty: "));
}
