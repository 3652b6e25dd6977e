//! SQLAlchemy connection URLs (`sqlalchemy/engine/url.py`), as they stand in `[database] connection`.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::{Dialect, Error, Result};

/// The parts of a connection URL. Its debug form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ConnectionUrl {
    pub(crate) dialect: Dialect,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    /// Database name, or a path for SQLite; `None` is SQLite in memory.
    pub(crate) database: Option<String>,
    pub(crate) query: BTreeMap<String, String>,
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionUrl")
            .field("dialect", &self.dialect)
            .field("username", &self.username)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn wrong(reason: impl fmt::Display) -> Error {
    Error::Config(format!(
        "[database] connection: {reason}; expected for example mysql+pymysql://USER:PASSWORD@HOST/cinder, \
         postgresql://USER:PASSWORD@HOST/cinder or sqlite:////var/lib/cinder/cinder.sqlite"
    ))
}

impl ConnectionUrl {
    /// Reads a URL. As in SQLAlchemy, user and password are what stands before the first `@`, percent-decoded; the driver after `+`
    /// is ignored.
    ///
    /// # Errors
    /// `Config`, without the URL in it: it contains the password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("this is not a URL"))?;
        let dialect = match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => Dialect::Sqlite,
            "mysql" | "mariadb" => Dialect::MySql,
            "postgresql" | "postgres" => Dialect::Postgres,
            other => return Err(wrong(format_args!("the database '{other}' is not supported"))),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may contain a slash, so the account is cut off before the path is looked for.
        let (account, rest) = match rest.split_once('@') {
            Some(parts) if !rest.starts_with('/') => parts,
            _ => ("", rest),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (username, password) = match account.split_once(':') {
            Some((username, password)) => (username, Some(decode(password))),
            None => (account, None),
        };
        let (host, port) = split_port(host)?;
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (decode(key), decode(&value.replace('+', " "))))
            .collect();
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let parsed = Self {
            dialect,
            username: text(&decode(username)),
            password,
            host: text(host),
            port,
            database: text(database).filter(|database| dialect != Dialect::Sqlite || database != ":memory:"),
            query,
        };
        if dialect != Dialect::Sqlite && parsed.database.is_none() {
            return Err(wrong("the URL names no database"));
        }
        if dialect == Dialect::Sqlite && parsed.host.is_some() {
            return Err(wrong("a SQLite URL has three slashes before a relative path and four before an absolute one"));
        }
        Ok(parsed)
    }
}

fn split_port(host: &str) -> Result<(&str, Option<u16>)> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (name, after) = rest.split_once(']').ok_or_else(|| wrong("a '[' without ']' in the host"))?;
        (name, after.strip_prefix(':'))
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    match port.filter(|port| !port.is_empty()) {
        None => Ok((name, None)),
        Some(port) => match port.parse() {
            Ok(port) => Ok((name, Some(port))),
            // Not shown: it is a piece of the password when that has an unescaped '@' in it.
            Err(_) => Err(wrong("the port is not a number (an '@' in a password is written %40)")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_sqlalchemy_reads_them() {
        let url = ConnectionUrl::parse("mysql+pymysql://cin%40der:p%2Fa:ss/w#?@db.example:3307/cinder?charset=utf8");
        // The first '?' ends the part with the account, as in SQLAlchemy.
        assert!(url.is_err());
        let url =
            ConnectionUrl::parse("mysql+pymysql://cin%40der:p%40a:s/w#@db.example:3307/cinder?charset=utf8").unwrap();
        assert_eq!(url.dialect, Dialect::MySql);
        assert_eq!(url.username.as_deref(), Some("cin@der"));
        assert_eq!(url.password.as_deref(), Some("p@a:s/w#"));
        assert_eq!((url.host.as_deref(), url.port), (Some("db.example"), Some(3307)));
        assert_eq!(url.database.as_deref(), Some("cinder"));
        assert_eq!(url.query["charset"], "utf8");

        let url = ConnectionUrl::parse("postgresql+psycopg2://u@[::1]:5433/c?host=/run/postgresql").unwrap();
        assert_eq!((url.host.as_deref(), url.port, url.password), (Some("::1"), Some(5433), None));
        assert_eq!(url.query["host"], "/run/postgresql");
    }

    #[test]
    fn sqlite_paths_keep_their_slashes() {
        let path = |url| ConnectionUrl::parse(url).unwrap().database;
        assert_eq!(path("sqlite:////var/lib/cinder/c@1.sqlite").as_deref(), Some("/var/lib/cinder/c@1.sqlite"));
        assert_eq!(path("sqlite:///cinder.sqlite").as_deref(), Some("cinder.sqlite"));
        assert_eq!(path("sqlite://"), None);
        assert_eq!(path("sqlite:///:memory:"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in
            ["secret", "oracle://u:secret@h/d", "mysql://u:secret@h", "mysql://u:secret@h:x/d", "sqlite://secret/d"]
        {
            let error = ConnectionUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains("[database] connection"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let shown = format!("{:?}", ConnectionUrl::parse("mysql://u:secret@h/d").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
