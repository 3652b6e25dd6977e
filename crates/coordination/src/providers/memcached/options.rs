//! The options of a `memcached://` URL (`tooz/drivers/memcached.py: MemcachedDriver`).

use std::time::Duration;

use super::tls::{self, Tls};
use crate::url::{BackendUrl, bad_option};
use crate::{Error, Options};

/// tooz' own, and what it has for groups, which we do not use.
const KNOWN: &[&str] = &[
    "timeout",
    "lock_timeout",
    "membership_timeout",
    "leader_timeout",
    "max_pool_size",
    "use_ssl",
    "ca_cert",
    "ssl_cert",
    "ssl_key",
    "ssl_key_password",
    "ssl_ciphers",
    "ssl_check_hostname",
];

/// tooz' default of all timeouts, in seconds.
const DEFAULT_TIMEOUT: u32 = 30;

/// A second is lost to memcached's clock and one to not knowing it well; then there has to be time for two tries at extending.
const SHORTEST_LOCK: u32 = 5;

/// Longer ones are dates to memcached.
const LONGEST: u32 = 30 * 86_400;

/// A server that takes longer for an answer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the URL says.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    /// How long a record lives without being extended, in seconds.
    pub(super) lock_timeout: u32,
    /// How long connecting or an answer may take.
    pub(super) patience: Duration,
    /// How often the server is asked whether it is there.
    pub(super) pulse: Duration,
    pub(super) tls: Option<Tls>,
}

impl Settings {
    pub(super) fn read(url: &BackendUrl<'_>, options: &Options) -> Result<Self, Error> {
        url.warn_of_unknown(KNOWN);
        if url.user().is_some() {
            tracing::warn!(
                "[coordination] backend_url: memcached:// has no user and password in tooz, they are ignored"
            );
        }
        let mut hosts = url.hosts(11211)?;
        let (host, port) = match hosts.len() {
            0 => ("localhost".to_owned(), 11211),
            1 => hosts.remove(0),
            several => {
                return Err(Error::Config(format!(
                    "memcached:// names {several} servers: locks need exactly one, on which all services agree"
                )));
            }
        };
        let timeout = seconds(url, "timeout", DEFAULT_TIMEOUT, 1)?;
        let lock_timeout = seconds(url, "lock_timeout", timeout, SHORTEST_LOCK)?;
        let third = Duration::from_secs(lock_timeout.into()) / 3;
        Ok(Self {
            tls: tls::read(url, &host)?,
            host,
            port,
            lock_timeout,
            patience: PATIENCE.min(third).min(Duration::from_secs(timeout.into())),
            pulse: options.heartbeat.min(third / 3),
        })
    }
}

fn seconds(url: &BackendUrl<'_>, key: &str, default: u32, shortest: u32) -> Result<u32, Error> {
    let allowed = format!("a whole number of seconds from {shortest} to {LONGEST}");
    let value = url.parsed(key, &allowed)?.unwrap_or(default);
    if (shortest..=LONGEST).contains(&value) { Ok(value) } else { Err(bad_option(key, &value.to_string(), &allowed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings, Error> {
        Settings::read(&BackendUrl::parse(url).unwrap(), &Options::default())
    }

    #[test]
    fn they_are_read_as_tooz_reads_them() {
        let settings = read("memcached://").unwrap();
        assert_eq!((settings.host.as_str(), settings.port, settings.lock_timeout), ("localhost", 11211, 30));
        assert_eq!((settings.patience, settings.pulse), (PATIENCE, Duration::from_secs(1)));
        let settings = read("memcached://[::1]:7/x?timeout=9&leader_timeout=4&max_pool_size=2").unwrap();
        assert_eq!((settings.host.as_str(), settings.port, settings.lock_timeout), ("::1", 7, 9));
        assert_eq!(read("memcached://h?timeout=9&lock_timeout=6").unwrap().lock_timeout, 6);
        assert_eq!(read("memcached://h?timeout=1&lock_timeout=60").unwrap().patience, Duration::from_secs(1));
    }

    #[test]
    fn wrong_ones_are_refused_with_what_is_allowed() {
        for (bad, says) in [
            (
                "memcached://h?lock_timeout=0",
                "lock_timeout=0: it has to be a whole number of seconds from 5 to 2592000",
            ),
            ("memcached://h?timeout=4", "lock_timeout=4: it has to be"),
            ("memcached://h?timeout=2.5", "timeout=2.5: it has to be"),
            ("memcached://h?lock_timeout=2592001", "to 2592000"),
            ("memcached://a,b", "names 2 servers"),
            ("memcached://h:0", "port '0'"),
            ("memcached://h?use_ssl=perhaps", "use_ssl=perhaps: it has to be true or false"),
            ("memcached://h?use_ssl=true&ca_cert=/nonexistent.pem", "ca_cert /nonexistent.pem"),
            ("memcached://h?use_ssl=1&ssl_cert=/c.pem", "ssl_key"),
            ("memcached://h?use_ssl=1&ssl_cert=/c.pem&ssl_key=/k.pem&ssl_key_password=hush", "without a password"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
