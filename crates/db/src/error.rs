//! What can go wrong with the database, by kind.

use std::collections::BTreeMap;

use crate::quotas::Usage;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row that must be there is not.
    #[error("{what} {id} could not be found")]
    NotFound {
        /// Kind of row.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The server is not there, or went away in the middle: what was sent may or may not have been done.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Deadlock, lock time-out or serialization failure: the server has undone it, it may be tried again.
    #[error("the database was busy: {0}")]
    Busy(#[source] sqlx::Error),
    /// A row with this key is already there.
    #[error("conflicting row: {0}")]
    Conflict(String),
    /// The tables are not there, or of a revision that this release does not know.
    #[error("{0}")]
    Schema(String),
    /// The connection URL or an option is wrong.
    #[error("{0}")]
    Config(String),
    /// A row has something in it that cannot be.
    #[error("{table} {id}: {reason}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// A reservation would pass the project's limits.
    #[error("quota exceeded for resources: {}", .0.overs.join(", "))]
    OverQuota(Box<OverQuota>),
    /// The server refused the statement for another reason.
    #[error("the database refused a statement: {0}")]
    Statement(#[source] sqlx::Error),
}

/// Which resources are over, and by what figures (`cinder/exception.py: OverQuota`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverQuota {
    /// The resources, sorted.
    pub overs: Vec<String>,
    /// Usage of every resource that was asked for.
    pub usages: BTreeMap<String, Usage>,
    /// Limit of every resource that was asked for; -1 is none.
    pub quotas: BTreeMap<String, i64>,
}

impl Error {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_))
    }

    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    pub(crate) fn corrupt(table: &'static str, id: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { table, id: id.to_string(), reason: reason.to_string() }
    }
}

/// MySQL: lock wait time-out, deadlock, and a Galera node that gave the transaction up.
const MYSQL_BUSY: &[u16] = &[1205, 1213, 3101];
/// MySQL: shutdown, killed, gone away, lost, too many connections, Galera node not ready, idle time-out.
const MYSQL_LOST: &[u16] = &[1040, 1047, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 3169, 4031];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Tls(_) | E::Protocol(_) => {
                Self::Unavailable(error)
            }
            E::ColumnDecode { .. } | E::Decode(_) | E::ColumnNotFound(_) | E::TypeNotFound { .. } => {
                Self::corrupt("row", "of unexpected form", error)
            }
            E::Database(answer) => {
                if let Some(mysql) = answer.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
                    if MYSQL_BUSY.contains(&mysql.number()) {
                        return Self::Busy(error);
                    }
                    if MYSQL_LOST.contains(&mysql.number()) {
                        return Self::Unavailable(error);
                    }
                }
                if answer.is_unique_violation() {
                    return Self::Conflict(answer.message().to_owned());
                }
                match answer.code().as_deref() {
                    // PostgreSQL: serialization failure, deadlock, lock not available.
                    Some("40001" | "40P01" | "55P03") => Self::Busy(error),
                    // PostgreSQL: terminated by an administrator, crash, cannot connect now; class 08 is the connection.
                    Some("57P01" | "57P02" | "57P03" | "53300") => Self::Unavailable(error),
                    Some(code) if code.len() == 5 && code.starts_with("08") => Self::Unavailable(error),
                    // No such table: PostgreSQL, MySQL.
                    Some("42P01" | "42S02") => Self::Schema(missing_table(answer.message())),
                    Some(code) if is_sqlite(answer.as_ref()) => match code.parse::<i32>().map(|code| code & 0xff) {
                        // SQLITE_BUSY and SQLITE_LOCKED with their extended codes.
                        Ok(5 | 6) => Self::Busy(error),
                        // SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN: the disk's state, which may change.
                        Ok(10 | 13 | 14) => Self::Unavailable(error),
                        _ if answer.message().starts_with("no such table") => {
                            Self::Schema(missing_table(answer.message()))
                        }
                        _ => Self::Statement(error),
                    },
                    _ => Self::Statement(error),
                }
            }
            _ => Self::Statement(error),
        }
    }
}

fn is_sqlite(answer: &dyn sqlx::error::DatabaseError) -> bool {
    answer.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
}

fn missing_table(message: &str) -> String {
    format!(
        "the database has no such table ({message}): run 'cinder-manage db sync', or 'scoria db sync' for a database \
         without a Cinder"
    )
}
