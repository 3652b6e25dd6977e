//! `mysql://user:password@host[:port]/database`: the named locks of a MySQL or MariaDB server, as tooz takes them.
//!
//! Contract: `tooz/drivers/mysql.py: MySQLLock`. `GET_LOCK` with the raw name on a connection of its own; where tooz polls
//! once per second, we wait in the server's queue. `wait_timeout` of each connection is `session_timeout` (an option of our own, 30 s):
//! so much later at the latest the server frees the lock of a machine that has gone without a word, or of a process that
//! is stopped. When the process dies the server frees it at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::advisory::{AdvisoryProvider, Server, Session, session_timeout};
use crate::name::bare;
use crate::url::{BackendUrl, bad_option};
use crate::{Error, Options, Provider};

/// MySQL's own limit (error 3057). MariaDB would take more, but its peers could not.
const LONGEST_NAME: usize = 64;

const KNOWN: &[&str] = &[
    "unix_socket",
    "ssl_ca",
    "ssl_capath",
    "ssl_cert",
    "ssl_key",
    "ssl_cipher",
    "ssl_verify_mode",
    "ssl_check_hostname",
    "session_timeout",
    "single_node",
];

pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    url.warn_of_unknown(KNOWN);
    let server = MySql {
        connect: connect_options(url)?,
        session_timeout: session_timeout(url)?,
        single_node: url.flag("single_node", false)?,
    };
    Ok(Arc::new(AdvisoryProvider::start(server, options)?))
}

fn connect_options(url: &BackendUrl<'_>) -> Result<MySqlConnectOptions, Error> {
    let hosts = url.hosts(3306)?;
    let (host, port) = match hosts.as_slice() {
        [] => ("localhost", 3306),
        [(host, port)] => (host.as_str(), *port),
        _ => return Err(Error::Config("mysql:// takes one host: locks are known to one server only".to_owned())),
    };
    // The session needs none of what sqlx sets by default.
    let mut connect = MySqlConnectOptions::new()
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .host(host)
        .port(port)
        // A wait for a lock is no slow statement.
        .disable_statement_logging();
    if let Some((user, password)) = url.user() {
        connect = connect.username(user);
        if !password.is_empty() {
            connect = connect.password(password);
        }
    }
    if let Some(database) = url.path.strip_prefix('/').filter(|database| !database.is_empty()) {
        connect = connect.database(database);
    }
    if let Some(socket) = url.option("unix_socket") {
        connect = connect.socket(socket);
    }
    tls(url, connect)
}

/// `pymysql` without any of these options speaks in the clear; we take TLS where it is offered, as MySQL 8 sends a password over
/// nothing else.
fn tls(url: &BackendUrl<'_>, mut connect: MySqlConnectOptions) -> Result<MySqlConnectOptions, Error> {
    let (authority, directory) = (url.option("ssl_ca"), url.option("ssl_capath"));
    let verified = authority.is_some() || directory.is_some();
    let mut wanted = verified;
    if let Some(file) = authority {
        connect = connect.ssl_ca(readable("ssl_ca", &file)?);
    } else if let Some(directory) = directory {
        connect = connect.ssl_ca_from_pem(certificates(&directory)?);
    }
    for (option, client_key) in [("ssl_cert", false), ("ssl_key", true)] {
        let Some(file) = url.option(option) else { continue };
        let file = readable(option, &file)?;
        connect = if client_key { connect.ssl_client_key(file) } else { connect.ssl_client_cert(file) };
        wanted = true;
    }
    if url.option("ssl_cipher").is_some() {
        tracing::warn!(
            "[coordination] backend_url: ssl_cipher is ignored, only the ciphers of TLS 1.2 and 1.3 are offered"
        );
    }
    let verify = match url.option("ssl_verify_mode").map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None => verified,
        Some("none" | "0" | "false" | "no") => false,
        Some("optional" | "required" | "1" | "true" | "yes") => true,
        Some(other) => return Err(bad_option("ssl_verify_mode", other, "none, optional or required")),
    };
    let mode = match (wanted || url.option("ssl_verify_mode").is_some(), verify) {
        (false, _) => MySqlSslMode::Preferred,
        (true, false) => MySqlSslMode::Required,
        (true, true) if verified && url.flag("ssl_check_hostname", true)? => MySqlSslMode::VerifyIdentity,
        (true, true) => MySqlSslMode::VerifyCa,
    };
    Ok(connect.ssl_mode(mode))
}

/// The file, if it can be read: one clear error at start instead of one at each connection.
fn readable(option: &str, file: &str) -> Result<String, Error> {
    std::fs::File::open(file)
        .map_err(|error| bad_option(option, file, &format!("a file that can be read ({error})")))?;
    Ok(file.to_owned())
}

/// All certificates of a directory.
fn certificates(directory: &str) -> Result<Vec<u8>, Error> {
    let wrong = |error: std::io::Error| {
        bad_option("ssl_capath", directory, &format!("a directory of certificates that can be read ({error})"))
    };
    let mut all = Vec::new();
    for entry in Path::new(directory).read_dir().map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_file() {
            all.extend(std::fs::read(&path).map_err(wrong)?);
            all.push(b'\n');
        }
    }
    Ok(all)
}

#[derive(Debug)]
struct MySql {
    connect: MySqlConnectOptions,
    session_timeout: Duration,
    /// All services of the cluster reach one and the same node, says the operator.
    single_node: bool,
}

#[derive(Debug)]
struct MySqlSession(MySqlConnection);

fn unavailable(error: sqlx::Error) -> Error {
    Error::Unavailable(format!("MySQL: {error}"))
}

/// The name as tooz sends it: bytes. In hexadecimal nothing has to be escaped.
fn literal(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

impl MySqlSession {
    /// Text that has nothing in it but what this file put there, in one round trip: nothing is prepared.
    async fn row(&mut self, sql: String) -> Result<MySqlRow, Error> {
        self.0.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(unavailable)
    }

    async fn number(&mut self, sql: String) -> Result<Option<i64>, Error> {
        self.row(sql).await?.try_get_unchecked(0).map_err(unavailable)
    }
}

#[async_trait]
impl Server for MySql {
    type Session = MySqlSession;

    fn kind(&self) -> &'static str {
        "mysql"
    }

    /// MySQL does not tell upper from lower case.
    fn key(&self, name: &str) -> Result<String, Error> {
        if name.len() > LONGEST_NAME {
            let (longest, prefix) = (LONGEST_NAME - crate::PREFIX.len(), crate::PREFIX);
            let reason =
                format!("mysql:// takes {longest} characters after '{prefix}' (MySQL's limit for GET_LOCK is 64)");
            return Err(Error::Name { name: bare(name).to_owned(), reason });
        }
        Ok(name.to_ascii_lowercase())
    }

    fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    async fn connect(&self) -> Result<MySqlSession, Error> {
        let mut connection = self.connect.connect().await.map_err(unavailable)?;
        let timeout = format!("SET SESSION wait_timeout = {}", self.session_timeout.as_secs());
        connection.execute(sqlx::raw_sql(AssertSqlSafe(timeout))).await.map_err(unavailable)?;
        Ok(MySqlSession(connection))
    }

    /// On a cluster of writable nodes each node has its own named locks: services on two nodes would both hold one.
    async fn inspect(&self, session: &mut MySqlSession) -> Result<(), Error> {
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider', 'group_replication_group_name')";
        let rows = session.0.fetch_all(sqlx::raw_sql(sql)).await.map_err(unavailable)?;
        let value = |name: &str| {
            let named = |row: &&MySqlRow| row.try_get_unchecked::<String, _>(0).is_ok_and(|found| found == name);
            let value = rows.iter().find(named).and_then(|row| row.try_get_unchecked::<String, _>(1).ok());
            value.filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case("none"))
        };
        let galera = value("wsrep_provider").is_some() && value("wsrep_on").is_some_and(|on| on == "ON" || on == "1");
        let kind = match (galera, value("group_replication_group_name").is_some()) {
            (true, _) => "a Galera cluster",
            (_, true) => "a Group Replication cluster",
            _ => return Ok(()),
        };
        if self.single_node {
            tracing::warn!(
                "[coordination] backend_url: the server is a node of {kind}, and its locks are this node's only: with \
                 single_node=true you say that all services of the cluster use this node"
            );
            return Ok(());
        }
        Err(Error::Unavailable(format!(
            "the server is a node of {kind}, whose nodes do not share the locks of GET_LOCK: two services on two nodes would \
             hold one lock. Use database:// (a table, which the nodes do share) or another lock service; if all services \
             reach this very node, add ?single_node=true to [coordination] backend_url"
        )))
    }
}

#[async_trait]
impl Session for MySqlSession {
    async fn lock(&mut self, name: &str, wait: Option<Duration>) -> Result<bool, Error> {
        let seconds = wait.map_or(0, |wait| wait.as_secs() + 1);
        match self.number(format!("SELECT GET_LOCK({}, {seconds})", literal(name))).await? {
            Some(got) => Ok(got == 1),
            None => Err(Error::Unavailable("MySQL: GET_LOCK was killed or ran out of memory".to_owned())),
        }
    }

    async fn unlock(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.number(format!("SELECT RELEASE_LOCK({})", literal(name))).await? == Some(1))
    }

    async fn beat(&mut self, held: Option<&str>) -> Result<bool, Error> {
        let sql = match held {
            None => "SELECT 1".to_owned(),
            Some(name) => format!("SELECT IS_USED_LOCK({}) = CONNECTION_ID()", literal(name)),
        };
        Ok(self.number(sql).await? == Some(1))
    }

    async fn break_lock(&mut self, name: &str) -> Result<bool, Error> {
        let Some(holder) = self.number(format!("SELECT IS_USED_LOCK({})", literal(name))).await? else {
            return Ok(false);
        };
        self.0.execute(sqlx::raw_sql(AssertSqlSafe(format!("KILL CONNECTION {holder}")))).await.map_err(unavailable)?;
        Ok(true)
    }

    async fn close(self) {
        let _ = self.0.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Result<MySqlConnectOptions, Error> {
        connect_options(&BackendUrl::parse(url)?)
    }

    #[test]
    fn the_url_is_read_as_tooz_reads_it() {
        let connect = options("mysql://u:p%40@h:7/d?unix_socket=/run/s").unwrap();
        assert_eq!((connect.get_host(), connect.get_port(), connect.get_username()), ("h", 7, "u"));
        assert_eq!((connect.get_database(), connect.get_socket().unwrap().to_str()), (Some("d"), Some("/run/s")));
        assert!(matches!(connect.get_ssl_mode(), MySqlSslMode::Preferred));
        let connect = options("mysql://").unwrap();
        assert_eq!((connect.get_host(), connect.get_port(), connect.get_database()), ("localhost", 3306, None));
    }

    #[test]
    fn passwords_go_to_the_server_as_they_stand() {
        // Here they are written with everything in hexadecimal.
        let sent = |password| {
            options(&format!("mysql://u:{password}@h/d")).unwrap().to_url_lossy().password().map(str::to_owned)
        };
        assert_eq!(sent("p@s:s").as_deref(), Some("p%40s%3As"));
        assert_eq!(sent("p%40ss").as_deref(), Some("p%2540ss"));
        assert_eq!(sent("").as_deref(), None);
    }

    #[test]
    fn tls_is_verified_as_pymysql_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "").unwrap();
        let (file, directory) = (file.display(), directory.path().display());
        let mode = |query: String| options(&format!("mysql://h/d?{query}")).unwrap().get_ssl_mode();
        assert!(matches!(mode(format!("ssl_ca={file}")), MySqlSslMode::VerifyIdentity));
        assert!(matches!(mode(format!("ssl_capath={directory}")), MySqlSslMode::VerifyIdentity));
        assert!(matches!(mode(format!("ssl_ca={file}&ssl_check_hostname=no")), MySqlSslMode::VerifyCa));
        assert!(matches!(mode(format!("ssl_ca={file}&ssl_verify_mode=none")), MySqlSslMode::Required));
        assert!(matches!(mode(format!("ssl_cert={file}&ssl_key={file}")), MySqlSslMode::Required));
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed_and_without_the_password() {
        for (query, what) in [
            ("ssl_ca=/no/such.pem", "ssl_ca=/no/such.pem: it has to be a file that can be read"),
            ("ssl_capath=/no/such", "ssl_capath=/no/such: it has to be a directory"),
            ("ssl_verify_mode=perhaps", "none, optional or required"),
            ("ssl_ca=/dev/null&ssl_check_hostname=perhaps", "true or false"),
        ] {
            let error = options(&format!("mysql://u:secret@h/d?{query}")).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{error}");
        }
        assert!(options("mysql://one,two/d").unwrap_err().to_string().contains("one host"));
        for bad in ["1", "2.5", "0", "x"] {
            let url = format!("mysql://h/d?session_timeout={bad}");
            let error = session_timeout(&BackendUrl::parse(&url).unwrap()).unwrap_err().to_string();
            assert!(error.contains("session_timeout"), "{error}");
        }
    }

    #[test]
    fn names_longer_than_mysql_takes_are_refused_with_the_limit() {
        let server =
            MySql { connect: MySqlConnectOptions::new(), session_timeout: Duration::from_secs(30), single_node: false };
        assert_eq!(server.key(&"X".repeat(64)).unwrap(), "x".repeat(64));
        let error = server.key(&format!("cinder-{}", "x".repeat(58))).unwrap_err().to_string();
        assert!(error.contains("57 characters after 'cinder-'"), "{error}");
    }
}
