//! What the URL says.

use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::endpoints::said;
use crate::Error;
use crate::url::{BackendUrl, bad_option};

const PORT: u16 = 2379;
const WHOLE_SECONDS: &str = "a whole number of seconds from 1 to 86400";

/// How to reach etcd, and for how long its leases live.
#[derive(Debug)]
pub(super) struct Settings {
    /// `http://host:port`, to be tried in this order.
    pub(super) endpoints: Vec<String>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    /// How long our lease lives after each beat, in whole seconds; etcd may choose longer.
    pub(super) time_to_live: Duration,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    /// First part of the keys of our own format.
    pub(super) namespace: String,
    /// The same endpoints, with all that it takes to connect.
    targets: Vec<Endpoint>,
}

impl Settings {
    /// `etcd3+http://` and `etcd3+https://` (`tooz/drivers/etcd3gw.py: Etcd3Driver`).
    pub(super) fn as_tooz(url: &BackendUrl<'_>) -> Result<Self, Error> {
        // `api_version` is that of the gateway, which only Python uses.
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
        const KNOWN: &[&str] = &["ca_cert", "cert_key", "cert_cert", "timeout", "namespace", "tls"];
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
        let endpoint = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        };
        let endpoints: Vec<_> = hosts.iter().map(endpoint).collect();
        // Long enough for a slow disk, short enough that there is time for another endpoint before the lease ends.
        let timeout = (time_to_live / 4).clamp(Duration::from_millis(500), Duration::from_secs(5));
        let timeout = longest.map_or(timeout, |longest| timeout.min(longest));
        let tls = if https { Some(tls(url)?) } else { None };
        let mut targets = Vec::new();
        for (endpoint, (host, _)) in endpoints.iter().zip(hosts) {
            let wrong = |error: tonic::transport::Error| {
                Error::Config(format!("{endpoint}: {}", said(&error.to_string(), &error)))
            };
            let target = Endpoint::from_shared(endpoint.clone()).map_err(wrong)?;
            let target =
                target.connect_timeout(timeout / 2).tcp_nodelay(true).tcp_keepalive(Some(Duration::from_secs(5)));
            targets.push(match &tls {
                Some(tls) => target.tls_config(tls.clone().domain_name(host)).map_err(wrong)?,
                None => target,
            });
        }
        Ok(Self { endpoints, user: None, time_to_live, timeout, namespace: "scoria".to_owned(), targets })
    }

    /// A connection to an endpoint, driven by `executor` and opened by the first request.
    pub(super) fn channel(&self, index: usize, executor: &Handle) -> Channel {
        let _there = executor.enter();
        self.targets[index].connect_lazy()
    }
}

/// The files that the options name, read.
fn tls(url: &BackendUrl<'_>) -> Result<ClientTlsConfig, Error> {
    let tls = match url.option("ca_cert") {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates("ca_cert", &file)?)),
    };
    match (url.option("cert_cert"), url.option("cert_key")) {
        (None, None) => Ok(tls),
        (Some(certificate), Some(key)) => {
            let chain = certificates("cert_cert", &certificate)?;
            let pem = contents("cert_key", &key)?;
            PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong("cert_key", &key, &error))?;
            Ok(tls.identity(Identity::from_pem(chain, pem)))
        }
        // etcd3gw ignores one without the other, and etcd then refuses the connection for no visible reason.
        (Some(_), None) => Err(Error::Config("option cert_cert needs cert_key too".to_owned())),
        (None, Some(_)) => Err(Error::Config("option cert_key needs cert_cert too".to_owned())),
    }
}

/// A file with certificates, in PEM format.
fn certificates(option: &str, file: &str) -> Result<Vec<u8>, Error> {
    let pem = contents(option, file)?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificate.map_err(|error| wrong(option, file, &error))?;
        found += 1;
    }
    if found == 0 {
        return Err(wrong(option, file, &"no certificate in it"));
    }
    Ok(pem)
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
        assert_eq!(plain.time_to_live, Duration::from_secs(30));
        assert_eq!(tooz("etcd3+http://h:1?timeout=8&api_version=v3beta").unwrap().time_to_live, Duration::from_secs(8));
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
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = |settings: Result<Settings, Error>| settings.unwrap_err().to_string();
        assert!(text(tooz("etcd3+http://a,b")).contains("one host"));
        assert!(text(tooz("etcd3+http://u:secret@a")).contains("knows no user"));
        assert!(!text(tooz("etcd3+http://u:secret@a")).contains("secret"));
        assert!(text(tooz("etcd3+http://a?timeout=1.5")).contains("timeout=1.5: it has to be a whole number"));
        assert!(text(tooz("etcd3+http://a?lock_timeout=0")).contains("lock_timeout=0: it has to be"));
        assert!(text(own("etcd://a?namespace=a/b")).contains("namespace=a/b"));
        assert!(text(own("etcd://a?cert_cert=/x")).contains("cert_cert needs cert_key"));
        assert!(text(tooz("etcd3+https://a?ca_cert=/nonexistent")).contains("ca_cert=/nonexistent: No such file"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(text(own(&format!("etcd://a?ca_cert={}", empty.path().display()))).contains("no certificate in it"));
    }
}
