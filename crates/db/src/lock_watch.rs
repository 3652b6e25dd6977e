//! Waiting for a lock: PostgreSQL tells to whom it was handed on, the others are asked whether it is free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use scoria_model::{LockTableError, LockWatch};
use scoria_runtime::Tasks;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::lock_line::{self as line, CHANNEL, HandedOn};
use crate::lock_rows as rows;
use crate::pool::Pool;
use crate::{Database, DatabaseLocks, Dialect, Result};

/// First and longest pause between two looks at a row: a statement by primary key. SQLite's is a read of a local file.
const MYSQL_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
const SQLITE_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));

/// How long a new watch waits for PostgreSQL to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(5);
/// Pause before listening is tried again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// The longest that a waiter of another process does not look; nothing where it is told.
pub(crate) fn longest_pause(dialect: Dialect) -> Duration {
    match dialect {
        Dialect::Postgres => Duration::ZERO,
        Dialect::MySql => MYSQL_PAUSES.1,
        Dialect::Sqlite => SQLITE_PAUSES.1,
    }
}

/// The latest of a lock: to whom it was handed on, or nothing, if everybody has to look.
type News = Option<HandedOn>;

/// Who waits in this process, by name of the lock.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    names: Mutex<HashMap<String, watch::Sender<News>>>,
    /// PostgreSQL: the task that listens, and whether it does.
    listening: Mutex<Option<watch::Receiver<bool>>>,
    tasks: Tasks,
}

impl Wakes {
    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<News>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes this process' own waiters for a lock.
    pub(crate) fn wake(&self, name: &str) {
        self.tell(name, None);
    }

    fn tell(&self, name: &str, news: News) {
        if let Some(sender) = self.names().get(name) {
            sender.send_replace(news);
        }
    }

    fn wake_all(&self) {
        self.names().values().for_each(|sender| {
            sender.send_replace(None);
        });
    }

    fn subscribe(self: &Arc<Self>, name: &str, claim: &str) -> Woken {
        let mut names = self.names();
        let receiver = names.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        Woken { wakes: self.clone(), name: name.to_owned(), claim: claim.to_owned(), receiver }
    }

    pub(crate) async fn close(&self) {
        self.tasks.shutdown().await;
    }

    /// The task that listens; it is started by the first who waits.
    fn listening(self: &Arc<Self>, database: &Database) -> watch::Receiver<bool> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (sender, receiver) = watch::channel(false);
            let (wakes, database, stop) = (self.clone(), database.clone(), self.tasks.stop_token());
            self.tasks.spawn("lock-notifications", async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = wakes.listen(&database, &sender) => {}
                }
            });
            receiver
        };
        listening.get_or_insert_with(start).clone()
    }

    async fn listen(&self, database: &Database, listening: &watch::Sender<bool>) {
        let Pool::Postgres(pool) = &database.inner.pool else { return };
        loop {
            let heard = async {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.eager_reconnect(false);
                listener.listen(CHANNEL).await?;
                // What was said before was not heard.
                self.wake_all();
                listening.send_replace(true);
                while let Some(notification) = listener.try_recv().await? {
                    if let Some((name, handed_on)) = line::told(notification.payload()) {
                        self.tell(name, Some(handed_on));
                    }
                }
                Ok::<_, sqlx::Error>(())
            };
            let outcome = heard.await;
            listening.send_replace(false);
            if let Err(error) = outcome {
                tracing::debug!(%error, "notifications of locks are not heard, waiters look for themselves");
            }
            sleep(LISTEN_AGAIN).await;
        }
    }
}

/// Somebody of this process who waits.
#[derive(Debug)]
struct Woken {
    wakes: Arc<Wakes>,
    name: String,
    claim: String,
    receiver: watch::Receiver<News>,
}

impl Drop for Woken {
    fn drop(&mut self) {
        let mut names = self.wakes.names();
        // Ours is still counted.
        if names.get(&self.name).is_some_and(|sender| sender.receiver_count() <= 1) {
            names.remove(&self.name);
        }
    }
}

#[async_trait]
impl LockWatch for Woken {
    async fn freed(&mut self) -> std::result::Result<Option<u64>, LockTableError> {
        let concerns_us = |news: &News| news.as_ref().is_none_or(|handed_on| handed_on.claim == self.claim);
        loop {
            // The sender lives as long as we are in the list.
            let _ = self.receiver.changed().await;
            let news = self.receiver.borrow_and_update();
            if concerns_us(&news) {
                return Ok(news.as_ref().map(|handed_on| handed_on.token));
            }
        }
    }
}

/// Looks at the row again and again.
struct Looking {
    database: Database,
    woken: Woken,
    pauses: (Duration, Duration),
}

impl std::fmt::Debug for Looking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looking").field("woken", &self.woken).finish_non_exhaustive()
    }
}

#[async_trait]
impl LockWatch for Looking {
    async fn freed(&mut self) -> std::result::Result<Option<u64>, LockTableError> {
        let (mut pause, longest) = self.pauses;
        loop {
            tokio::select! {
                biased;
                _ = self.woken.receiver.changed() => return Ok(None),
                // Never the same twice: whoever looks in step with those who take and give back finds it free every time, or never.
                () = sleep(rand::rng().random_range(pause / 2..=pause)) => {}
            }
            let look = rows::is_held(self.database.dialect(), &self.woken.name);
            match self.database.fetch_optional::<(i64,)>(&look).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(LockTableError::Unavailable(error.to_string())),
            }
            pause = (pause * 5 / 4).min(longest);
        }
    }
}

impl DatabaseLocks {
    pub(crate) async fn watch_lock(&self, name: &str, claim: &str) -> Result<Box<dyn LockWatch>> {
        let database = self.database()?;
        let pauses = match database.dialect() {
            Dialect::Postgres => {
                let mut listening = self.wakes.listening(&database);
                // Without notifications waiters look for themselves, now and then.
                let _ = timeout(LISTENS_WITHIN, listening.wait_for(|listens| *listens)).await;
                return Ok(Box::new(self.wakes.subscribe(name, claim)));
            }
            Dialect::MySql => MYSQL_PAUSES,
            Dialect::Sqlite => SQLITE_PAUSES,
        };
        Ok(Box::new(Looking { database, woken: self.wakes.subscribe(name, claim), pauses }))
    }
}
