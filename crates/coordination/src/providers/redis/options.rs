//! What a `redis://` URL says: tooz' own options and defaults (`tooz/drivers/redis.py: RedisDriver`).

use std::path::PathBuf;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates,
};

use crate::Error;
use crate::url::{BackendUrl, bad_option, host_and_port};

const PORT: u16 = 6379;
const SENTINEL_PORT: &str = "a sentinel needs its port, for example redis://host:26379?sentinel=name";

/// Everything tooz knows, with what has no meaning here.
const KNOWN: &[&str] = &[
    "db",
    "encoding",
    "executor",
    "health_check_interval",
    "lock_timeout",
    "membership_timeout",
    "namespace",
    "retry_on_timeout",
    "sentinel",
    "sentinel_fallback",
    "sentinel_password",
    "sentinel_ssl",
    "sentinel_username",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "ssl",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "timeout",
];

/// How to reach servers and how long locks live.
#[derive(Debug, Clone)]
pub(super) struct RedisOptions {
    pub(super) namespace: String,
    /// How long a lock lives without being extended.
    pub(super) lock_timeout: Duration,
    /// How long to wait for an answer.
    pub(super) answer: Duration,
    /// How long to wait for a connection.
    pub(super) connect: Duration,
    /// The server, or the sentinels that know it.
    pub(super) servers: Servers,
    login: Login,
    sentinel_login: Login,
    tls: Option<TlsFiles>,
    sentinel_tls: Option<TlsFiles>,
    db: i64,
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Servers {
    One(Address),
    Sentinels { master: String, sentinels: Vec<(String, u16)> },
}

/// Where one server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Clone, Default)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Certificate files; read anew for each connection, so that they can be renewed.
#[derive(Debug, Clone)]
struct TlsFiles {
    ca: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl RedisOptions {
    pub(super) fn read(url: &BackendUrl<'_>) -> Result<Self, Error> {
        url.warn_of_unknown(KNOWN);
        let timeout = whole_seconds(url, "timeout")?.unwrap_or(Duration::from_secs(30));
        let lock_timeout = whole_seconds(url, "lock_timeout")?.unwrap_or(timeout);
        let silence = url.seconds("socket_timeout", timeout)?;
        // By then there has to be time for a further try before the locks are lost.
        let answer = silence.min(lock_timeout / 4).min(Duration::from_secs(5));
        let connect = url.seconds("socket_connect_timeout", silence)?.min(Duration::from_secs(5));
        let optional = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let login = url.user().map_or_else(Login::default, |(user, password)| Login {
            user: optional(user),
            password: optional(password),
        });
        let sentinel_login = Login { user: url.option("sentinel_username"), password: url.option("sentinel_password") };
        let tls = TlsFiles::read(url)?;
        let db = url.parsed::<u32>("db", "a whole number, 0 or more")?.unwrap_or(0);
        Ok(Self {
            namespace: url.option("namespace").unwrap_or_else(|| "_tooz".to_owned()),
            lock_timeout,
            answer,
            connect,
            servers: servers(url)?,
            login,
            sentinel_login,
            tls: url.flag("ssl", false)?.then(|| tls.clone()),
            sentinel_tls: url.flag("sentinel_ssl", false)?.then_some(tls),
            db: db.into(),
        })
    }

    /// A client of a server that keeps locks.
    pub(super) fn client(&self, server: &Address, protocol: ProtocolVersion) -> Result<Client, Error> {
        client(server, &self.login, self.tls.as_ref(), self.db, protocol)
    }

    /// A client of a sentinel.
    pub(super) fn sentinel_client(&self, host: &str, port: u16) -> Result<Client, Error> {
        let server = Address::Tcp(host.to_owned(), port);
        client(&server, &self.sentinel_login, self.sentinel_tls.as_ref(), 0, ProtocolVersion::RESP2)
    }
}

fn client(
    server: &Address,
    login: &Login,
    tls: Option<&TlsFiles>,
    db: i64,
    protocol: ProtocolVersion,
) -> Result<Client, Error> {
    let address = match (server, tls) {
        (Address::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (Address::Tcp(host, port), None) => ConnectionAddr::Tcp(host.clone(), *port),
        (Address::Tcp(host, port), Some(_)) => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
    };
    let encrypted = matches!(address, ConnectionAddr::TcpTls { .. });
    let mut settings = RedisConnectionInfo::default().set_db(db).set_protocol(protocol).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password);
    }
    let unusable = |error: redis::RedisError| Error::Unavailable(format!("{server}: {error}"));
    let info = address.into_connection_info().map_err(unusable)?.set_redis_settings(settings);
    match tls.filter(|_| encrypted) {
        Some(files) => Client::build_with_tls(info, files.certificates()?).map_err(unusable),
        None => Client::open(info).map_err(unusable),
    }
}

fn servers(url: &BackendUrl<'_>) -> Result<Servers, Error> {
    let Some(master) = url.option("sentinel") else {
        return Ok(Servers::One(match (url.hosts(PORT)?.as_slice(), url.path) {
            ([(host, port)], _) => Address::Tcp(host.clone(), *port),
            ([], path) if path.starts_with('/') && path.len() > 1 => Address::Unix(path.into()),
            ([], _) => {
                let remedy = "redis:// needs a host or the path of a socket, for example redis://host:6379 or redis:///run/redis.sock";
                return Err(Error::Config(remedy.to_owned()));
            }
            _ => {
                let remedy = "redis:// takes one server; several belong to a sentinel= and sentinel_fallback=";
                return Err(Error::Config(remedy.to_owned()));
            }
        }));
    };
    // tooz fails on a sentinel without a port.
    let first = url.hosts(PORT)?;
    let authority = url.authority.rsplit_once('@').map_or(url.authority, |(_, hosts)| hosts);
    if first.len() != 1 || !has_port(authority) {
        return Err(Error::Config(SENTINEL_PORT.to_owned()));
    }
    let mut sentinels = first;
    for fallback in url.values("sentinel_fallback") {
        if !has_port(&fallback) {
            return Err(bad_option("sentinel_fallback", &fallback, "host:port"));
        }
        sentinels.push(host_and_port(&fallback, PORT)?);
    }
    Ok(Servers::Sentinels { master, sentinels })
}

/// Whether a host is written with its port; an IPv6 address stands in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':')
}

/// tooz takes whole seconds, and redis-py takes 0 for "for ever".
fn whole_seconds(url: &BackendUrl<'_>, key: &str) -> Result<Option<Duration>, Error> {
    const ALLOWED: &str = "a whole number of seconds from 1 to 86400";
    match url.parsed::<u32>(key, ALLOWED)? {
        None => Ok(None),
        Some(0) => {
            let reason =
                format!("{ALLOWED}: redis-py takes 0 for no end, and the lock of a dead holder would stay for ever");
            Err(bad_option(key, "0", &reason))
        }
        Some(seconds @ 1..=86_400) => Ok(Some(Duration::from_secs(seconds.into()))),
        Some(seconds) => Err(bad_option(key, &seconds.to_string(), ALLOWED)),
    }
}

impl TlsFiles {
    fn read(url: &BackendUrl<'_>) -> Result<Self, Error> {
        let file = |key: &str| {
            let path = url.option(key).map(PathBuf::from);
            match path.as_ref().map(std::fs::File::open) {
                Some(Err(error)) => {
                    let path = path.unwrap_or_default();
                    Err(bad_option(key, &path.display().to_string(), &format!("a file that can be read: {error}")))
                }
                _ => Ok(path),
            }
        };
        let client = match (file("ssl_certfile")?, file("ssl_keyfile")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            // One file may have both.
            (Some(both), None) => Some((both.clone(), both)),
            (None, Some(key)) => {
                return Err(bad_option("ssl_keyfile", &key.display().to_string(), "accompanied by ssl_certfile"));
            }
            (None, None) => None,
        };
        Ok(Self { ca: file("ssl_ca_certs")?, client })
    }

    fn certificates(&self) -> Result<TlsCertificates, Error> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| Error::Unavailable(format!("{}: {error}", path.display())))
        };
        let client_tls = match &self.client {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert: self.ca.as_ref().map(read).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<RedisOptions, Error> {
        RedisOptions::read(&BackendUrl::parse(url).unwrap())
    }

    #[test]
    fn urls_are_read_as_tooz_reads_them() {
        let plain = read("redis://u:p@h").unwrap();
        assert_eq!(plain.servers, Servers::One(Address::Tcp("h".into(), 6379)));
        assert_eq!((plain.namespace.as_str(), plain.lock_timeout, plain.db), ("_tooz", Duration::from_secs(30), 0));
        let socket = read("redis://:pw@/run/redis.sock?db=3&timeout=20&lock_timeout=7&namespace=ns").unwrap();
        assert_eq!(socket.servers, Servers::One(Address::Unix("/run/redis.sock".into())));
        assert_eq!((socket.namespace.as_str(), socket.lock_timeout, socket.db), ("ns", Duration::from_secs(7), 3));
        assert_eq!(socket.login.user, None);
        assert_eq!(socket.login.password.as_deref(), Some("pw"));
        let sentinel = read("redis://h:1?sentinel=m&sentinel_fallback=g:2&sentinel_fallback=[::1]:3").unwrap();
        let sentinels = [("h", 1), ("g", 2), ("::1", 3)].map(|(host, port)| (host.to_owned(), port)).to_vec();
        assert_eq!(sentinel.servers, Servers::Sentinels { master: "m".into(), sentinels });
    }

    #[test]
    fn what_cannot_be_is_named_with_what_is_allowed() {
        for (url, expected) in [
            ("redis://", "needs a host or the path of a socket"),
            ("redis://a,b", "takes one server"),
            (
                "redis://h?lock_timeout=0",
                "lock_timeout=0: it has to be a whole number of seconds from 1 to 86400: redis-py",
            ),
            ("redis://h?timeout=2.5", "timeout=2.5"),
            ("redis://h?db=x", "db=x"),
            ("redis://h?sentinel=m", "a sentinel needs its port"),
            ("redis://h:1?sentinel=m&sentinel_fallback=g", "sentinel_fallback=g: it has to be host:port"),
            ("redis://h?ssl=perhaps", "ssl=perhaps"),
            ("redis://h?ssl=1&ssl_ca_certs=/no/such/file", "ssl_ca_certs=/no/such/file: it has to be a file"),
            ("redis://h?ssl_keyfile=/dev/null", "accompanied by ssl_certfile"),
        ] {
            let error = read(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
        let text = format!("{:?}", read("redis://user:secret@h:1?sentinel=m&sentinel_password=hidden").unwrap());
        assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
    }
}
