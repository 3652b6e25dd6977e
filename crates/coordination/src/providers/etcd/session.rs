//! The session of this process: one lease, on which everything it holds hangs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::endpoints::{Endpoints, Failure, Watch};
use super::guard::Guard;
use super::removals::Removals;
use super::settings::Settings;
use crate::heart::Heart;
use crate::lease::Lease;
use crate::link::{Connection, Link};
use crate::{Error, Health, Options, WaitPolicy};

/// How long a lease may stay behind at etcd because its end was not confirmed, in lifetimes.
const RETIRED_AFTER: u32 = 3;

/// After how long a beat is given up, and the session is in trouble.
const LONGEST_BEAT: Duration = Duration::from_secs(5);

/// What both formats need of etcd: a session that is made anew for ever, and requests in it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) kind: &'static str,
    pub(super) instance: String,
    pub(super) settings: Arc<Settings>,
    /// For callers; the session has connections of its own.
    pub(super) endpoints: Endpoints,
    pub(super) removals: Arc<Removals>,
    link: Arc<Link<EtcdSession>>,
    /// Leases that may be at etcd.
    leases: Mutex<BTreeSet<i64>>,
    /// Where the session lives.
    heart: Heart,
}

/// A lease of etcd that is kept alive.
#[derive(Debug)]
pub(super) struct EtcdSession {
    kind: &'static str,
    /// Rises with each session.
    pub(super) generation: u64,
    /// Its id at etcd.
    pub(super) id: i64,
    /// Good until a margin before etcd may end it.
    pub(super) lease: Lease,
    pub(super) guard: Guard,
    time_to_live: Duration,
    /// When the last confirmed request was sent.
    confirmed: Mutex<Instant>,
    /// Why beats fail just now.
    trouble: watch::Sender<Option<String>>,
    heartbeat: Duration,
    /// Over connections that no busy caller holds up.
    pub(super) endpoints: Endpoints,
    removals: Arc<Removals>,
    stream: Mutex<Option<Watch>>,
}

/// Keys of one format.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// What the removals of are followed.
    pub(super) watched: String,
    /// What each session's own key begins with.
    pub(super) sessions: String,
}

impl Client {
    /// Starts to connect, on `heart`.
    pub(super) fn start(
        kind: &'static str,
        settings: Settings,
        options: &Options,
        keys: Keys,
        heart: &Heart,
    ) -> Result<Arc<Self>, Error> {
        let settings = Arc::new(settings);
        let endpoints = Endpoints::new(settings.clone(), heart.callers());
        let client = Arc::new(Self {
            kind,
            instance: options.instance.clone(),
            settings,
            removals: Arc::new(Removals::new(&keys.watched)),
            link: Arc::new(Link::new(kind)),
            leases: Mutex::default(),
            heart: heart.branch(),
            endpoints,
        });
        let (of_it, options) = (client.clone(), options.clone());
        client.heart.spawn("etcd-session", async move {
            let making = Making {
                endpoints: of_it.endpoints.with_own_connections(&Handle::current()),
                client: of_it,
                sessions: keys.sessions,
                generation: AtomicU64::new(0),
                heartbeat: options.heartbeat,
            };
            let client = &making.client;
            client.link.supervise(&options, client.heart.stopping(), || making.session()).await;
        });
        Ok(client)
    }

    /// How the connection is: a session that etcd does not confirm just now is no good for new locks.
    pub(super) fn health(&self) -> Health {
        match self.link.current() {
            Err(_) => self.link.health(),
            Ok(session) => match &*session.trouble.borrow() {
                Some(why) => Health::Down(why.clone()),
                None => Health::Up,
            },
        }
    }

    /// A session that is being confirmed, waiting for it if one may.
    pub(super) async fn session(&self, wait: WaitPolicy) -> Result<Arc<EtcdSession>, Error> {
        loop {
            let session = self.link.ready(wait).await?;
            let mut trouble = session.trouble.subscribe();
            let Some(why) = trouble.borrow_and_update().clone() else { return Ok(session) };
            let WaitPolicy::Until(deadline) = wait else { return Err(Error::Unavailable(why)) };
            tokio::select! {
                biased;
                () = deadline.wait() => return Err(Error::Unavailable(why)),
                _ = trouble.changed() => {}
                () = session.lease.expired() => tokio::task::yield_now().await,
            }
        }
    }

    /// The session, however it is.
    pub(super) fn current(&self) -> Result<Arc<EtcdSession>, Error> {
        self.link.current()
    }

    /// Ends the session, at etcd too if that answers.
    pub(super) async fn close(&self) {
        if let Ok(session) = self.link.current() {
            session.lease.lose("the lock service was closed");
        }
        self.heart.stop().await;
        let leases: Vec<_> = self.leases().iter().copied().collect();
        let ended = join_all(leases.into_iter().map(|id| self.endpoints.revoke(id))).await;
        if let Some(failure) = ended.into_iter().find_map(Result::err) {
            let seconds = self.settings.time_to_live.as_secs();
            tracing::warn!(%failure, "the session with etcd could not be ended: it goes after {seconds} s");
        }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes sessions.
struct Making {
    client: Arc<Client>,
    endpoints: Endpoints,
    /// What the keys of sessions begin with.
    sessions: String,
    generation: AtomicU64,
    heartbeat: Duration,
}

impl Making {
    async fn session(&self) -> Result<EtcdSession, Error> {
        // An id of our own choice: a lease whose grant was not answered can be ended all the same.
        let id = random_id();
        self.client.leases().insert(id);
        let sent = Instant::now();
        let made = match self.endpoints.grant(id, self.client.settings.time_to_live).await {
            Ok(time_to_live) => self.equipped(id).await.map(|equipment| (time_to_live, equipment)),
            Err(failure @ Failure::NotDone(_)) => {
                self.client.leases().remove(&id);
                return Err(failure.into());
            }
            Err(failure) => Err(failure),
        };
        let (time_to_live, (guard, stream)) = match made {
            Ok(made) => made,
            Err(failure) => {
                self.spawn("etcd-lease-end", end_lease(self.client.clone(), self.endpoints.clone(), id));
                return Err(Error::from(failure));
            }
        };
        let session = EtcdSession {
            kind: self.client.kind,
            generation: self.generation.fetch_add(1, Ordering::SeqCst) + 1,
            id,
            lease: Lease::until(sent + time_to_live - margin(time_to_live)),
            guard,
            time_to_live,
            confirmed: Mutex::new(sent),
            trouble: watch::Sender::new(None),
            heartbeat: self.heartbeat,
            endpoints: self.endpoints.clone(),
            removals: self.client.removals.clone(),
            stream: Mutex::new(Some(stream)),
        };
        self.spawn("etcd-session-end", outlive(self.client.clone(), &session));
        Ok(session)
    }

    /// What a session has beside its lease.
    async fn equipped(&self, id: i64) -> Result<(Guard, Watch), Failure> {
        let key = format!("{}{id:x}", self.sessions);
        let guard = Guard::make(&self.endpoints, key, &self.client.instance, id).await?;
        Ok((guard, self.client.removals.begin(&self.endpoints).await?))
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.client.heart.stopping();
        self.client.heart.spawn(name, async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = future => {}
            }
        });
    }
}

/// Tells everybody of the end of a session, and sees to it that nothing of it stays at etcd.
fn outlive(client: Arc<Client>, session: &EtcdSession) -> impl Future<Output = ()> + Send + 'static {
    let (lease, id) = (session.lease.clone(), session.id);
    let (time_to_live, endpoints) = (session.time_to_live, session.endpoints.clone());
    async move {
        lease.expired().await;
        client.removals.wake_all();
        // Its holders are to have the time that the margin promised them.
        tokio::time::sleep_until(lease.deadline() + margin(time_to_live)).await;
        end_lease(client, endpoints, id).await;
    }
}

/// Ends a lease that nobody uses any more: until etcd has confirmed it, or has surely ended it by itself. (A server that was
/// restarted gives every lease its full time again.)
async fn end_lease(client: Arc<Client>, endpoints: Endpoints, id: i64) {
    let time_to_live = client.settings.time_to_live;
    let until = Instant::now() + time_to_live * RETIRED_AFTER;
    while let Err(failure) = endpoints.revoke(id).await {
        if Instant::now() > until {
            tracing::debug!(%failure, lease = id, "the end of a lease was not confirmed");
            break;
        }
        tokio::time::sleep(time_to_live / 4).await;
    }
    client.leases().remove(&id);
}

impl EtcdSession {
    /// When etcd may give to others what hangs on it. No margin is taken off.
    pub(super) fn deadline(&self) -> Instant {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) + self.time_to_live
    }

    /// An error once it is over.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.lease.is_lost() {
            return Err(Error::Unavailable(format!("the session with etcd ended: {}", self.lease.reason())));
        }
        Ok(())
    }

    /// What a request in this session failed with. Without its lease the session is over.
    pub(super) fn failed(&self, failure: Failure) -> Error {
        if matches!(failure, Failure::NoLease) {
            self.lease.lose("etcd has ended the session's lease");
        }
        failure.into()
    }

    /// Keeps the lease alive until it is lost.
    async fn beats(&self) {
        let period = self.heartbeat.min(self.time_to_live / 3);
        let mut wait = period;
        loop {
            tokio::time::sleep(wait).await;
            wait = period;
            let patience = (self.time_to_live / 3).min(LONGEST_BEAT);
            let beat = tokio::time::timeout(patience, self.beat()).await;
            match beat.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok((sent, Some(time_to_live))) => {
                    if !self.lease.renew(sent + time_to_live - margin(time_to_live)) {
                        return;
                    }
                    let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
                    *confirmed = sent.max(*confirmed);
                    drop(confirmed);
                    self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                }
                Ok((_, None)) => return self.lease.lose("etcd has ended the session's lease"),
                Err(why) => {
                    wait = period / 4;
                    if self.trouble.borrow().is_none() {
                        tracing::warn!(reason = why, "etcd does not confirm the session");
                    }
                    self.trouble.send_replace(Some(why));
                }
            }
        }
    }

    /// One beat: asks the current endpoint, and a further one whenever there is no answer for some time or an error. When the
    /// request that was answered was sent, and for how long the lease then lives.
    async fn beat(&self) -> Result<(Instant, Option<Duration>), String> {
        let patience = (self.time_to_live / 6).min(Duration::from_secs(1));
        let (first, count) = (self.endpoints.first(), self.endpoints.count());
        // Once more than there are endpoints: it may be only the connection that is dead.
        let mut indices = (first..=first + count).map(|n| (n % count, n == first + count));
        let mut asked = FuturesUnordered::new();
        let mut last = String::new();
        loop {
            let more = indices.next();
            if let Some((index, again)) = more {
                if again {
                    self.endpoints.reconnect(index);
                }
                asked.push(async move {
                    let sent = Instant::now();
                    (index, sent, self.endpoints.keep_alive(self.id, self.guard.key(), index).await)
                });
            } else if asked.is_empty() {
                return Err(last);
            }
            let wait = async {
                match more {
                    Some(_) => tokio::time::sleep(patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((index, sent, answer)) = asked.next() => match answer {
                    Ok(time_to_live) => {
                        if index != first {
                            self.endpoints.prefer(index);
                        }
                        return Ok((sent, time_to_live));
                    }
                    Err(why) => last = why,
                },
                () = wait => {}
            }
        }
    }
}

impl Connection for EtcdSession {
    /// Beats, and follows the removals; both end with the lease.
    async fn ended(&self) -> String {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let following = async {
            if let Some(stream) = stream {
                self.removals.follow(self.kind, &self.endpoints, stream).await;
            }
        };
        let living = async { tokio::join!(self.beats(), following) };
        tokio::select! {
            biased;
            () = self.lease.expired() => {}
            _ = living => {}
        }
        self.lease.lose("the session ended");
        format!("the session with etcd ended: {}", self.lease.reason())
    }
}

/// How long before etcd may end a lease it counts as lost: time to stop what is being done under its locks.
fn margin(time_to_live: Duration) -> Duration {
    time_to_live / 4
}

/// Positive, and new for each lease of the cluster.
fn random_id() -> i64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    ((high ^ low) >> 1).max(1).cast_signed()
}
