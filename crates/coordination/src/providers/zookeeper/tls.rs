//! TLS as kazoo's options name it, checked more strictly: a server's name has to be in its certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs5::EncryptionScheme;
use pkcs5::der::asn1::OctetStringRef;
use pkcs5::der::{Decode, Reader, SliceReader};
use zookeeper_client::TlsOptions;

use crate::Error;
use crate::url::{BackendUrl, bad_option};

/// The TLS options, if there is to be TLS.
pub(super) fn read(url: &BackendUrl<'_>) -> Result<Option<TlsOptions>, Error> {
    if !url.flag("use_ssl", false)? {
        return Ok(None);
    }
    let ca = url.option("ca");
    let verify_names = url.flag("verify_certs", true)?;
    if !verify_names && ca.is_none() {
        return Err(bad_option(
            "verify_certs",
            "false",
            "together with ca: a server is never trusted unseen, only its name is then not compared",
        ));
    }
    let wrong = |key, value: &str, error: zookeeper_client::Error| bad_option(key, value, &format!("usable: {error}"));
    let roots = match &ca {
        Some(file) => file_of("ca", file)?,
        None => system_roots()?,
    };
    let shown = ca.as_deref().unwrap_or("(the system's)");
    let mut options = TlsOptions::new().with_pem_ca(&roots).map_err(|error| wrong("ca", shown, error))?;
    match (url.option("certfile"), url.option("keyfile")) {
        (Some(cert), Some(key)) => {
            let certs = file_of("certfile", &cert)?;
            let mut keys = file_of("keyfile", &key)?;
            if let Some(password) = url.option("keyfile_password") {
                keys = decrypted(keys, &password).map_err(|why| bad_option("keyfile_password", "", why))?;
            }
            options = options.with_pem_identity(&certs, &keys).map_err(|error| wrong("certfile", &cert, error))?;
        }
        (Some(cert), None) => return Err(bad_option("certfile", &cert, "together with keyfile")),
        (None, Some(key)) => return Err(bad_option("keyfile", &key, "together with certfile")),
        (None, None) => {}
    }
    Ok(Some(if verify_names { options } else { without_names(options) }))
}

/// kazoo never compares names. The certificate still has to come from the CA.
#[allow(unsafe_code, reason = "marked so by the client because of what it permits; it touches no memory")]
fn without_names(options: TlsOptions) -> TlsOptions {
    // SAFETY: there is nothing to uphold in memory; whoever writes `verify_certs=false` wants it.
    unsafe { options.with_no_hostname_verification() }
}

fn file_of(key: &str, path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| bad_option(key, path, &format!("a readable PEM file: {error}")))
}

/// A private key that may be encrypted, as PEM. One that is not needs no password, as with Python.
fn decrypted(pem: String, password: &str) -> Result<String, &'static str> {
    const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    const UNREADABLE: &str = "for a key that 'openssl pkcs8 -topk8 -v2 aes256' has encrypted";
    if pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(UNREADABLE);
    }
    let Some((_, rest)) = pem.split_once(BEGIN) else { return Ok(pem) };
    let body: String = rest.split_once(END).ok_or(UNREADABLE)?.0.split_whitespace().collect();
    let encrypted = STANDARD.decode(body).map_err(|_| UNREADABLE)?;
    let mut reader = SliceReader::new(&encrypted).map_err(|_| UNREADABLE)?;
    let parts = reader.sequence(|parts| Ok((EncryptionScheme::decode(parts)?, OctetStringRef::decode(parts)?)));
    let (scheme, data) = parts.map_err(|_: pkcs5::der::Error| UNREADABLE)?;
    let key = scheme.decrypt(password, data.as_bytes()).map_err(|_| "the password of the keyfile")?;
    Ok(pem_of("PRIVATE KEY", &key))
}

fn pem_of(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", STANDARD.encode(der))
}

/// The certificates that the system trusts, as PEM.
fn system_roots() -> Result<String, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(bad_option("ca", "", "given: this system has no trusted certificates of its own"));
    }
    Ok(found.certs.iter().map(|cert| pem_of("CERTIFICATE", cert)).collect())
}
