//! `postgresql://user:password@host:port/database`: advisory locks of a PostgreSQL server, as tooz takes them.
//!
//! Contract: `tooz/drivers/pgsql.py: PostgresLock`. The key of a lock is the first two bytes of the MD5 of its name: there are
//! 65,536 locks for all the volumes of a cluster, so two volumes may have the same one, and then wait for each other. It
//! stays that way, as Python peers do it; inside one process such names share the server's lock (see
//! [`super::advisory`]). Two processes whose sets of names cross by such a coincidence end by the deadline of the wait.
//!
//! Shared mode is left out although the server has it: a set that wants one name shared and another alone, with the same key,
//! would wait for itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use md5::{Digest, Md5};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::advisory::{AdvisoryProvider, Server, Session, session_timeout};
use crate::url::{BackendUrl, bad_option};
use crate::{Error, Options, Provider};

const KNOWN: &[&str] = &["host", "port", "dbname", "session_timeout"];

/// How often the server looks whether a client that waits for a lock is still there.
const LOOK_FOR_CLIENT: Duration = Duration::from_secs(1);

pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    url.warn_of_unknown(KNOWN);
    let server = Postgres { connect: connect_options(url)?, session_timeout: session_timeout(url)? };
    tracing::warn!(
        "[coordination] backend_url: postgresql:// has 65,536 locks for all volumes, as tooz makes them: unrelated operations \
         may wait for each other. database:// has one for each name"
    );
    Ok(Arc::new(AdvisoryProvider::start(server, options)?))
}

fn connect_options(url: &BackendUrl<'_>) -> Result<PgConnectOptions, Error> {
    let hosts = url.hosts(5432)?;
    let mut connect = PgConnectOptions::new_without_pgpass()
        .application_name("scoria-locks")
        // A wait for a lock is no slow statement.
        .disable_statement_logging();
    match hosts.as_slice() {
        [] => {}
        [(host, port)] => connect = connect.host(host).port(*port),
        _ => return Err(Error::Config("postgresql:// takes one host: locks are known to one server only".to_owned())),
    }
    match url.option("host") {
        Some(directory) if directory.starts_with('/') => connect = connect.socket(directory),
        Some(host) => connect = connect.host(&host),
        None => {}
    }
    const PORT: &str = "a number from 1 to 65535";
    match url.parsed::<u16>("port", PORT)? {
        Some(0) => return Err(bad_option("port", "0", PORT)),
        Some(port) => connect = connect.port(port),
        None => {}
    }
    if let Some((user, password)) = url.user() {
        connect = connect.username(user);
        if !password.is_empty() {
            connect = connect.password(password);
        }
    }
    let path = url.path.strip_prefix('/').filter(|path| !path.is_empty()).map(str::to_owned);
    if let Some(database) = url.option("dbname").or(path) {
        connect = connect.database(&database);
    }
    Ok(connect)
}

/// The two numbers by which the server knows the lock.
fn key(name: &str) -> (u8, u8) {
    let digest = Md5::digest(name.as_bytes());
    (digest[0], digest[1])
}

#[derive(Debug)]
struct Postgres {
    connect: PgConnectOptions,
    session_timeout: Duration,
}

#[derive(Debug)]
struct PgSession {
    connection: PgConnection,
    /// The server process that has our locks. A pooler between us and the server could give us another one.
    backend: i32,
}

fn unavailable(error: sqlx::Error) -> Error {
    Error::Unavailable(format!("PostgreSQL: {error}"))
}

fn pooled() -> Error {
    Error::Unavailable(
        "there is a pooler between us and PostgreSQL that changes the session between statements (PgBouncer with \
         pool_mode=transaction or statement), and locks belong to sessions: name the server itself in [coordination] \
         backend_url, or use session pooling, or database://"
            .to_owned(),
    )
}

impl PgSession {
    /// Numbers and our own text only, in one round trip: nothing is prepared.
    async fn row(&mut self, sql: String) -> Result<PgRow, Error> {
        self.connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(unavailable)
    }

    /// Runs `SELECT <expression>` that is a truth, and looks whether we still have the same server process.
    async fn truth(&mut self, expression: &str) -> Result<bool, Error> {
        let row = self.row(format!("SELECT {expression}, pg_backend_pid()")).await?;
        if row.try_get_unchecked::<i32, _>(1).map_err(unavailable)? != self.backend {
            return Err(pooled());
        }
        row.try_get_unchecked::<bool, _>(0).map_err(unavailable)
    }
}

#[async_trait]
impl Server for Postgres {
    type Session = PgSession;

    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn key(&self, name: &str) -> Result<String, Error> {
        let (first, second) = key(name);
        Ok(format!("{first} {second}"))
    }

    fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// Sets what this server knows: time-outs of idle sessions and looking for the client came with PostgreSQL 14. While we
    /// wait for a lock the session is not idle, so dead machines are found out by probes of the connection as well.
    async fn connect(&self) -> Result<PgSession, Error> {
        let mut connection = self.connect.connect().await.map_err(unavailable)?;
        let (timeout, look) = (self.session_timeout, LOOK_FOR_CLIENT.as_millis());
        let (idle, interval, millis) =
            ((timeout.as_secs() / 2).max(1), (timeout.as_secs() / 6).max(1), timeout.as_millis());
        let settings = format!(
            "SELECT pg_backend_pid(), set_config(name, value, false) FROM (VALUES \
             ('idle_session_timeout', '{millis}'), ('client_connection_check_interval', '{look}'), \
             ('tcp_keepalives_idle', '{idle}'), ('tcp_keepalives_interval', '{interval}'), ('tcp_keepalives_count', '3'), \
             ('tcp_user_timeout', '{millis}'), ('statement_timeout', '0'), ('lock_timeout', '0')) AS wanted (name, value) \
             JOIN pg_settings USING (name)"
        );
        let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(settings))).await.map_err(unavailable)?;
        let backend = row.try_get_unchecked(0).map_err(unavailable)?;
        Ok(PgSession { connection, backend })
    }

    /// Two connections that are open at the same time have two server processes, unless a pooler lends them out.
    async fn inspect(&self, session: &mut PgSession) -> Result<(), Error> {
        let mut other = self.connect().await?;
        session.truth("true").await?;
        other.truth("true").await?;
        let same = other.backend == session.backend;
        other.close().await;
        if same { Err(pooled()) } else { Ok(()) }
    }
}

#[async_trait]
impl Session for PgSession {
    /// The deadline is the caller's: it closes the connection, which ends the wait.
    async fn lock(&mut self, name: &str, wait: Option<Duration>) -> Result<bool, Error> {
        let (first, second) = key(name);
        match wait {
            None => self.truth(&format!("pg_try_advisory_lock({first}, {second})")).await,
            // It returns nothing, when it returns.
            Some(_) => self.truth(&format!("pg_advisory_lock({first}, {second}) IS NOT NULL")).await.map(|_| true),
        }
    }

    async fn unlock(&mut self, name: &str) -> Result<bool, Error> {
        let (first, second) = key(name);
        self.truth(&format!("pg_advisory_unlock({first}, {second})")).await
    }

    /// Nobody can take a lock away from a session that lives.
    async fn beat(&mut self, _: Option<&str>) -> Result<bool, Error> {
        self.truth("true").await
    }

    async fn break_lock(&mut self, name: &str) -> Result<bool, Error> {
        let (first, second) = key(name);
        let broken = format!(
            "COALESCE(bool_or(pg_terminate_backend(pid)), false) FROM pg_locks WHERE locktype = 'advisory' AND granted \
             AND classid = {first} AND objid = {second} AND objsubid = 2 \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        let row = self.row(format!("SELECT {broken}")).await?;
        row.try_get_unchecked(0).map_err(unavailable)
    }

    async fn close(self) {
        let _ = self.connection.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_toozs() {
        assert_eq!(key("cinder-3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11-delete_volume"), (81, 175));
    }

    #[test]
    fn passwords_go_to_the_server_as_they_stand() {
        // Here they are written with everything in hexadecimal.
        let sent = |password| {
            let url = format!("postgresql://u:{password}@h/d");
            let connect = connect_options(&BackendUrl::parse(&url).unwrap()).unwrap();
            connect.to_url_lossy().password().map(str::to_owned)
        };
        assert_eq!(sent("p@s:s").as_deref(), Some("p%40s%3As"));
        assert_eq!(sent("p%40ss").as_deref(), Some("p%2540ss"));
        assert_eq!(sent("").as_deref(), None);
    }

    #[test]
    fn the_url_is_read_as_tooz_reads_it() {
        let options = |url: &str| connect_options(&BackendUrl::parse(url).unwrap());
        let connect = options("postgresql://u:p@h:7/d").unwrap();
        assert_eq!((connect.get_host(), connect.get_port(), connect.get_username()), ("h", 7, "u"));
        assert_eq!(connect.get_database(), Some("d"));
        let connect = options("postgresql://u@h:7/d?host=i&port=8&dbname=e").unwrap();
        assert_eq!((connect.get_host(), connect.get_port(), connect.get_database()), ("i", 8, Some("e")));
        let socket = options("postgresql:///d?host=/run/postgresql").unwrap();
        assert_eq!(socket.get_socket().and_then(|path| path.to_str()), Some("/run/postgresql"));
        for bad in ["port=0", "port=x"] {
            let error = options(&format!("postgresql://u:secret@h/d?{bad}")).unwrap_err().to_string();
            assert!(error.contains("a number from 1 to 65535") && !error.contains("secret"), "{error}");
        }
        assert!(options("postgresql://a,b/d").unwrap_err().to_string().contains("one host"));
    }
}
