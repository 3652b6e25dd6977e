//! A lock that is held: its lease is the session's, and its place must not be taken away.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::CancellationToken;
use tokio::sync::mpsc;

use super::place::{Left, OwnEnd, Place};
use super::provider::Pause;
use super::{Contender, Gone, QueueStore, Session};
use crate::heart::Heart;
use crate::name::bare;
use crate::{Error, HeldLock};

/// How long a lock that was free is held before its place is watched, or up to twice as long: most are given back before,
/// and the service is spared a request.
const WATCH_AFTER: Duration = Duration::from_millis(10);
/// How long after the release the end of our place may take to be told: dropping the wait for it sooner would cost the service
/// another request.
const TOLD: Duration = Duration::from_secs(10);

/// One lock that is held.
#[derive(Debug)]
pub(super) struct QueuedLock {
    /// None once it is being released.
    place: Option<Place>,
    claim: Claim,
    token: Option<u64>,
}

/// What the lock and the task that looks after its place share.
#[derive(Debug, Clone)]
struct Claim {
    session: Session,
    name: Arc<str>,
    /// Cancelled with the session's.
    lost: CancellationToken,
    why: Arc<OnceLock<String>>,
    released: CancellationToken,
}

impl Claim {
    fn lose(&self, why: &str) {
        let _ = self.why.set(why.to_owned());
        self.lost.cancel();
    }

    fn is_lost(&self) -> bool {
        // Looks at the clock; if it is past the session's deadline that cancels ours too.
        self.session.lease.is_lost() || self.lost.is_cancelled()
    }

    fn error(&self) -> Error {
        let reason = self.why.get().map_or_else(|| self.session.lease.reason(), String::as_str).to_owned();
        Error::Lost { name: bare(&self.name).to_owned(), reason }
    }
}

/// A place that is held, for whoever looks after it.
#[derive(Debug)]
pub(super) struct Held {
    claim: Claim,
    own: Contender,
}

impl QueuedLock {
    /// From a place that has nobody before it, and perhaps is watched already.
    pub(super) fn new(place: Place, end: Option<OwnEnd>) -> Self {
        let session = place.session().clone();
        let claim = Claim {
            lost: session.lease.lost().child_token(),
            session,
            name: place.name().into(),
            why: Arc::default(),
            released: CancellationToken::new(),
        };
        let token = place.own().and_then(|own| own.token);
        if let Some(own) = place.own().cloned() {
            let (core, held) = (place.core(), Held { claim: claim.clone(), own });
            match end {
                Some(end) => held.look_after(core.store.clone(), &core.heart, Some(end)),
                // Nobody receives it only when the provider is closed, and the session with it.
                None => drop(core.fresh.send(held)),
            }
        }
        Self { place: Some(place), claim, token }
    }
}

/// Has each lock that was free looked after once it is held for more than a moment. One task for all of them: a timer for each
/// would cost more than the lock.
pub(super) async fn look_after_all(mut fresh: mpsc::UnboundedReceiver<Held>, store: Arc<dyn QueueStore>, heart: Heart) {
    let stopping = heart.stopping();
    let looking = async {
        while let Some(first) = fresh.recv().await {
            let mut aging = vec![first];
            while !aging.is_empty() {
                tokio::time::sleep(WATCH_AFTER).await;
                for held in aging.drain(..).filter(Held::is_kept) {
                    held.look_after(store.clone(), &heart, None);
                }
                // They came during the sleep: the next one makes them old enough.
                aging.extend(std::iter::from_fn(|| fresh.try_recv().ok()).filter(Held::is_kept));
            }
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = looking => {}
    }
}

impl Held {
    fn is_kept(&self) -> bool {
        !self.claim.released.is_cancelled()
    }

    /// Watches it in the background, until it has gone.
    fn look_after(self, store: Arc<dyn QueueStore>, heart: &Heart, end: Option<OwnEnd>) {
        let stopping = heart.stopping();
        heart.spawn("own-place", async move {
            let Self { claim, own } = &self;
            let told = async {
                claim.released.cancelled().await;
                tokio::time::sleep(TOLD).await;
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = claim.lost.cancelled() => {}
                () = watch(&*store, claim, own, end) => {}
                () = told => {}
            }
        });
    }
}

/// Notices that our place was taken away: by an administrator, or by `scoria locks break`.
async fn watch(store: &dyn QueueStore, claim: &Claim, own: &Contender, mut end: Option<OwnEnd>) {
    let mut pause = Pause::new();
    loop {
        let gone = match end.take() {
            Some(end) => end.await,
            None => store.gone(&claim.session, &claim.name, own).await,
        };
        let standing = match gone {
            Ok(Gone::Perhaps) if !claim.released.is_cancelled() => {
                let queue = store.queue(&claim.session, &claim.name).await;
                queue.map(|queue| queue.iter().any(|other| other.node == own.node))
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match standing {
            _ if claim.released.is_cancelled() => return,
            Ok(true) => pause = Pause::new(),
            Ok(false) => return claim.lose("its place was removed at the lock service"),
            Err(_) => {}
        }
        pause.wait().await;
    }
}

#[async_trait]
impl HeldLock for QueuedLock {
    fn token(&self) -> Option<u64> {
        self.token
    }

    fn lost(&self) -> CancellationToken {
        self.claim.lost.clone()
    }

    fn is_lost(&self) -> bool {
        self.claim.is_lost()
    }

    async fn verify(&self) -> Result<(), Error> {
        let found = match &self.place {
            Some(place) if !self.claim.is_lost() => place.find().await?,
            _ => return Err(self.claim.error()),
        };
        if found.is_none() {
            self.claim.lose("its place was removed at the lock service");
        }
        if self.claim.is_lost() { Err(self.claim.error()) } else { Ok(()) }
    }

    async fn release(mut self: Box<Self>) -> Result<(), Error> {
        let lost = self.claim.is_lost();
        self.claim.released.cancel();
        let left = match self.place.take() {
            Some(place) => place.leave().await,
            None => Left::WasGone,
        };
        match left {
            Left::Done if !lost => Ok(()),
            Left::WasGone if !lost => {
                self.claim.lose("its place was removed at the lock service");
                Err(self.claim.error())
            }
            _ => Err(self.claim.error()),
        }
    }
}

impl Drop for QueuedLock {
    fn drop(&mut self) {
        self.claim.released.cancel();
    }
}
