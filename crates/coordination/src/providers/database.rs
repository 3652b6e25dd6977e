//! `database://[?lock_timeout=seconds]`: leases in a table of the service's own database. No service of its own is needed.
//!
//! A lock is a row with an end on the database's clock ([`scoria_model::LockTable`]); taking, extending and giving back are
//! compare-and-swaps. Several nodes of one database (Galera) have several clocks: they have to agree much better than
//! within `lock_timeout`, and none of them may be set forward by as much.
//!
//! Where the table hands locks on, one waiter of each instance stands in line for a lock there; the others of the instance wait
//! behind it. Whoever gives the lock back makes it the first one's, which is told so.
//!
//! Python peers know nothing of it: it is for clusters of Scoria alone. There is no shared mode: readers would have to be
//! counted in rows of their own, and a writer that looks for them in a snapshot would not see the one that comes at the
//! same moment.

mod waiting;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_model::{LockAnswer, LockTable, LockTableError, LockWatch, LockWish};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::leased::{Claim, LeaseStore, LeasedProvider, Take, Taken};
use crate::heart::Heart;
use crate::link::{Connection, Link};
use crate::name::bare;
use crate::url::{BackendUrl, bad_option};
use crate::{Error, Features, Health, Holder, Listing, Mode, Options, Order, Owner, Provider, Scope, WaitPolicy};
use waiting::Waiting;

/// How long a lock lives without being extended, unless the URL says otherwise.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The table keeps rows of freed locks for longer than this, which keeps the fencing tokens rising.
const LONGEST_LOCK_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a missed wake-up is made good for, and a place in the line kept.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows that nobody needs are removed, which also tells how the database is.
const SWEEP: Duration = Duration::from_secs(15);
/// A waiter that was woken has so long to look before it is woken again.
const WAKE_PAUSE: Duration = Duration::from_millis(5);

/// Opens the lock service over the table that the service handed over. When the database answers, the table has to be there.
pub(super) async fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    if !url.authority.is_empty() || !matches!(url.path, "" | "/") {
        return Err(Error::Config(
            "database:// names no host: it is the database of [database] connection. Write database:// or \
             database://?lock_timeout=30"
                .to_owned(),
        ));
    }
    url.warn_of_unknown(&["lock_timeout"]);
    let time_to_live = url.seconds("lock_timeout", LOCK_TIMEOUT)?;
    if time_to_live < Duration::from_secs(1) || time_to_live > LONGEST_LOCK_TIMEOUT {
        let value = url.option("lock_timeout").unwrap_or_default();
        return Err(bad_option("lock_timeout", &value, "a number of seconds from 1 to 600"));
    }
    let Some(table) = options.lock_table.clone() else {
        return Err(Error::Config("database:// is only known to a service that has a database".to_owned()));
    };
    let heart = Heart::start("database")?;
    let store = Arc::new(TableStore {
        link: Link::new("database"),
        failures: watch::Sender::new(String::new()),
        instance: options.instance.clone(),
        host: nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()),
        time_to_live,
        table,
        waiting: Arc::new(Waiting::new(time_to_live)),
        heart: heart.clone(),
        calls: heart.branch(),
    });
    if let Err(error @ Error::Config(_)) = store.beat(|table| async move { table.check().await }).await {
        heart.stop().await;
        return Err(error);
    }
    let (linked, stop, options) = (store.clone(), heart.stopping(), options.clone());
    let provider = LeasedProvider::new(store, &heart, &options);
    heart.spawn("lock-table", async move {
        let connect = || async {
            let failures = linked.failures.subscribe();
            linked.beat(|table| async move { table.check().await }).await?;
            Ok(Reached { table: linked.table.clone(), failures, answer_within: linked.answer_within() })
        };
        linked.link.supervise(&options, stop, connect).await;
    });
    Ok(Arc::new(provider))
}

/// The table as a store of leases. Calls run where the connections for them live: beats and looks on the heart's thread, those
/// of callers on their executor.
#[derive(Debug)]
struct TableStore {
    table: Arc<dyn LockTable>,
    waiting: Arc<Waiting>,
    instance: String,
    host: Option<String>,
    time_to_live: Duration,
    heart: Heart,
    /// Requests of callers. They end by themselves.
    calls: Heart,
    link: Link<Reached>,
    /// The latest reason why the database could not be reached.
    failures: watch::Sender<String>,
}

/// A database that answers, until it does not.
#[derive(Debug)]
struct Reached {
    table: Arc<dyn LockTable>,
    failures: watch::Receiver<String>,
    answer_within: Duration,
}

impl Connection for Reached {
    async fn ended(&self) -> String {
        let mut failures = self.failures.clone();
        loop {
            tokio::select! {
                biased;
                // The sender lives as long as the store.
                _ = failures.changed() => return failures.borrow().clone(),
                () = sleep(SWEEP) => {}
            }
            match timeout(self.answer_within, self.table.sweep()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => {
                    self.table.renew();
                    return silent(self.answer_within);
                }
            }
        }
    }
}

fn silent(limit: Duration) -> String {
    format!("the database has not answered for {:.1} s", limit.as_secs_f64())
}

impl TableStore {
    fn answer_within(&self) -> Duration {
        self.time_to_live / 3
    }

    /// Runs a call beside the callers.
    async fn ask<T, F>(&self, call: impl FnOnce(Arc<dyn LockTable>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LockTableError>> + Send + 'static,
    {
        let (call, answered) = self.call(call);
        self.calls.spawn_beside_callers("lock-table-call", call);
        self.answer(answered).await
    }

    /// Runs a call on the heart's thread.
    async fn beat<T, F>(&self, call: impl FnOnce(Arc<dyn LockTable>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LockTableError>> + Send + 'static,
    {
        let (call, answered) = self.call(call);
        self.heart.spawn("lock-table-beat", call);
        self.answer(answered).await
    }

    /// A call that goes on when nobody waits for it any more; what takes too long costs the connections, which nobody can tell from
    /// dead ones.
    fn call<T, F>(
        &self,
        call: impl FnOnce(Arc<dyn LockTable>) -> F,
    ) -> (impl Future<Output = ()> + Send + 'static, oneshot::Receiver<Result<T, LockTableError>>)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LockTableError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (call, limit, table) = (call(self.table.clone()), self.answer_within(), self.table.clone());
        let failures = self.failures.clone();
        let call = async move {
            let outcome = timeout(limit, call).await.unwrap_or_else(|_| {
                table.renew();
                Err(LockTableError::Unavailable(silent(limit)))
            });
            if let Err(LockTableError::Unavailable(why)) = &outcome {
                failures.send_replace(why.clone());
            }
            let _ = answer.send(outcome);
        };
        (call, answered)
    }

    async fn answer<T>(&self, answered: oneshot::Receiver<Result<T, LockTableError>>) -> Result<T, Error> {
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(LockTableError::Refused(why))) => Err(Error::Config(why)),
            Ok(Err(LockTableError::Unavailable(why))) => Err(Error::Unavailable(why)),
            Err(_) => Err(Error::Unavailable("the thread of the locks has ended".to_owned())),
        }
    }
}

/// What the table's trait borrows, a call on another thread has to own.
fn own(claim: &Claim) -> (String, String) {
    (claim.name.clone(), claim.id.clone())
}

#[async_trait]
impl LeaseStore for TableStore {
    fn kind(&self) -> &'static str {
        "database"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn scope(&self) -> Scope {
        if self.table.is_local() { Scope::Node } else { Scope::Cluster }
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::Own, shared: false, listing: Listing::Holders }
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    async fn ready(&self, wait: WaitPolicy) -> Result<(), Error> {
        self.link.ready(wait).await.map(drop)
    }

    fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    fn poll_interval(&self) -> Duration {
        // What a waiter is handed counts from its last look, so that must not be long ago.
        LOOK.min(self.time_to_live / 3)
    }

    fn lines_up(&self) -> bool {
        self.table.hands_on()
    }

    fn wakes_within(&self) -> Duration {
        self.table.wakes_within()
    }

    fn counts_holders(&self) -> bool {
        true
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let wish = LockWish {
            name: claim.name.clone(),
            claim: claim.id.clone(),
            instance: self.instance.clone(),
            host: self.host.clone(),
            operation: claim.owner.operation.clone(),
            request_id: claim.owner.request_id.clone(),
            resource: claim.owner.resource.clone(),
        };
        let (sent, life) = (Instant::now(), self.time_to_live);
        let waits = self.waiting.looks(&claim.id, sent);
        match self.ask(|table| async move { table.take(&wish, life, waits).await }).await? {
            LockAnswer::Ours(lease) => {
                self.waiting.forget(&claim.id);
                Ok(Take::Taken(Taken { token: Some(lease.token), deadline: sent + lease.remaining }))
            }
            LockAnswer::Held(Some(others)) => {
                self.waiting.looked(&claim.id, sent, others.token);
                Ok(Take::Held(Some(others.remaining)))
            }
            LockAnswer::Held(None) => Ok(Take::Held(None)),
        }
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let (sent, life) = (Instant::now(), self.time_to_live);
        let claims = claims.to_vec();
        let call = |table: Arc<dyn LockTable>| async move {
            let held: Vec<_> = claims.iter().map(|claim| (claim.name.as_str(), claim.id.as_str())).collect();
            table.extend(&held, life).await
        };
        let ours = self.beat(call).await?;
        Ok(ours.into_iter().map(|ours| ours.then_some(sent + life)).collect())
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let ((name, id), sent) = (own(claim), Instant::now());
        let lease = self.ask(|table| async move { table.find(&name, &id).await }).await?;
        Ok(lease.map(|lease| Taken { token: Some(lease.token), deadline: sent + lease.remaining }))
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        let (name, id) = own(claim);
        self.waiting.forget(&id);
        self.ask(|table| async move { table.give_back(&name, &id).await }).await
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        let (name, id) = own(claim);
        let eye = self.ask(|table| async move { table.watch(&name, &id).await }).await?;
        if self.table.hands_on() {
            self.waiting.wait(&claim.id);
        }
        let (wake, woken) = watch::channel(());
        let (stop, waiting, id) = (self.heart.stopping(), self.waiting.clone(), claim.id.clone());
        self.heart.spawn_beside_callers("lock-watch", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = wake.closed() => {}
                () = tell(eye, &waiting, &id, &wake) => {}
            }
        });
        Ok(woken)
    }

    fn handed_on(&self, claim: &Claim) -> Option<Taken> {
        self.waiting.handed_on(&claim.id)
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        let rows = self.ask(|table| async move { table.list().await }).await?;
        let holder = |row: scoria_model::LockRow| Holder {
            name: bare(&row.wish.name).to_owned(),
            mode: Mode::Exclusive,
            held: true,
            instance: row.wish.instance,
            host: row.wish.host,
            owner: Owner {
                operation: row.wish.operation,
                request_id: row.wish.request_id,
                resource: row.wish.resource,
            },
            since: Some(row.since),
            token: Some(row.token),
        };
        Ok(rows.into_iter().map(holder).collect())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.ask(|table| async move { table.break_lock(&name).await }).await
    }

    async fn settled(&self) {
        self.calls.stop().await;
    }

    async fn close(&self) {
        self.heart.stop().await;
        self.table.close().await;
    }
}

/// Ends when the lock cannot be watched any longer.
async fn tell(mut eye: Box<dyn LockWatch>, waiting: &Waiting, claim: &str, wake: &watch::Sender<()>) {
    while let Ok(token) = eye.freed().await {
        waiting.told(claim, token);
        wake.send_replace(());
        sleep(WAKE_PAUSE).await;
    }
}
