//! TLS towards the broker: rustls with aws-lc-rs, authorities from a file or from the system, client certificates.

use std::path::Path;
use std::sync::Arc;

use lapin::tcp::RustlsConnector;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::RabbitOptions;
use crate::Error;

/// Reads the files once, at start, so that a wrong path is an error then and not a warning every minute.
///
/// # Errors
/// [`Error::Config`] naming the option and the file.
pub(super) fn connector(options: &RabbitOptions) -> Result<Option<RustlsConnector>, Error> {
    if !options.ssl {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(options, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("ssl: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&options.ssl_cert_file, &options.ssl_key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl_cert_file", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("ssl_key_file", key, error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| wrong("ssl_key_file", key, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(config.into()))
}

fn verifier(options: &RabbitOptions, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let authorities = match &options.ssl_ca_file {
        Some(file) => certificates("ssl_ca_file", file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Error::Config(format!("ssl: no certificate authority ({error}): set ssl_ca_file")))?;
    if options.ssl_enforce_hostname_verification { Ok(chain) } else { Ok(Arc::new(AnyName(chain))) }
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(option, file, error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(option, file, error))?;
    if found.is_empty() {
        return Err(wrong(option, file, "no certificate in it"));
    }
    Ok(found)
}

fn wrong(option: &str, file: &Path, error: impl std::fmt::Display) -> Error {
    Error::Config(format!("{option} {}: {error}", file.display()))
}

/// Verifies the chain, but not that the certificate is for this host (`ssl_enforce_hostname_verification = false`).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_files_are_named_with_their_option() {
        let with = |file: &str| RabbitOptions { ssl: true, ssl_ca_file: Some(file.into()), ..RabbitOptions::default() };
        assert!(connector(&RabbitOptions::default()).unwrap().is_none(), "no TLS unless asked for");
        let error = connector(&with("/nonexistent/ca.pem")).unwrap_err().to_string();
        assert!(error.contains("ssl_ca_file /nonexistent/ca.pem"), "{error}");

        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = connector(&with(empty.path().to_str().unwrap())).unwrap_err().to_string();
        assert!(error.contains("no certificate in it"), "{error}");
    }
}
