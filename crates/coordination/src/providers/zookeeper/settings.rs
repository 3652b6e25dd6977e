//! The options of the URL (`tooz/drivers/zookeeper.py: KazooDriver._make_client`).

use std::time::Duration;

use base64::Engine;
use sha1::{Digest, Sha1};
use zookeeper_client::{Acl, AuthId, Permission, TlsOptions};

use super::tls;
use crate::Error;
use crate::url::{BackendUrl, bad_option, host_and_port};

const DEFAULT_PORT: u16 = 2181;
/// As in tooz.
const TIMEOUT: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "tooz";
const REMOVE_IDLE_AFTER: Duration = Duration::from_secs(600);

/// Those of kazoo's that mean nothing here are known, so that nobody is warned of them.
const KNOWN: [&str; 14] = [
    "hosts",
    "timeout",
    "namespace",
    "randomize_hosts",
    "use_ssl",
    "verify_certs",
    "ca",
    "certfile",
    "keyfile",
    "keyfile_password",
    "remove_idle_after",
    "handler",
    "connection_retry",
    "command_retry",
];

/// Where the servers are and how to talk to them.
#[derive(Debug)]
pub(super) struct Settings {
    /// `host:port`, in the order to try them.
    pub(super) hosts: Vec<String>,
    /// The session timeout to ask for.
    pub(super) timeout: Duration,
    /// The node that holds the locks: `/<namespace>/locks`, below the chroot if there is one.
    pub(super) locks: String,
    /// `user:password`.
    pub(super) auth: Option<Secret>,
    /// Of every node that we make.
    pub(super) acl: [Acl; 1],
    pub(super) tls: Option<TlsOptions>,
    /// How long a lock has to be unused before its parent node is removed.
    pub(super) remove_idle_after: Duration,
}

/// Not shown.
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Settings {
    pub(super) fn read(url: &BackendUrl<'_>) -> Result<Self, Error> {
        url.warn_of_unknown(&KNOWN);
        let (mut hosts, chroot) = hosts(url)?;
        if url.flag("randomize_hosts", true)? {
            hosts.sort_by_cached_key(|_| uuid::Uuid::new_v4());
        }
        let namespace = url.option("namespace").unwrap_or_else(|| NAMESPACE.to_owned());
        let locks = format!("{chroot}/{}/locks", namespace.trim_matches('/'));
        if locks.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(bad_option("namespace", &namespace, "the name of a node, like 'tooz'"));
        }
        let auth = url.user().filter(|(user, password)| !user.is_empty() && !password.is_empty());
        let auth = auth.map(|(user, password)| (user, format!("{user}:{password}")));
        let everyone = AuthId::new("world", "anyone");
        let acl = auth.as_ref().map_or(everyone, |(user, auth)| AuthId::new("digest", &digest(user, auth)));
        Ok(Self {
            hosts,
            timeout: url.seconds("timeout", TIMEOUT)?,
            locks,
            auth: auth.map(|(_, auth)| Secret(auth)),
            acl: [Acl::new(Permission::ALL, acl)],
            tls: tls::read(url)?,
            remove_idle_after: url.seconds("remove_idle_after", REMOVE_IDLE_AFTER)?,
        })
    }
}

/// The hosts before the path and in `hosts`; the end of the last one may be a chroot, the path of the URL is ignored as in tooz.
fn hosts(url: &BackendUrl<'_>) -> Result<(Vec<String>, String), Error> {
    let more = url.values("hosts").join(",");
    let (more, chroot) = more.split_once('/').map_or((more.as_str(), String::new()), |(more, rest)| {
        (more, format!("/{rest}").trim_end_matches('/').to_owned())
    });
    let mut hosts = url.hosts(DEFAULT_PORT)?;
    for host in more.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        hosts.push(host_and_port(host, DEFAULT_PORT)?);
    }
    if hosts.is_empty() {
        hosts.push(("localhost".to_owned(), DEFAULT_PORT));
    }
    let written = |(host, port): (String, u16)| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    Ok((hosts.into_iter().map(written).collect(), chroot))
}

/// How ZooKeeper writes a user and his password in an ACL.
fn digest(user: &str, auth: &str) -> String {
    let sum = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(auth));
    format!("{user}:{sum}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings, Error> {
        Settings::read(&BackendUrl::parse(url).unwrap())
    }

    #[test]
    fn defaults_are_toozs() {
        let settings = read("zookeeper://").unwrap();
        assert_eq!((settings.hosts, settings.timeout), (vec!["localhost:2181".to_owned()], TIMEOUT));
        assert_eq!((settings.locks.as_str(), settings.acl[0].scheme()), ("/tooz/locks", "world"));
        assert!(settings.auth.is_none() && settings.tls.is_none());
    }

    #[test]
    fn hosts_come_from_both_places() {
        let url = "kazoo://u:p@h1,[::1]:7/ignored?hosts=h2:8&hosts=h3/root/&randomize_hosts=no&namespace=x&timeout=4";
        let settings = read(url).unwrap();
        assert_eq!(settings.hosts, ["h1:2181", "[::1]:7", "h2:8", "h3:2181"]);
        assert_eq!((settings.locks.as_str(), settings.timeout.as_secs()), ("/root/x/locks", 4));
        // What `kazoo.security.make_digest_acl("u", "p", all=True)` makes.
        assert_eq!((settings.acl[0].scheme(), settings.acl[0].id()), ("digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="));
        let shown = format!("{:?}", settings.auth);
        assert!(!shown.contains("u:p"), "{shown}");
    }

    #[test]
    fn bad_options_are_named() {
        for (url, text) in [
            ("zookeeper://h:x", "port 'x'"),
            ("zookeeper://h?hosts=a:0", "port '0'"),
            ("zookeeper://h?timeout=-1", "timeout=-1"),
            ("zookeeper://h?namespace=a//b", "namespace=a//b"),
            ("zookeeper://h?namespace=..", "namespace=.."),
            ("zookeeper://h?use_ssl=perhaps", "use_ssl=perhaps"),
            ("zookeeper://h?use_ssl=1&ca=/no/such/file", "ca=/no/such/file"),
            ("zookeeper://h?use_ssl=1&certfile=/no/such/file&keyfile=/x", "certfile=/no/such/file"),
            ("zookeeper://h?use_ssl=1&certfile=/no/such/file", "keyfile"),
            ("zookeeper://h?use_ssl=1&verify_certs=0", "verify_certs"),
        ] {
            let error = read(url).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
