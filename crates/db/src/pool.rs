//! The one place through which every statement goes: typed pools behind a small enum, rendering per dialect, and the
//! count of round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_query::{
    DeleteStatement, InsertStatement, MysqlQueryBuilder, PostgresQueryBuilder, SelectStatement, SqliteQueryBuilder,
    UpdateStatement, Value, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, MySql, MySqlPool, PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use crate::{Error, Options, Result};

/// Which SQL the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    MySql(MySqlPool),
    Postgres(PgPool),
}

/// Cinder's database. Cheap to clone; all clones share the connections.
///
/// Methods are grouped by use case over the files of this crate. Except for the heartbeat, each one is tried again as a whole after a
/// deadlock or a lost connection (`[database] db_max_retries`, `db_retry_interval`, `db_max_retry_interval`).
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) options: Options,
    pub(crate) round_trips: AtomicU64,
    pub(crate) suspicion: Arc<Suspicion>,
}

/// When a connection was last lost. A server that restarted has cut all its connections, so the older ones are tried out
/// before they are handed out; the others are not, which saves one round trip per statement.
pub(crate) struct Suspicion {
    start: Instant,
    lost_at_millis: AtomicU64,
}

impl Suspicion {
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), lost_at_millis: AtomicU64::new(0) })
    }

    pub(crate) fn lost_one(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.lost_at_millis.store(millis.max(1), Ordering::Relaxed);
    }

    pub(crate) fn concerns(&self, age: Duration) -> bool {
        match self.lost_at_millis.load(Ordering::Relaxed) {
            0 => false,
            lost_at => age >= self.start.elapsed().saturating_sub(Duration::from_millis(lost_at)),
        }
    }
}

/// A row struct that all three databases can fill.
pub(crate) trait AnyRow:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, MySqlRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> AnyRow for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, MySqlRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// A statement that knows how to be written in each dialect.
pub(crate) trait Statement: Sync {
    /// The text with placeholders, and their values.
    fn render(&self, dialect: Dialect) -> (String, Values);
}

/// A statement that sea-query has no words for: a text of our own with a `?` for each value, written for one dialect.
pub(crate) struct Text {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Statement for Text {
    fn render(&self, dialect: Dialect) -> (String, Values) {
        let sql = match dialect {
            Dialect::Postgres => {
                let mut parts = self.sql.split('?');
                let first = parts.next().unwrap_or_default().to_owned();
                parts.enumerate().fold(first, |sql, (index, part)| format!("{sql}${}{part}", index + 1))
            }
            _ => self.sql.clone(),
        };
        (sql, Values(self.values.clone()))
    }
}

macro_rules! statement {
    ($($kind:ident),*) => {$(
        impl Statement for $kind {
            fn render(&self, dialect: Dialect) -> (String, Values) {
                match dialect {
                    Dialect::Sqlite => {
                        let (text, values) = self.build(SqliteQueryBuilder);
                        (text, python_dates(values))
                    }
                    Dialect::MySql => self.build(MysqlQueryBuilder),
                    Dialect::Postgres => self.build(PostgresQueryBuilder),
                }
            }
        }
    )*};
}

statement!(SelectStatement, InsertStatement, UpdateStatement, DeleteStatement);

/// The text with the values written into it.
fn inline(statement: &UpdateStatement, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => statement.to_string(SqliteQueryBuilder),
        Dialect::MySql => statement.to_string(MysqlQueryBuilder),
        Dialect::Postgres => statement.to_string(PostgresQueryBuilder),
    }
}

/// SQLite has no date type and compares dates as text, so ours must have the very form that SQLAlchemy writes.
fn python_dates(values: Values) -> Values {
    let format =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
    let text = |at: time::PrimitiveDateTime| at.format(format).expect("a fixed format of numbers only");
    let convert = |value| match value {
        Value::TimeDateTime(at) => Value::String(at.map(text)),
        other => other,
    };
    Values(values.0.into_iter().map(convert).collect())
}

/// Runs `$body` with the typed pool bound to `$pool`.
macro_rules! on_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match &$database.inner.pool {
            Pool::Sqlite($pool) => $body,
            Pool::MySql($pool) => $body,
            Pool::Postgres($pool) => $body,
        }
    };
}

/// Runs `$body` with the typed connection of a transaction bound to `$connection`.
macro_rules! on_transaction {
    ($transaction:expr, $connection:ident => $body:expr) => {
        match &mut $transaction.inner {
            AnyTransaction::Sqlite(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
            AnyTransaction::MySql(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
            AnyTransaction::Postgres(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
        }
    };
}

impl Database {
    /// The dialect of the server.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.inner.pool {
            Pool::Sqlite(_) => Dialect::Sqlite,
            Pool::MySql(_) => Dialect::MySql,
            Pool::Postgres(_) => Dialect::Postgres,
        }
    }

    /// How many times this handle and its clones have asked the server and waited, `BEGIN` and `COMMIT` included.
    /// (The first use of a statement on a connection costs the driver one more, to prepare it.)
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.inner.round_trips.load(Ordering::Relaxed)
    }

    /// Counts one round trip; the text is for those who trace (and for the tests, which pin it per dialect).
    fn count(&self, sql: &str) {
        self.inner.round_trips.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("scoria_db_round_trips_total").increment(1);
        tracing::trace!(target: "scoria_db::sql", sql);
    }

    fn render(&self, statement: &impl Statement) -> (AssertSqlSafe<String>, SqlxValues) {
        let (sql, values) = statement.render(self.dialect());
        self.count(&sql);
        (AssertSqlSafe(sql), SqlxValues(values))
    }

    pub(crate) async fn fetch_all<T: AnyRow>(&self, statement: &impl Statement) -> Result<Vec<T>> {
        let (sql, values) = self.render(statement);
        Ok(on_pool!(self, pool => sqlx::query_as_with(sql, values).fetch_all(pool).await)?)
    }

    /// The first row, once all of the answer is there: a statement that writes and returns what it has written sends its rows
    /// before it is committed, and whether that failed (Galera certifies only then) stands at the end.
    pub(crate) async fn fetch_optional<T: AnyRow>(&self, statement: &impl Statement) -> Result<Option<T>> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    /// Runs a statement; the answer is how many rows it matched.
    pub(crate) async fn execute(&self, statement: &impl Statement) -> Result<u64> {
        let (sql, values) = self.render(statement);
        Ok(on_pool!(self, pool => sqlx::query_with(sql, values).execute(pool).await?.rows_affected()))
    }

    /// Inserts one row into a table with a generated `id`, which is the answer.
    pub(crate) async fn insert(&self, mut statement: InsertStatement) -> Result<i64> {
        if self.dialect() == Dialect::Postgres {
            statement.returning_col("id");
        }
        let (sql, values) = self.render(&statement);
        let id = match &self.inner.pool {
            Pool::Sqlite(pool) => sqlx::query_with(sql, values).execute(pool).await?.last_insert_rowid(),
            Pool::MySql(pool) => {
                let id = sqlx::query_with(sql, values).execute(pool).await?.last_insert_id();
                i64::try_from(id).map_err(|_| Error::corrupt("row", id, "the generated id is too large"))?
            }
            Pool::Postgres(pool) => {
                // All of the answer, as in `fetch_optional`.
                let rows: Vec<(i32,)> = sqlx::query_as_with(sql, values).fetch_all(pool).await?;
                let (id,) = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
                i64::from(id)
            }
        };
        Ok(id)
    }

    /// Begins a transaction. It is rolled back when it is dropped without a commit.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        self.count("BEGIN");
        let inner = match &self.inner.pool {
            // A deferred transaction that reads first cannot always become a writer: it fails at once, whatever the
            // busy time-out. All of ours write.
            Pool::Sqlite(pool) => AnyTransaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Pool::MySql(pool) => AnyTransaction::MySql(pool.begin().await?),
            Pool::Postgres(pool) => AnyTransaction::Postgres(pool.begin().await?),
        };
        Ok(Tx { inner, database: self.clone() })
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn ping(&self) -> Result<()> {
        self.count("PING");
        Ok(on_pool!(self, pool => pool.acquire().await?.ping().await)?)
    }

    /// What a MySQL or MariaDB server says it is.
    pub(crate) async fn mysql_version(&self) -> Result<(String,)> {
        let version = Text { sql: "SELECT VERSION()".to_owned(), values: Vec::new() };
        let version = self.fetch_optional(&version).await?;
        Ok(version.unwrap_or_default())
    }

    /// Closes all connections and waits until they are closed.
    pub async fn close(&self) {
        on_pool!(self, pool => pool.close().await);
    }
}

enum AnyTransaction {
    Sqlite(Transaction<'static, Sqlite>),
    MySql(Transaction<'static, MySql>),
    Postgres(Transaction<'static, Postgres>),
}

/// One transaction.
pub(crate) struct Tx {
    inner: AnyTransaction,
    database: Database,
}

impl Tx {
    pub(crate) fn dialect(&self) -> Dialect {
        self.database.dialect()
    }

    pub(crate) async fn fetch_all<T: AnyRow>(&mut self, statement: &impl Statement) -> Result<Vec<T>> {
        let (sql, values) = self.database.render(statement);
        Ok(on_transaction!(self, connection => sqlx::query_as_with(sql, values).fetch_all(connection).await)?)
    }

    pub(crate) async fn fetch_optional<T: AnyRow>(&mut self, statement: &impl Statement) -> Result<Option<T>> {
        let (sql, values) = self.database.render(statement);
        Ok(on_transaction!(self, connection => sqlx::query_as_with(sql, values).fetch_optional(connection).await)?)
    }

    pub(crate) async fn execute(&mut self, statement: &impl Statement) -> Result<u64> {
        let (sql, values) = self.database.render(statement);
        Ok(
            on_transaction!(self, connection => sqlx::query_with(sql, values).execute(connection).await?.rows_affected()),
        )
    }

    /// Runs several statements in one round trip, values written into the text. Only for statements whose values are ids,
    /// numbers, booleans and dates: nothing that a user has typed.
    pub(crate) async fn execute_together(&mut self, statements: &[UpdateStatement]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let dialect = self.dialect();
        let shown: Vec<String> = statements.iter().map(|statement| statement.render(dialect).0).collect();
        self.database.count(&shown.join("; "));
        let texts: Vec<String> = statements.iter().map(|statement| inline(statement, dialect)).collect();
        let sql = AssertSqlSafe(texts.join("; "));
        on_transaction!(self, connection => sqlx::raw_sql(sql).execute(connection).await.map(drop))?;
        Ok(())
    }

    /// Undoes everything now. Only for ends that are no error: after an error, dropping does the same.
    pub(crate) async fn rollback(self) -> Result<()> {
        self.database.count("ROLLBACK");
        match self.inner {
            AnyTransaction::Sqlite(transaction) => transaction.rollback().await?,
            AnyTransaction::MySql(transaction) => transaction.rollback().await?,
            AnyTransaction::Postgres(transaction) => transaction.rollback().await?,
        }
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.database.count("COMMIT");
        match self.inner {
            AnyTransaction::Sqlite(transaction) => transaction.commit().await?,
            AnyTransaction::MySql(transaction) => transaction.commit().await?,
            AnyTransaction::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}
