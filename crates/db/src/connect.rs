//! Options and connecting.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::pool::{Inner, Pool, Suspicion};
use crate::url::ConnectionUrl;
use crate::{Database, Dialect, Error, Result};

/// How long a call waits for a connection before it counts as failed (and is tried again as a whole).
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long SQLite itself waits for another writer.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The `[database]` section (`oslo_db/options.py`), same names, defaults by [`Options::new`].
#[derive(Clone)]
pub struct Options {
    /// `connection`: a SQLAlchemy URL.
    pub url: String,
    /// Connections that are kept. Default 5.
    pub max_pool_size: u32,
    /// Connections that may be opened on top. Default 50.
    pub max_overflow: u32,
    /// Age at which a connection is replaced. Default one hour.
    pub connection_recycle_time: Duration,
    /// Tries to connect at start; `None` is without end. Default 10.
    pub max_retries: Option<u32>,
    /// Wait between them. Default 10 s.
    pub retry_interval: Duration,
    /// Tries of one call after the first. Default 20.
    pub db_max_retries: u32,
    /// First wait between them. Default 1 s.
    pub db_retry_interval: Duration,
    /// Longest wait between them. Default 10 s.
    pub db_max_retry_interval: Duration,
    /// `sql_mode` of every MySQL session; empty leaves the server's. Default `TRADITIONAL`.
    pub mysql_sql_mode: String,
    /// `wsrep_sync_wait` of every MySQL session (Galera).
    pub mysql_wsrep_sync_wait: Option<u32>,
}

/// The URL is left out: it contains the password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("max_pool_size", &self.max_pool_size)
            .field("max_overflow", &self.max_overflow)
            .field("db_max_retries", &self.db_max_retries)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults of oslo.db for this URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_pool_size: 5,
            max_overflow: 50,
            connection_recycle_time: Duration::from_secs(3600),
            max_retries: Some(10),
            retry_interval: Duration::from_secs(10),
            db_max_retries: 20,
            db_retry_interval: Duration::from_secs(1),
            db_max_retry_interval: Duration::from_secs(10),
            mysql_sql_mode: "TRADITIONAL".to_owned(),
            mysql_wsrep_sync_wait: None,
        }
    }
}

impl Database {
    /// Connects, trying `max_retries` times.
    ///
    /// # Errors
    /// `Config` for a URL or option that cannot be, `Unavailable` when no try succeeded, `Statement` for an account that
    /// the server refuses.
    pub async fn connect(options: &Options) -> Result<Self> {
        let database = Self::unconnected(options, "")?;
        let mut tries = 0;
        while let Err(error) = database.ping().await {
            tries += 1;
            if !error.is_retryable() || options.max_retries.is_some_and(|most| tries > most) {
                return Err(error);
            }
            tracing::warn!(%error, tries, wait_s = options.retry_interval.as_secs(), "cannot connect to the database");
            tokio::time::sleep(options.retry_interval).await;
        }
        Ok(database)
    }

    /// A handle that connects when it is first used. Its connections belong to the executor on which it is made. The further
    /// settings are for MySQL's sessions: `, name = value`.
    pub(crate) fn unconnected(options: &Options, further: &str) -> Result<Self> {
        let url = ConnectionUrl::parse(&options.url)?;
        let suspicion = Suspicion::none();
        let pool = match url.dialect {
            Dialect::Sqlite => Pool::Sqlite(sqlite(&url, options)?),
            Dialect::MySql => {
                let pool: MySqlPoolOptions = server_pool(options, &suspicion);
                let session = mysql_session(options)? + further;
                let pool = pool.after_connect(move |connection, _| {
                    let session = AssertSqlSafe(session.clone());
                    Box::pin(async move { connection.execute(session).await.map(drop) })
                });
                Pool::MySql(pool.connect_lazy_with(mysql(&url)?))
            }
            Dialect::Postgres => {
                let pool: PgPoolOptions = server_pool(options, &suspicion);
                Pool::Postgres(pool.connect_lazy_with(postgres(&url)?))
            }
        };
        let inner = Inner { pool, options: options.clone(), round_trips: AtomicU64::new(0), suspicion };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// What both servers' pools have in common. Connections beyond `max_pool_size` are closed when they idle for a minute, as far as the
/// pool can tell: it has one limit, not two.
fn server_pool<DB: sqlx::Database>(options: &Options, suspicion: &Arc<Suspicion>) -> PoolOptions<DB> {
    let suspicion = suspicion.clone();
    PoolOptions::new()
        .max_connections(options.max_pool_size.saturating_add(options.max_overflow).max(1))
        .max_lifetime(options.connection_recycle_time)
        .idle_timeout(Duration::from_secs(60))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |connection: &mut DB::Connection, meta| {
            let test = suspicion.concerns(meta.age);
            Box::pin(async move {
                if test {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

fn sqlite(url: &ConnectionUrl, options: &Options) -> Result<sqlx::SqlitePool> {
    // As SQLAlchemy leaves it: foreign keys are not enforced.
    let connect = SqliteConnectOptions::new().foreign_keys(false).busy_timeout(SQLITE_BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
    let Some(path) = &url.database else {
        // Each connection to memory is a database of its own: there must be one, for good.
        let pool = pool.max_connections(1).max_lifetime(None).idle_timeout(None);
        return Ok(pool.connect_lazy_with(connect.in_memory(true)));
    };
    let directory = std::path::Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let directory = directory.display();
        return Err(Error::Config(format!(
            "[database] connection: the directory {directory} of the SQLite file does not exist: create it"
        )));
    }
    let pool = pool.max_connections(options.max_pool_size.max(1));
    Ok(pool.connect_lazy_with(connect.filename(path).create_if_missing(true)))
}

fn mysql(url: &ConnectionUrl) -> Result<MySqlConnectOptions> {
    // The session's settings come from our own options, in one statement (`mysql_session`).
    let mut connect = MySqlConnectOptions::new()
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .host(url.host.as_deref().unwrap_or("localhost"))
        .port(url.port.unwrap_or(3306))
        .username(url.username.as_deref().unwrap_or("root"))
        .database(url.database.as_deref().unwrap_or_default());
    if let Some(password) = &url.password {
        connect = connect.password(password);
    }
    let mut tls = false;
    for (key, value) in &url.query {
        match key.as_str() {
            "unix_socket" => connect = connect.socket(value),
            "ssl_ca" => (connect, tls) = (connect.ssl_ca(value), true),
            "ssl_cert" => (connect, tls) = (connect.ssl_client_cert(value), true),
            "ssl_key" => (connect, tls) = (connect.ssl_client_key(value), true),
            // Text is utf8 on both ends, and a pool checks for itself: nothing to do for these.
            "charset" | "plugin" | "use_unicode" => {}
            other => return Err(unknown_parameter(other)),
        }
    }
    let mode = match (tls, url.query.contains_key("ssl_ca")) {
        (_, true) => MySqlSslMode::VerifyCa,
        (true, false) => MySqlSslMode::Required,
        // MySQL 8's default way of authenticating sends the password only over TLS, so it is taken where it is offered.
        (false, false) => MySqlSslMode::Preferred,
    };
    Ok(connect.ssl_mode(mode))
}

fn mysql_session(options: &Options) -> Result<String> {
    let mut settings = vec!["time_zone = '+00:00'".to_owned()];
    let mode = &options.mysql_sql_mode;
    if !mode.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ',') {
        return Err(Error::Config(format!(
            "[database] mysql_sql_mode: '{mode}' is not a comma-separated list of modes"
        )));
    }
    if !mode.is_empty() {
        settings.push(format!("sql_mode = '{mode}'"));
    }
    if let Some(bits) = options.mysql_wsrep_sync_wait {
        settings.push(format!("wsrep_sync_wait = {bits}"));
    }
    Ok(format!("SET SESSION {}", settings.join(", ")))
}

fn postgres(url: &ConnectionUrl) -> Result<PgConnectOptions> {
    let mut connect = PgConnectOptions::new_without_pgpass()
        .application_name("scoria")
        .host(url.host.as_deref().unwrap_or("localhost"))
        .port(url.port.unwrap_or(5432))
        .username(url.username.as_deref().unwrap_or("postgres"))
        .database(url.database.as_deref().unwrap_or_default());
    if let Some(password) = &url.password {
        connect = connect.password(password);
    }
    for (key, value) in &url.query {
        connect = match key.as_str() {
            "host" if value.starts_with('/') => connect.socket(value),
            "host" => connect.host(value),
            "sslmode" => {
                let mode: PgSslMode = value.parse().map_err(|_| {
                    Error::Config(format!("[database] connection: sslmode '{value}' is not one of PostgreSQL's"))
                })?;
                connect.ssl_mode(mode)
            }
            "sslrootcert" => connect.ssl_root_cert(value),
            "sslcert" => connect.ssl_client_cert(value),
            "sslkey" => connect.ssl_client_key(value),
            "application_name" => connect.application_name(value),
            "client_encoding" => connect,
            other => return Err(unknown_parameter(other)),
        };
    }
    Ok(connect)
}

fn unknown_parameter(name: &str) -> Error {
    Error::Config(format!("[database] connection: the parameter '{name}' of the URL is not supported: remove it"))
}
