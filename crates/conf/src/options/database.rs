//! `[database]`.

use std::time::Duration;

use secrecy::SecretString;

use super::spec::{BOOL, INT, STR, int, options};

options! {
    /// `[database]` (`oslo_db/options.py`).
    pub struct DatabaseOptions in "database" => {
        /// The database, as SQLAlchemy writes it: `mysql+pymysql://USER:PASSWORD@HOST/NAME`, `postgresql://…`, `sqlite:///FILE`.
        connection: SecretString = STR.default("sqlite:///$state_path/cinder.sqlite").secret();
        /// More parameters for the end of `connection`: `NAME=VALUE&…`.
        connection_parameters: String = STR.default("");
        /// Seconds after which a connection is replaced.
        connection_recycle_time: Duration = INT.default("3600");
        /// How many connections are kept open.
        max_pool_size: u32 = INT.default("5");
        /// How many more may be open for a while.
        max_overflow: u32 = INT.default("50");
        /// Seconds to wait for a free connection. Unset: 30.
        pool_timeout: Option<Duration> = INT;
        /// How many times to try to reach the database at start; -1: without end.
        max_retries: i64 = INT.default("10");
        /// Seconds between these tries.
        retry_interval: Duration = INT.default("10");
        /// How many times an operation is repeated that met a deadlock or a lost connection; -1: without end.
        db_max_retries: i64 = INT.default("20");
        /// Seconds before the first repetition.
        db_retry_interval: Duration = INT.default("1");
        /// Whether the wait doubles each time.
        db_inc_retry_interval: bool = BOOL.default("true");
        /// The most seconds between two repetitions.
        db_max_retry_interval: Duration = INT.default("10");
        /// The SQL mode of every MySQL connection; empty: the server's own.
        mysql_sql_mode: String = STR.default("TRADITIONAL");
        /// Galera: what to wait for before reading (`wsrep_sync_wait`). Unset: the server's own.
        mysql_wsrep_sync_wait: Option<i64> = INT;
        /// SQLite: whether each commit waits for the disk.
        sqlite_synchronous: bool = BOOL.default("true");
        /// How much of the statements is logged: 0 nothing, 100 everything.
        connection_debug: u32 = int(0, 100).default("0");
    }
}
