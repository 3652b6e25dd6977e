//! What the URL says.

use std::time::Duration;

use reqwest::{Certificate, Client, Identity};
use rustls::{ClientConfig, RootCertStore};

use crate::Error;
use crate::url::{BackendUrl, bad_option};

const PORT: u16 = 2379;
const WHOLE_SECONDS: &str = "a whole number of seconds from 1 to 86400";

/// How to reach etcd, and for how long its leases live.
#[derive(Debug)]
pub(super) struct Settings {
    /// `http://host:port`, to be tried in this order.
    pub(super) endpoints: Vec<String>,
    /// The gateway's version, `v3`.
    pub(super) api_version: String,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    /// How long our lease lives after each beat, in whole seconds; etcd may choose longer.
    pub(super) time_to_live: Duration,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    /// First part of the keys of our own format.
    pub(super) namespace: String,
    tls: Option<Tls>,
}

/// Files in PEM format, read.
#[derive(Debug)]
struct Tls {
    authorities: Option<Vec<Certificate>>,
    identity: Option<Identity>,
}

impl Settings {
    /// `etcd3+http://` and `etcd3+https://` (`tooz/drivers/etcd3gw.py: Etcd3Driver`).
    pub(super) fn as_tooz(url: &BackendUrl<'_>) -> Result<Self, Error> {
        const KNOWN: &[&str] =
            &["api_version", "ca_cert", "cert_key", "cert_cert", "timeout", "lock_timeout", "membership_timeout"];
        url.warn_of_unknown(KNOWN);
        let https = url.scheme.ends_with("https");
        if url.hosts(PORT)?.len() > 1 {
            let scheme = &url.scheme;
            return Err(Error::Config(format!(
                "{scheme}:// takes one host, as tooz does; for several write etcd://host1,host2,host3, which Python services do \
                 not understand, or put a load balancer before them"
            )));
        }
        if url.user().is_some() {
            let scheme = &url.scheme;
            return Err(Error::Config(format!(
                "{scheme}:// knows no user, as tooz does not; etcd://user:password@host does"
            )));
        }
        let timeout = whole_seconds(url, "timeout", 30)?;
        let time_to_live = whole_seconds(url, "lock_timeout", timeout.as_secs())?;
        whole_seconds(url, "membership_timeout", timeout.as_secs())?;
        Self::with(url, https, time_to_live, Some(timeout))
    }

    /// `etcd://`, which is ours alone.
    pub(super) fn as_own(url: &BackendUrl<'_>) -> Result<Self, Error> {
        const KNOWN: &[&str] = &["api_version", "ca_cert", "cert_key", "cert_cert", "timeout", "namespace", "tls"];
        url.warn_of_unknown(KNOWN);
        let files = ["ca_cert", "cert_key", "cert_cert"].iter().any(|file| url.option(file).is_some());
        let https = url.flag("tls", files)?;
        let time_to_live = whole_seconds(url, "timeout", 15)?;
        let mut settings = Self::with(url, https, time_to_live, None)?;
        if let Some(namespace) = url.option("namespace") {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !namespace.chars().all(allowed) {
                return Err(bad_option("namespace", &namespace, "letters, digits, '.', '_' and '-'"));
            }
            settings.namespace = namespace;
        }
        if let Some((user, password)) = url.user() {
            settings.user = Some((decoded(user), decoded(password)));
        }
        Ok(settings)
    }

    fn with(
        url: &BackendUrl<'_>,
        https: bool,
        time_to_live: Duration,
        longest: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut hosts = url.hosts(PORT)?;
        if hosts.is_empty() {
            hosts.push(("localhost".to_owned(), PORT));
        }
        let scheme = if https { "https" } else { "http" };
        let endpoint = |(host, port): (String, u16)| match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        };
        let api_version = url.option("api_version").unwrap_or_else(|| "v3".to_owned());
        if !api_version.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(bad_option("api_version", &api_version, "the version of etcd's gateway, such as v3 or v3beta"));
        }
        // Long enough for a slow disk, short enough that there is time for another endpoint before the lease ends.
        let timeout = (time_to_live / 4).clamp(Duration::from_millis(500), Duration::from_secs(5));
        Ok(Self {
            endpoints: hosts.into_iter().map(endpoint).collect(),
            api_version,
            user: None,
            time_to_live,
            timeout: longest.map_or(timeout, |longest| timeout.min(longest)),
            namespace: "scoria".to_owned(),
            tls: if https { Some(Tls::read(url)?) } else { None },
        })
    }

    /// An HTTP client with a pool of connections of its own.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let client = Client::builder()
            .no_proxy()
            .connect_timeout(self.timeout / 2)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(60));
        let client = match &self.tls {
            // Not to read the system's certificates for nothing, which also fails where there are none.
            None => client.tls_backend_preconfigured(without_authorities()?),
            Some(Tls { authorities, identity }) => {
                let client = match authorities {
                    Some(authorities) => client.tls_certs_only(authorities.iter().cloned()),
                    None => client,
                };
                match identity {
                    Some(identity) => client.identity(identity.clone()),
                    None => client,
                }
            }
        };
        client.build().map_err(|error| Error::Config(format!("TLS cannot be set up: {}", with_causes(&error))))
    }
}

impl Tls {
    fn read(url: &BackendUrl<'_>) -> Result<Self, Error> {
        let authorities = match url.option("ca_cert") {
            None => None,
            Some(file) => {
                let pem = contents("ca_cert", &file)?;
                let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong("ca_cert", &file, &error))?;
                if found.is_empty() {
                    return Err(wrong("ca_cert", &file, &"no certificate in it"));
                }
                Some(found)
            }
        };
        let identity = match (url.option("cert_cert"), url.option("cert_key")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let mut pem = contents("cert_key", &key)?;
                pem.push(b'\n');
                pem.extend(contents("cert_cert", &certificate)?);
                Some(Identity::from_pem(&pem).map_err(|error| wrong("cert_cert", &certificate, &error))?)
            }
            // etcd3gw ignores one without the other, and etcd then refuses the connection for no visible reason.
            (Some(_), None) => return Err(Error::Config("option cert_cert needs cert_key too".to_owned())),
            (None, Some(_)) => return Err(Error::Config("option cert_key needs cert_cert too".to_owned())),
        };
        Ok(Self { authorities, identity })
    }
}

fn without_authorities() -> Result<ClientConfig, Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(std::sync::Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// tooz reads these with `int()`.
fn whole_seconds(url: &BackendUrl<'_>, key: &str, default: u64) -> Result<Duration, Error> {
    match url.parsed::<u64>(key, WHOLE_SECONDS)?.unwrap_or(default) {
        seconds @ 1..=86_400 => Ok(Duration::from_secs(seconds)),
        seconds => Err(bad_option(key, &seconds.to_string(), WHOLE_SECONDS)),
    }
}

fn contents(option: &str, file: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| wrong(option, file, &error))
}

fn wrong(option: &str, file: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("option {option}={file}: {error}"))
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// An error with what caused it: reqwest's own words say very little.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tooz(url: &str) -> Result<Settings, Error> {
        Settings::as_tooz(&BackendUrl::parse(url).unwrap())
    }

    fn own(url: &str) -> Result<Settings, Error> {
        Settings::as_own(&BackendUrl::parse(url).unwrap())
    }

    #[test]
    fn tooz_urls_mean_what_they_mean_to_tooz() {
        let plain = tooz("etcd3+http://").unwrap();
        assert_eq!(plain.endpoints, ["http://localhost:2379"]);
        assert_eq!((plain.api_version.as_str(), plain.time_to_live), ("v3", Duration::from_secs(30)));
        let timed = tooz("etcd3+http://h:1?timeout=8&api_version=v3beta").unwrap();
        assert_eq!((timed.api_version.as_str(), timed.time_to_live), ("v3beta", Duration::from_secs(8)));
        assert_eq!(tooz("etcd3+https://[::1]?timeout=8&lock_timeout=3").unwrap().time_to_live, Duration::from_secs(3));
        assert_eq!(tooz("etcd3+https://[::1]").unwrap().endpoints, ["https://[::1]:2379"]);
    }

    #[test]
    fn our_own_take_several_hosts_a_user_and_a_namespace() {
        let settings = own("etcd://us%65r:p%40ss@a,b:1,[::1]:2?namespace=rack-1&timeout=4").unwrap();
        assert_eq!(settings.endpoints, ["http://a:2379", "http://b:1", "http://[::1]:2"]);
        assert_eq!(settings.user, Some(("user".to_owned(), "p@ss".to_owned())));
        assert_eq!((settings.namespace.as_str(), settings.time_to_live), ("rack-1", Duration::from_secs(4)));
        assert_eq!(own("etcd://h?tls=yes").unwrap().endpoints, ["https://h:2379"]);
        settings.client().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = |settings: Result<Settings, Error>| settings.unwrap_err().to_string();
        assert!(text(tooz("etcd3+http://a,b")).contains("one host"));
        assert!(text(tooz("etcd3+http://u:secret@a")).contains("knows no user"));
        assert!(!text(tooz("etcd3+http://u:secret@a")).contains("secret"));
        assert!(text(tooz("etcd3+http://a?timeout=1.5")).contains("timeout=1.5: it has to be a whole number"));
        assert!(text(tooz("etcd3+http://a?lock_timeout=0")).contains("lock_timeout=0: it has to be"));
        assert!(text(tooz("etcd3+http://a?api_version=../x")).contains("api_version=../x"));
        assert!(text(own("etcd://a?namespace=a/b")).contains("namespace=a/b"));
        assert!(text(own("etcd://a?cert_cert=/x")).contains("cert_cert needs cert_key"));
        assert!(text(tooz("etcd3+https://a?ca_cert=/nonexistent")).contains("ca_cert=/nonexistent: No such file"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(text(own(&format!("etcd://a?ca_cert={}", empty.path().display()))).contains("no certificate in it"));
    }
}
