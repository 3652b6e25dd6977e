//! Taking a lock: queue up, see who is in the way, wait for that one alone.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::{CancellationToken, Deadline};
use tokio::sync::mpsc;

use super::held::{Held, QueuedLock, look_after_all};
use super::place::{OwnEnd, Place};
use super::{Gone, QueueStore, Ticket, before, in_the_way};
use crate::heart::Heart;
use crate::name::bare;
use crate::{Error, Features, Health, HeldLock, Holder, Mode, Owner, Provider, Scope, WaitPolicy};

/// How long the service has to answer whoever queues up, however short the caller's deadline: one that has passed means one
/// try.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How often a waiter looks although nothing has woken it: a wake-up that the service forgot must not be for ever.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Waits between tries while the service does not answer: doubled from the first up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The locks of one [`QueueStore`].
#[derive(Debug)]
pub(crate) struct QueuedProvider {
    core: Arc<Core>,
}

/// What locks and background tasks share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) store: Arc<dyn QueueStore>,
    pub(super) heart: Heart,
    /// Locks that were free when they were taken: to be looked after if they are kept.
    pub(super) fresh: mpsc::UnboundedSender<Held>,
    closed: CancellationToken,
}

/// Waits that get longer.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(PAUSES.0)
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSES.1);
    }
}

impl QueuedProvider {
    /// The locks of a store; everything in the background runs on `heart`, which is stopped when the provider is closed.
    pub(crate) fn new(store: Arc<dyn QueueStore>, heart: Heart) -> Self {
        let (fresh, taken) = mpsc::unbounded_channel();
        heart.spawn("own-places", look_after_all(taken, store.clone(), heart.clone()));
        Self { core: Arc::new(Core { store, heart, fresh, closed: CancellationToken::new() }) }
    }
}

impl Core {
    /// Queues up in the current session and waits there. [`Error::Unavailable`] when the session ends or nobody answers:
    /// whoever may wait tries again.
    async fn contend(
        self: &Arc<Self>,
        name: &str,
        ticket: Ticket,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        let session = self.store.session(wait).await?;
        let lost = session.lease.lost();
        let mut place = Place::new(self.clone(), session, name, ticket);
        let waited = tokio::select! {
            biased;
            () = lost.cancelled() => Err(Error::Unavailable("the session ended while waiting".to_owned())),
            waited = wait_for_turn(&mut place, wait) => waited,
        };
        match waited {
            Ok(end) => Ok(Box::new(QueuedLock::new(place, end))),
            Err(error) => {
                if matches!(error, Error::Busy { .. }) {
                    place.leave_soon().await;
                }
                Err(error)
            }
        }
    }

    /// Until it is decided, over as many sessions as that takes.
    async fn wait_for(
        self: Arc<Self>,
        name: String,
        mode: Mode,
        owner: Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        let mut pause = Pause::new();
        loop {
            let error = match self.contend(&name, Ticket::new(mode, &owner), wait).await {
                Err(error @ Error::Unavailable(_)) => error,
                decided => return decided,
            };
            let WaitPolicy::Until(deadline) = wait else { return Err(error) };
            tokio::select! {
                biased;
                () = deadline.wait() => return Err(error),
                () = pause.wait() => tracing::debug!(lock = bare(&name), %error, "queueing up again"),
            }
        }
    }
}

/// Queues up and waits until nobody is in the way. Whoever has waited may have begun to watch its own place.
async fn wait_for_turn(place: &mut Place, wait: WaitPolicy) -> Result<Option<OwnEnd>, Error> {
    let mut queue = place.enter(until(wait)).await?;
    let mut pause = Pause::new();
    let mut own_end = None;
    loop {
        let own = place.own().filter(|own| queue.iter().any(|other| other.node == own.node));
        let own = own.ok_or_else(|| Error::Unavailable("our place in the queue was taken away".to_owned()))?;
        let Some(ahead) = in_the_way(&queue, own) else { return place.still_good().map(|()| own_end) };
        // Nobody comes before us any more: when this one has gone it is our turn, unless our own place went before.
        let last = before(&queue, own).count() == 1;
        if last && own_end.is_none() {
            own_end = Some(place.own_end(own));
        }
        let busy = || Error::Busy { name: bare(place.name()).to_owned(), by: String::new() };
        let WaitPolicy::Until(deadline) = wait else { return Err(busy()) };
        let looked = async {
            let woken = tokio::select! {
                biased;
                ended = ended(&mut own_end) => ended.map(|_| Gone::Perhaps),
                gone = place.gone(ahead) => gone,
                () = tokio::time::sleep(LOOK_AGAIN) => Ok(Gone::Perhaps),
            };
            match woken {
                Ok(Gone::Surely) if last => Ok(None),
                Ok(_) => place.queue().await.map(Some),
                Err(error) => Err(error),
            }
        };
        let looked = tokio::select! {
            biased;
            looked = looked => looked,
            () = deadline.wait() => return Err(busy()),
        };
        match looked {
            Ok(None) => return place.still_good().map(|()| own_end),
            Ok(Some(now)) => {
                queue = now;
                pause = Pause::new();
            }
            // Our place stands as long as the session does: only the look failed.
            Err(Error::Unavailable(_)) => tokio::select! {
                biased;
                () = deadline.wait() => return Err(busy()),
                () = pause.wait() => {}
            },
            Err(error) => return Err(error),
        }
    }
}

/// The end of our own place, where that is watched; then it is watched no longer.
async fn ended(own_end: &mut Option<OwnEnd>) -> Result<Gone, Error> {
    let Some(end) = own_end else { return pending().await };
    let ended = end.await;
    *own_end = None;
    ended
}

/// Until when the service has to have answered whoever queues up.
fn until(wait: WaitPolicy) -> Deadline {
    match wait {
        WaitPolicy::Until(deadline) if deadline.remaining().is_none_or(|left| left > FIRST_ANSWER) => deadline,
        _ => Deadline::after(FIRST_ANSWER),
    }
}

#[async_trait]
impl Provider for QueuedProvider {
    fn kind(&self) -> &'static str {
        self.core.store.kind()
    }

    fn instance(&self) -> &str {
        self.core.store.instance()
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn features(&self) -> Features {
        self.core.store.features()
    }

    fn health(&self) -> Health {
        self.core.store.health()
    }

    async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        let wish = self.core.clone().wait_for(name.to_owned(), mode, owner.clone(), wait);
        let granted = async {
            if !self.core.store.answers_on_heart() {
                return wish.await;
            }
            self.core.heart.run("lock-wish", wish).await.unwrap_or(Err(Error::Closed))
        };
        tokio::select! {
            biased;
            () = self.core.closed.cancelled() => Err(Error::Closed),
            granted = granted => granted,
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        self.core.store.list().await
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        self.core.store.break_lock(name).await
    }

    async fn close(&self) {
        self.core.closed.cancel();
        self.core.store.close().await;
        self.core.heart.stop().await;
    }
}
