//! `backend_url`, read as tooz reads it (`oslo_utils.netutils.urlsplit` and `urllib.parse.parse_qs`).

use std::str::FromStr;
use std::time::Duration;

use crate::Error;

/// The parts of a URL that lock services go by. Host and path are not decoded or normalised: tooz takes them as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendUrl<'a> {
    /// In lower case.
    pub(crate) scheme: String,
    /// Between `//` and the path.
    pub(crate) authority: &'a str,
    /// Up to the query.
    pub(crate) path: &'a str,
    query: &'a str,
    /// There is an `@` behind the authority: perhaps a password with a character that ends the authority.
    at_sign_behind: bool,
}

impl<'a> BackendUrl<'a> {
    /// Takes a URL apart.
    pub(crate) fn parse(url: &'a str) -> Result<Self, Error> {
        let trimmed = url.trim();
        let (scheme, rest) = trimmed.split_once(':').ok_or_else(|| {
            Error::Config(format!(
                "'{}' has no scheme; write for example file:///var/lib/cinder",
                without_secrets(trimmed)
            ))
        })?;
        let valid = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(valid) {
            return Err(Error::Config(format!("'{}' is no scheme", without_secrets(scheme))));
        }
        let all = rest;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let at_sign_behind = all.strip_prefix("//").is_some_and(|all| all[authority.len()..].contains('@'));
        Ok(Self { scheme: scheme.to_ascii_lowercase(), authority, path, query, at_sign_behind })
    }

    /// `user:password` before the last `@`, as it stands: no driver of tooz decodes it.
    pub(crate) fn user(&self) -> Option<(&'a str, &'a str)> {
        let (user, _) = self.authority.rsplit_once('@')?;
        Some(user.split_once(':').unwrap_or((user, "")))
    }

    /// The hosts after the `@`, each with its port or the default one.
    pub(crate) fn hosts(&self, default_port: u16) -> Result<Vec<(String, u16)>, Error> {
        let hosts = self.authority.rsplit_once('@').map_or(self.authority, |(_, hosts)| hosts);
        let hosts = hosts.split(',').filter(|host| !host.is_empty());
        hosts.map(|host| host_and_port(host, default_port).map_err(|error| self.without_password(error))).collect()
    }

    /// What was taken for a host and its port may be a user and the beginning of a password, which is not to be shown.
    fn without_password(&self, error: Error) -> Error {
        if !self.at_sign_behind {
            return error;
        }
        Error::Config(
            "host and port cannot be read. A user or password before the '@' cannot contain '/', '?' or '#', which end that part \
             of the URL, for Python services too; a password may contain '@' and ':'"
                .to_owned(),
        )
    }

    /// All values of an option in order, decoded; blank ones do not count.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (decoded(name), decoded(value)));
        pairs.filter(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value).collect()
    }

    /// The last value of an option.
    pub(crate) fn option(&self, key: &str) -> Option<String> {
        self.values(key).pop()
    }

    /// An option of another type than text; `allowed` says what it may be.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str, allowed: &str) -> Result<Option<T>, Error> {
        let parse = |value: String| value.parse().map_err(|_| bad_option(key, &value, allowed));
        self.option(key).map(parse).transpose()
    }

    /// An option that is a time in seconds, above 0 and at most a day.
    pub(crate) fn seconds(&self, key: &str, default: Duration) -> Result<Duration, Error> {
        const ALLOWED: &str = "a number of seconds above 0, at most 86400";
        match self.parsed::<f64>(key, ALLOWED)? {
            None => Ok(default),
            Some(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
            Some(seconds) => Err(bad_option(key, &seconds.to_string(), ALLOWED)),
        }
    }

    /// An option that is yes or no (`oslo_utils.strutils.bool_from_string`, strictly).
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.option(key) else { return Ok(default) };
        match value.trim().to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
            _ => Err(bad_option(key, &value, "true or false")),
        }
    }

    /// Warns of options that are none of `known`: tooz ignores them, and so must we.
    pub(crate) fn warn_of_unknown(&self, known: &[&str]) {
        for (name, _) in self.query.split('&').filter_map(|pair| pair.split_once('=')) {
            let name = decoded(name);
            if !known.contains(&name.as_str()) {
                let (scheme, known) = (&self.scheme, known.join(", "));
                tracing::warn!(
                    "[coordination] backend_url: {scheme}:// has no option '{name}', it is ignored; known are {known}"
                );
            }
        }
    }
}

/// An option with a value that it cannot have.
pub(crate) fn bad_option(key: &str, value: &str, allowed: &str) -> Error {
    let value = if key.contains("password") { "***" } else { value };
    Error::Config(format!("option {key}={value}: it has to be {allowed}"))
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
pub(crate) fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), Error> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => default_port,
        Some(port) => {
            let parsed = port.parse().ok().filter(|port| *port != 0);
            parsed
                .ok_or_else(|| Error::Config(format!("'{text}': port '{port}' has to be a number from 1 to 65535")))?
        }
    };
    if host.is_empty() {
        return Err(Error::Config(format!("'{text}' names no host")));
    }
    Ok((host.to_owned(), port))
}

/// As in a query: `+` is a blank.
fn decoded(text: &str) -> String {
    let blanks = text.replace('+', " ");
    percent_encoding::percent_decode_str(&blanks).decode_utf8_lossy().into_owned()
}

/// What stands before an `@` may be a password.
fn without_secrets(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, after)| format!("***@{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart_as_in_tooz() {
        for (url, scheme, authority, path) in [
            ("file:///var/lib/cinder", "file", "", "/var/lib/cinder"),
            ("file://var/lib/cinder", "file", "var", "/lib/cinder"),
            ("FILE:///a%20b?timeout=5#x", "file", "", "/a%20b"),
            ("file:/one/slash", "file", "", "/one/slash"),
            ("memory://", "memory", "", ""),
            ("etcd3+http://h:2379", "etcd3+http", "h:2379", ""),
        ] {
            let parsed = BackendUrl::parse(url).unwrap();
            assert_eq!((parsed.scheme.as_str(), parsed.authority, parsed.path), (scheme, authority, path), "{url}");
        }
    }

    #[test]
    fn the_last_value_of_an_option_counts() {
        let url = BackendUrl::parse("file:///x?timeout=5&a=&timeout=7&timeout=").unwrap();
        assert_eq!(url.option("timeout").as_deref(), Some("7"));
        assert_eq!(url.option("a"), None);
        let url = BackendUrl::parse("redis://h?sentinel_fallback=a%3A1&sentinel_fallback=b:2+").unwrap();
        assert_eq!(url.values("sentinel_fallback"), ["a:1", "b:2 "]);
    }

    #[test]
    fn hosts_and_users() {
        let url = BackendUrl::parse("zookeeper://u:p@s@h1,[::1]:2182,h3:7/x").unwrap();
        assert_eq!(url.user(), Some(("u", "p@s")));
        let hosts = [("h1", 2181), ("::1", 2182), ("h3", 7)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(url.hosts(2181).unwrap(), hosts);
        assert_eq!(BackendUrl::parse("redis:///run/redis.sock").unwrap().hosts(6379).unwrap(), []);
        for bad in ["redis://h:0", "redis://h:x", "redis://:6379", "redis://u:p@h:70000"] {
            let error = BackendUrl::parse(bad).unwrap().hosts(1).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    /// What `oslo_utils.netutils.urlsplit` gives for `username` and `password`, of which tooz' drivers decode nothing.
    #[test]
    fn users_and_passwords_are_toozs() {
        for (url, user) in [
            ("mysql://u:p@ss@h/d", Some(("u", "p@ss"))),
            ("mysql://u:p:q@h/d", Some(("u", "p:q"))),
            ("postgresql://u:p%40%2Fx@h/d", Some(("u", "p%40%2Fx"))),
            ("postgresql://u:p+%20q@h/d", Some(("u", "p+%20q"))),
            ("redis://:pw@h", Some(("", "pw"))),
            ("redis://u@h", Some(("u", ""))),
            ("zookeeper://h", None),
            ("mysql://u:a/b@h/d", None),
            ("mysql://u:a?b@h/d", None),
            ("mysql://u:a#b@h/d", None),
        ] {
            assert_eq!(BackendUrl::parse(url).unwrap().user(), user, "{url}");
        }
    }

    #[test]
    fn a_password_that_ends_too_early_is_explained_and_not_shown() {
        for url in ["mysql://u:hush/x@h/d", "mysql://u:hush?x@h/d", "mysql://u:hush#x@h/d", "mysql://u:a@hush:x/b@h/d"]
        {
            let error = BackendUrl::parse(url).unwrap().hosts(1).unwrap_err().to_string();
            assert!(error.contains("cannot contain '/', '?' or '#'") && !error.contains("hush"), "{url}: {error}");
        }
        let error = BackendUrl::parse("mysql://u:p@h:x/d").unwrap().hosts(1).unwrap_err().to_string();
        assert!(error.contains("port 'x'"), "{error}");
        assert_eq!(BackendUrl::parse("mysql://u:p@h/d").unwrap().hosts(1).unwrap(), [("h".to_owned(), 1)]);
    }

    #[test]
    fn options_of_a_wrong_type_are_named_with_what_is_allowed() {
        let url = BackendUrl::parse("redis://h?timeout=0&ssl=perhaps&db=x&ok=2.5&on=True").unwrap();
        let text = |error: Error| error.to_string();
        assert_eq!(url.seconds("ok", Duration::ZERO).unwrap(), Duration::from_millis(2500));
        assert!(url.flag("on", false).unwrap());
        assert!(text(url.seconds("timeout", Duration::ZERO).unwrap_err()).contains("timeout=0: it has to be a number"));
        assert!(text(url.flag("ssl", false).unwrap_err()).contains("ssl=perhaps: it has to be true or false"));
        assert!(
            text(url.parsed::<u32>("db", "a whole number").unwrap_err()).contains("db=x: it has to be a whole number")
        );
    }

    #[test]
    fn nonsense_is_refused_without_showing_passwords() {
        let error = BackendUrl::parse("u/secret@host").unwrap_err().to_string();
        assert!(error.contains("has no scheme") && !error.contains("secret"), "{error}");
        assert!(BackendUrl::parse("/var/lib:x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = BackendUrl::parse(&text);
        }
    }
}
