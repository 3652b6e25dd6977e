//! Locks that hang on a connection to a database server: MySQL's `GET_LOCK`, PostgreSQL's advisory locks.
//!
//! One connection per held lock, as in tooz. The server frees the lock when it sees the connection end: at once when the
//! holder's process dies, and after the session time-out when nothing is heard from it any more (a machine that lost its
//! power, a cut link, a stopped process). Each held connection is asked every [`LOOK`] whether it still has its lock, so the
//! lock counts as lost soon after the connection has gone, and before the server may give up on a silent one.

mod holder;
mod server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::CancellationToken;
use tokio::sync::oneshot;

use crate::heart::Heart;
use crate::link::Link;
use crate::name::bare;
use crate::turns::{Turn, Turns};
use crate::{
    Error, Features, Health, HeldLock, Holder, Listing, Mode, Options, Order, Owner, Provider, Scope, WaitPolicy,
};

use holder::{Grip, Grips, Idle};
use server::Probe;
pub(super) use server::{Server, Session};

/// How long the server keeps the connection of a holder that says nothing, unless the URL has `session_timeout`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time between two looks at a held lock. The server frees the lock of a connection that was killed at once, and somebody
/// else can have it, so we have to know soon, whatever `heartbeat` says. To be told by the end of the connection itself would
/// be better yet, but sqlx reads from a connection only while a statement runs.
const LOOK: Duration = Duration::from_millis(200);
/// How long an answer may take that does not have to wait for a lock.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The option of our own that both URLs have: tooz leaves it to the server's configuration, often eight hours.
pub(super) fn session_timeout(url: &crate::url::BackendUrl<'_>) -> Result<Duration, Error> {
    let timeout = url.seconds("session_timeout", SESSION_TIMEOUT)?;
    if timeout.subsec_nanos() == 0 && timeout >= Duration::from_secs(2) {
        return Ok(timeout);
    }
    let value = url.option("session_timeout").unwrap_or_default();
    Err(crate::url::bad_option("session_timeout", &value, "a whole number of seconds from 2 to 86400"))
}

/// The locks of one server.
#[derive(Debug)]
pub(super) struct AdvisoryProvider<S: Server> {
    shared: Arc<Shared<S>>,
    instance: String,
    /// One attempt per name.
    names: Turns,
    /// One attempt per lock of the server: different names may be the same one there.
    keys: Turns,
    grips: Grips,
    /// Ends the connection that is only there to tell our health.
    gone: CancellationToken,
}

/// What the tasks of the locks need.
#[derive(Debug)]
struct Shared<S: Server> {
    server: S,
    link: Link<Probe<S::Session>>,
    heart: Heart,
    idle: Idle<S::Session>,
    /// Time between two beats of the connection that tells how the server is.
    beat: Duration,
    /// Time between two looks at a held lock.
    look: Duration,
}

impl<S: Server> Drop for AdvisoryProvider<S> {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl<S: Server> AdvisoryProvider<S> {
    /// Begins to connect in the background.
    pub(super) fn start(server: S, options: &Options) -> Result<Self, Error> {
        let heart = Heart::start(server.kind())?;
        let timeout = server.session_timeout();
        let beat = options.heartbeat.min(timeout / 4);
        let shared = Arc::new(Shared {
            link: Link::new(server.kind()),
            idle: Idle::new(timeout / 2),
            beat,
            look: beat.min(LOOK),
            heart,
            server,
        });
        let gone = shared.heart.stopping().child_token();
        let (linked, stop, options) = (shared.clone(), gone.clone(), options.clone());
        let instance = options.instance.clone();
        shared.heart.spawn("lock-server", async move {
            let connect = || async {
                let connecting = Probe::connect(&linked.server, linked.beat);
                tokio::time::timeout(ANSWER_WITHIN, connecting).await.unwrap_or_else(|_| Err(silent()))
            };
            linked.link.supervise(&options, stop, connect).await;
        });
        Ok(Self { shared, instance, names: Turns::default(), keys: Turns::default(), grips: Grips::default(), gone })
    }

    /// The server's lock for `key`: the one we hold already under another name, or a new one.
    async fn grip(&self, name: &str, key: &str, wait: WaitPolicy) -> Result<Arc<Grip>, Error> {
        let _joining = self.keys.take_within(key, Mode::Exclusive, wait).await.ok_or_else(|| busy(name))?;
        if let Some(held) = self.grips.held(key) {
            return Ok(held);
        }
        let (answer, answered) = oneshot::channel();
        self.shared.heart.spawn("lock-session", holder::run(self.shared.clone(), name.to_owned(), wait, answer));
        let (lease, wishes) = answered.await.unwrap_or(Err(Error::Closed))?;
        Ok(self.grips.insert(key, lease, wishes))
    }
}

/// Different names for which the server has one lock exclude each other in other processes for no reason, and a Python
/// process that wants two of them at once waits for itself for ever. We do not: inside a process they share the server's
/// lock, each name being held by one task only, and it is given back with the last of them.
#[async_trait]
impl<S: Server> Provider for AdvisoryProvider<S> {
    fn kind(&self) -> &'static str {
        self.shared.server.kind()
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn features(&self) -> Features {
        Features { token: false, order: Order::Own, shared: false, listing: Listing::Own }
    }

    fn health(&self) -> Health {
        self.shared.link.health()
    }

    async fn acquire(&self, name: &str, _: Mode, _: &Owner, wait: WaitPolicy) -> Result<Box<dyn HeldLock>, Error> {
        if self.shared.heart.stopping().is_cancelled() {
            return Err(Error::Closed);
        }
        let key = self.shared.server.key(name)?;
        let turn = self.names.take_within(name, Mode::Exclusive, wait).await.ok_or_else(|| busy(name))?;
        let grip = self.grip(name, &key, wait).await?;
        Ok(Box::new(AdvisoryLock { grip, _turn: turn, name: name.to_owned() }))
    }

    /// The servers know connections, not names.
    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        Ok(Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.shared.heart.spawn("lock-break", async move {
            let breaking = async {
                let mut session = shared.server.connect().await?;
                session.break_lock(&name).await
            };
            let _ = answer.send(tokio::time::timeout(ANSWER_WITHIN, breaking).await.unwrap_or_else(|_| Err(silent())));
        });
        answered.await.unwrap_or(Err(Error::Closed))
    }

    async fn close(&self) {
        self.shared.heart.stop().await;
        self.shared.idle.close().await;
    }
}

fn busy(name: &str) -> Error {
    Error::Busy { name: bare(name).to_owned(), by: String::new() }
}

fn silent() -> Error {
    Error::Unavailable(format!("the server has not answered for {} s", ANSWER_WITHIN.as_secs()))
}

/// A lock that is held. The server's goes before the turn, so that the next in the queue finds it free.
#[derive(Debug)]
struct AdvisoryLock {
    grip: Arc<Grip>,
    _turn: Turn,
    name: String,
}

impl AdvisoryLock {
    fn checked(name: &str, lease: &crate::lease::Lease) -> Result<(), Error> {
        if lease.is_lost() {
            return Err(Error::Lost { name: bare(name).to_owned(), reason: lease.reason().to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl HeldLock for AdvisoryLock {
    fn token(&self) -> Option<u64> {
        None
    }

    fn lost(&self) -> CancellationToken {
        self.grip.lease().lost()
    }

    fn is_lost(&self) -> bool {
        self.grip.lease().is_lost()
    }

    async fn verify(&self) -> Result<(), Error> {
        self.grip.verify().await;
        Self::checked(&self.name, self.grip.lease())
    }

    async fn release(self: Box<Self>) -> Result<(), Error> {
        let Self { grip, _turn, name } = *self;
        let lease = grip.lease().clone();
        match Arc::into_inner(grip) {
            // It was shared with another name, which keeps it.
            None => Self::checked(&name, &lease),
            Some(last) => {
                if last.release().await {
                    return Ok(());
                }
                Self::checked(&name, &lease)
            }
        }
    }
}
