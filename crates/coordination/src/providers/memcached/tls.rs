//! TLS towards memcached, with tooz' options: rustls with aws-lc-rs.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;
use crate::url::BackendUrl;

/// How to speak TLS, with what the files said at the start.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server.clone(), stream).await
    }
}

/// Reads the options and the files that they name: `None` without `use_ssl`. As in tooz the name in the certificate counts only with
/// `ssl_check_hostname`.
pub(super) fn read(url: &BackendUrl<'_>, host: &str) -> Result<Option<Tls>, Error> {
    if !url.flag("use_ssl", false)? {
        return Ok(None);
    }
    if url.option("ssl_ciphers").is_some() {
        tracing::warn!("[coordination] backend_url: ssl_ciphers is ignored, only safe ciphers are ever used");
    }
    let server = ServerName::try_from(host.to_owned()).map_err(|error| wrong("host", host, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let authorities = match url.option("ca_cert") {
        Some(file) => certificates("ca_cert", &file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Error::Config(format!("use_ssl: no certificate authority ({error}): set ca_cert")))?;
    let verifier: Arc<dyn ServerCertVerifier> =
        if url.flag("ssl_check_hostname", false)? { chain } else { Arc::new(AnyName(chain)) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("use_ssl: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (url.option("ssl_cert"), url.option("ssl_key")) {
        (None, None) => builder.with_no_client_auth(),
        (Some(_), Some(_)) if url.option("ssl_key_password").is_some() => {
            return Err(Error::Config(
                "option ssl_key_password: encrypted keys cannot be read; give ssl_key a file without a password that \
                 only the service may read"
                    .to_owned(),
            ));
        }
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl_cert", &certificate)?;
            let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong("ssl_key", &key, error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| wrong("ssl_key", &key, error))?
        }
        (Some(_), None) => return Err(Error::Config("option ssl_cert needs ssl_key too".to_owned())),
        (None, Some(_)) => return Err(Error::Config("option ssl_key needs ssl_cert too".to_owned())),
    };
    // memcached, when it asks for certificates, ends every connection that resumes the session of another one: it does not tell OpenSSL
    // whose sessions they are (SSL_CTX_set_session_id_context).
    config.resumption = Resumption::disabled();
    Ok(Some(Tls { connector: Arc::new(config).into(), server }))
}

fn certificates(option: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(option, file, error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(option, file, error))?;
    if found.is_empty() {
        return Err(wrong(option, file, "no certificate in it"));
    }
    Ok(found)
}

fn wrong(option: &str, file: &str, error: impl Display) -> Error {
    Error::Config(format!("option {option} {file}: {error}"))
}

/// Verifies the chain, but not that the certificate is for this host.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, after the chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
