//! The table of locks: `scoria_model::LockTable` over `scoria_locks`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scoria_model::{LockAnswer, LockLease, LockRow, LockTable, LockTableError, LockWatch, LockWish};
use scoria_runtime::Backoff;

use crate::lock_rows::{self as rows, TakeRow};
use crate::lock_watch::{self, Wakes};
use crate::url::ConnectionUrl;
use crate::{Database, Dialect, Error, Options, Result};

/// Connections for locks. They are few, and apart from the others, which may all be busy when a lock has to be taken.
const CONNECTIONS: u32 = 8;
/// Connections for what keeps locks alive: beats and a sweep.
const BEATING: u32 = 2;

/// A statement that lost against another one (a deadlock, a Galera node that certified the other) is tried again so often.
const TRIES: u32 = 30;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A node of a Galera cluster first catches up with what the others have told it: what was given back on one node is free on
/// all. Only MariaDB reads this, and only a cluster heeds it.
const UP_TO_DATE: &str = " /*M!100100 , wsrep_sync_wait = 7 */";

/// Claims that are extended by one statement.
const AT_ONCE: usize = 512;

type Answer<T> = std::result::Result<T, LockTableError>;

/// Locks in the table `scoria_locks` of a database. It has its own connections, made by the executors that use it first: those
/// that keep locks alive, for which [`LockTable::check`], [`LockTable::extend`] and [`LockTable::sweep`] are called, may be another
/// one than the callers'.
pub struct DatabaseLocks {
    options: Options,
    dialect: Dialect,
    requests: Connections,
    beats: Connections,
    /// Whether the server can return what an upsert has made: all but MySQL (MariaDB can).
    returning: OnceLock<bool>,
    pub(crate) wakes: Arc<Wakes>,
    trips: AtomicU64,
}

/// Connections that are made when they are first used.
#[derive(Default)]
struct Connections(Mutex<Option<Database>>);

impl Connections {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Database>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, options: &Options, most: u32) -> Result<Database> {
        let mut current = self.current();
        if let Some(database) = &*current {
            return Ok(database.clone());
        }
        let options = Options { max_pool_size: most, max_overflow: 0, ..options.clone() };
        let database = Database::unconnected(&options, UP_TO_DATE)?;
        *current = Some(database.clone());
        Ok(database)
    }

    async fn close(&self) {
        let database = self.current().take();
        if let Some(database) = database {
            database.close().await;
        }
    }
}

impl std::fmt::Debug for DatabaseLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseLocks").field("options", &self.options).finish_non_exhaustive()
    }
}

impl DatabaseLocks {
    /// The table of locks of the database with these options. It connects when it is used.
    ///
    /// # Errors
    /// `Config` for a URL that cannot be, and for a SQLite database in memory: others cannot see it.
    pub fn new(options: &Options) -> Result<Self> {
        let url = ConnectionUrl::parse(&options.url)?;
        if url.dialect == Dialect::Sqlite && url.database.is_none() {
            return Err(Error::Config(
                "[coordination] backend_url = database:// needs a database that others can see, and that of [database] \
                 connection is in memory: write memory:// instead, or keep the database in a file"
                    .to_owned(),
            ));
        }
        Ok(Self {
            options: options.clone(),
            dialect: url.dialect,
            requests: Connections::default(),
            beats: Connections::default(),
            returning: OnceLock::new(),
            wakes: Arc::default(),
            trips: AtomicU64::new(0),
        })
    }
}

fn micros(number: i64) -> Duration {
    Duration::from_micros(u64::try_from(number).unwrap_or_default())
}

fn lease((_, id, uses, remaining): TakeRow) -> LockLease {
    LockLease { token: rows::token(id, uses), remaining: micros(remaining) }
}

impl DatabaseLocks {
    /// How many times the database was asked and waited for.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// For callers.
    pub(crate) fn database(&self) -> Result<Database> {
        self.requests.get(&self.options, CONNECTIONS)
    }

    /// A connection was lost: none of the others is used again without a look, whichever executor it is of.
    fn suspect(&self) {
        for connections in [&self.requests, &self.beats] {
            if let Some(database) = &*connections.current() {
                database.inner.suspicion.lost_one();
            }
        }
    }

    /// Whether an upsert can return its row.
    async fn returning(&self, database: &Database) -> Result<bool> {
        if database.dialect() != Dialect::MySql {
            return Ok(true);
        }
        if let Some(known) = self.returning.get() {
            return Ok(*known);
        }
        let (version,) = database.mysql_version().await?;
        Ok(*self.returning.get_or_init(|| version.to_ascii_lowercase().contains("mariadb")))
    }

    /// Frees a lock of this claim, or whosever it is, or hands it on.
    async fn free(&self, name: &str, claim: Option<&str>) -> Answer<bool> {
        let freed = self.run(|db| async move {
            let free = rows::free(db.dialect(), name, claim);
            match db.dialect() {
                Dialect::Postgres => {
                    Ok(db.fetch_optional::<(i64, i64)>(&free).await?.is_some_and(|(freed, _told)| freed > 0))
                }
                _ => Ok(db.execute(&free).await? > 0),
            }
        });
        let freed = freed.await?;
        if freed && !self.hands_on() {
            self.wakes.wake(name);
        }
        Ok(freed)
    }

    /// Runs a caller's call.
    async fn run<T, F, Fut>(&self, call: F) -> Answer<T>
    where
        F: FnMut(Database) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.run_on(|| self.database(), call).await
    }

    /// Runs a call that keeps locks alive.
    async fn beat<T, F, Fut>(&self, call: F) -> Answer<T>
    where
        F: FnMut(Database) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.run_on(|| self.beats.get(&self.options, BEATING), call).await
    }

    /// Runs a call, again if the server has undone it for the sake of another one.
    async fn run_on<T, F, Fut>(&self, database: impl Fn() -> Result<Database> + Send, mut call: F) -> Answer<T>
    where
        F: FnMut(Database) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut left = TRIES;
        loop {
            let outcome = match database() {
                Ok(database) => {
                    let before = database.round_trips();
                    let outcome = call(database.clone()).await;
                    self.trips.fetch_add(database.round_trips() - before, Ordering::Relaxed);
                    if matches!(outcome, Err(Error::Unavailable(_))) {
                        self.suspect();
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(value) => return Ok(value),
                Err(Error::Busy(_)) if left > 0 => {
                    left -= 1;
                    metrics::counter!("scoria_db_retries_total", "method" => "lock_table").increment(1);
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(told(error)),
            }
        }
    }
}

fn told(error: Error) -> LockTableError {
    match error {
        Error::Schema(_) => LockTableError::Refused(
            "the database has no table scoria_locks, in which database:// keeps its locks: run 'scoria db sync' for a \
             database without a Cinder, 'scoria db sync --locks' for one that cinder-manage made (it adds this one table and \
             touches nothing else)"
                .to_owned(),
        ),
        Error::Config(_) | Error::Statement(_) | Error::Corrupt { .. } => LockTableError::Refused(error.to_string()),
        _ => LockTableError::Unavailable(error.to_string()),
    }
}

/// What comes back from a list: name, claim, id, uses, since, instance, host, operation, request, resource.
type ListRow = (String, String, i64, i64, i64, String, Option<String>, String, Option<String>, Option<String>);

#[async_trait]
impl LockTable for DatabaseLocks {
    fn is_local(&self) -> bool {
        self.dialect == Dialect::Sqlite
    }

    fn hands_on(&self) -> bool {
        self.dialect == Dialect::Postgres
    }

    fn wakes_within(&self) -> Duration {
        lock_watch::longest_pause(self.dialect)
    }

    async fn check(&self) -> Answer<()> {
        self.beat(|db| async move { db.fetch_optional::<(i64,)>(&rows::check(db.dialect())).await.map(drop) }).await
    }

    async fn take(&self, wish: &LockWish, time_to_live: Duration, waits: bool) -> Answer<LockAnswer> {
        let life = time_to_live.min(rows::LONGEST_LIFE);
        let row = self.run(|db| async move {
            if db.dialect() == Dialect::Sqlite {
                // Whoever waits must not take the right to write from all others at each look: reading does not.
                let look = rows::look(db.dialect(), &wish.name, &wish.claim);
                if let Some(held) = db.fetch_optional::<TakeRow>(&look).await?.filter(|row| row.0 == 0 && row.3 > 0) {
                    return Ok(Some(held));
                }
            }
            let returning = self.returning(&db).await?;
            let take = rows::take(db.dialect(), returning, wish, life, waits);
            let taken = match returning {
                true => db.fetch_optional::<TakeRow>(&take).await?,
                false => db.execute(&take).await.map(|_| None)?,
            };
            match taken {
                // The row is newer than the statement, which does not see it, and somebody else's: the next one does.
                None if db.dialect() == Dialect::Postgres => Err(Error::Busy(sqlx::Error::RowNotFound)),
                None => db.fetch_optional::<TakeRow>(&rows::look(db.dialect(), &wish.name, &wish.claim)).await,
                taken => Ok(taken),
            }
        });
        Ok(match row.await? {
            Some(row) if row.0 == 1 => LockAnswer::Ours(lease(row)),
            others => LockAnswer::Held(others.map(lease)),
        })
    }

    async fn extend(&self, held: &[(&str, &str)], time_to_live: Duration) -> Answer<Vec<bool>> {
        let life = time_to_live.min(rows::LONGEST_LIFE);
        let mut ours = Vec::with_capacity(held.len());
        for some in held.chunks(AT_ONCE) {
            let there = self.beat(|db| async move {
                let extend = rows::extend(db.dialect(), some, life);
                if db.dialect() != Dialect::MySql {
                    return db.fetch_all::<(String,)>(&extend).await.map(Some);
                }
                if db.execute(&extend).await? == some.len() as u64 {
                    return Ok(None);
                }
                db.fetch_all::<(String,)>(&rows::still_there(db.dialect(), some)).await.map(Some)
            });
            match there.await? {
                None => ours.extend(some.iter().map(|_| true)),
                Some(there) => {
                    let there: std::collections::HashSet<_> = there.into_iter().map(|(claim,)| claim).collect();
                    ours.extend(some.iter().map(|(_, claim)| there.contains(*claim)));
                }
            }
        }
        Ok(ours)
    }

    async fn find(&self, name: &str, claim: &str) -> Answer<Option<LockLease>> {
        let row =
            self.run(|db| async move { db.fetch_optional::<TakeRow>(&rows::look(db.dialect(), name, claim)).await });
        Ok(row.await?.filter(|row| row.0 == 1 && row.3 > 0).map(lease))
    }

    async fn give_back(&self, name: &str, claim: &str) -> Answer<bool> {
        if self.free(name, Some(claim)).await? {
            return Ok(true);
        }
        if !self.hands_on() {
            return Ok(false);
        }
        self.run(|db| async move { db.execute(&rows::leave(name, claim)).await }).await?;
        // It is handed nothing any more; until now it may have been.
        self.free(name, Some(claim)).await
    }

    async fn watch(&self, name: &str, claim: &str) -> Answer<Box<dyn LockWatch>> {
        self.watch_lock(name, claim).await.map_err(told)
    }

    async fn list(&self) -> Answer<Vec<LockRow>> {
        let rows: Vec<ListRow> = self.run(|db| async move { db.fetch_all(&rows::list(db.dialect())).await }).await?;
        let row = |(name, claim, id, uses, since, instance, host, operation, request_id, resource): ListRow| LockRow {
            wish: LockWish { name, claim, instance, host, operation, request_id, resource },
            token: rows::token(id, uses),
            since: micros(since),
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn break_lock(&self, name: &str) -> Answer<bool> {
        self.free(name, None).await
    }

    async fn sweep(&self) -> Answer<()> {
        self.beat(|db| async move { db.execute(&rows::sweep(db.dialect())).await.map(drop) }).await
    }

    fn renew(&self) {
        for connections in [&self.requests, &self.beats] {
            drop(connections.current().take());
        }
    }

    async fn close(&self) {
        self.wakes.close().await;
        self.requests.close().await;
        self.beats.close().await;
    }
}
