//! Somebody who wants a lock: tries, waits, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use scoria_runtime::Deadline;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::name::bare;
use crate::providers::LEAVE_WITHIN;
use crate::providers::courtesy::Courtesy;
use crate::turns::Turn;
use crate::{Error, Owner, WaitPolicy};

use super::keeper::{AGAIN, Keeper};
use super::lock::LeasedLock;
use super::{Claim, Take, Taken};

/// The longest wait after a request that failed.
const LONGEST_AGAIN: Duration = Duration::from_secs(1);

/// A try has at least so long, however near the caller's deadline is.
const ONE_TRY: Duration = Duration::from_secs(1);

/// What may be at the service in the name of a claim. It is withdrawn in the background when this is dropped.
#[derive(Debug)]
pub(super) struct Footprint {
    pub(super) keeper: Arc<Keeper>,
    pub(super) courtesy: Arc<Courtesy>,
    pub(super) claim: Arc<Claim>,
    pub(super) serial: u64,
    pub(super) trace: Trace,
    turn: Option<Turn>,
}

/// How much of a claim may be at the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trace {
    Nothing,
    /// Something is, and no request is under way.
    Known,
    /// Nobody knows: an answer has not come.
    Unknown,
}

impl Footprint {
    /// Whoever gives up stands in nobody's way any more when it is told so, not even in its own.
    async fn leave_soon(&mut self) {
        if let Some(left) = self.withdraw() {
            let _ = tokio::time::timeout(LEAVE_WITHIN, left).await;
        }
    }

    /// Leaves in the background. The receiver ends with the first try; `None` when nothing is there.
    fn withdraw(&mut self) -> Option<oneshot::Receiver<()>> {
        self.keeper.forget(self.serial);
        let trace = std::mem::replace(&mut self.trace, Trace::Nothing);
        (trace > Trace::Nothing)
            .then(|| self.keeper.withdraw(self.claim.clone(), self.turn.take(), trace == Trace::Known))
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        drop(self.withdraw());
    }
}

/// A wish for one lock.
#[derive(Debug)]
pub(super) struct Wish {
    footprint: Footprint,
    /// Once it waits.
    wakes: Option<watch::Receiver<()>>,
}

impl Wish {
    pub(super) fn new(
        keeper: &Arc<Keeper>,
        courtesy: &Arc<Courtesy>,
        turn: Option<Turn>,
        name: &str,
        owner: &Owner,
    ) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let claim = Claim { name: name.to_owned(), id, owner: owner.clone(), since: Instant::now() };
        let claim = Arc::new(claim);
        let serial = keeper.enter(&claim);
        let (keeper, courtesy) = (keeper.clone(), courtesy.clone());
        let footprint = Footprint { keeper, courtesy, claim, serial, trace: Trace::Nothing, turn };
        Self { footprint, wakes: None }
    }

    /// Tries until it is granted or may not wait any longer. The inner error is the turn: the lock was had,
    /// but that is not sure any more.
    pub(super) async fn granted(mut self, wait: WaitPolicy) -> Result<Result<LeasedLock, Option<Turn>>, Error> {
        let mut again = AGAIN;
        loop {
            self.footprint.keeper.store.ready(wait).await?;
            let deadline = match wait {
                WaitPolicy::No => None,
                WaitPolicy::Until(deadline) => Some(deadline).filter(|deadline| !deadline.has_passed()),
            };
            let doubts = self.footprint.keeper.doubts();
            match (self.attempt(wait).await, deadline) {
                (Ok(Take::Taken(taken)), _) => return self.hold(taken, doubts),
                (Ok(Take::Held(_)), None) => {
                    self.footprint.leave_soon().await;
                    let name = bare(&self.footprint.claim.name).to_owned();
                    return Err(Error::Busy { name, by: String::new() });
                }
                (Ok(Take::Held(look)), Some(deadline)) => {
                    again = AGAIN;
                    if let Some(taken) = self.wait(look, deadline).await? {
                        return self.hold(taken, doubts);
                    }
                }
                (Err(Error::Unavailable(_)), Some(deadline)) => {
                    pause(again, deadline).await;
                    again = (again * 2).min(LONGEST_AGAIN);
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// One try. After an answer that never came we first look whether the lock is ours already.
    async fn attempt(&mut self, wait: WaitPolicy) -> Result<Take, Error> {
        let Footprint { keeper, claim, trace, .. } = &mut self.footprint;
        let most = match wait {
            WaitPolicy::Until(deadline) => deadline.remaining().map_or(Duration::MAX, |left| left.max(ONE_TRY)),
            WaitPolicy::No => Duration::MAX,
        };
        if *trace == Trace::Unknown
            && let Some(taken) = keeper.ask_within(most, keeper.store.find(claim)).await?
        {
            return Ok(Take::Taken(taken));
        }
        let before = std::mem::replace(trace, Trace::Unknown);
        let outcome = keeper.ask_within(most, keeper.store.take(claim)).await;
        *trace = match outcome {
            Ok(Take::Taken(_)) => Trace::Known.max(before),
            Ok(Take::Held(_)) => before,
            Err(Error::Unavailable(_)) => Trace::Unknown,
            Err(_) => before,
        };
        if matches!(outcome, Ok(Take::Held(_))) {
            self.footprint.courtesy.seen_others(&self.footprint.claim.name);
        }
        outcome
    }

    /// Waits for a reason to try again, or for the lock itself. Whoever begins to wait tries again at once: the lock may have become
    /// free before the service knew of us.
    async fn wait(&mut self, look: Option<Duration>, deadline: Deadline) -> Result<Option<Taken>, Error> {
        let Footprint { keeper, claim, trace, .. } = &mut self.footprint;
        let Some(wakes) = &mut self.wakes else {
            let before = *trace;
            let lines_up = keeper.store.lines_up();
            if lines_up {
                *trace = Trace::Unknown;
            }
            match keeper.ask(keeper.store.watch(claim)).await {
                Ok(wakes) => {
                    if lines_up {
                        *trace = before.max(Trace::Known);
                    }
                    self.wakes = Some(wakes);
                    return Ok(None);
                }
                Err(Error::Unavailable(_)) => {
                    pause(AGAIN, deadline).await;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        };
        let longest = keeper.store.poll_interval();
        let look = look.map_or(longest, |look| look.min(longest));
        tokio::select! {
            biased;
            woken = wakes.changed() => match woken {
                Ok(()) => return Ok(keeper.store.handed_on(claim)),
                Err(_) => {
                    // We may have missed something; not in a hurry, the connection may be gone.
                    self.wakes = None;
                    pause(AGAIN, deadline).await;
                }
            },
            () = tokio::time::sleep(look) => {}
            () = deadline.wait() => {}
        }
        Ok(None)
    }

    fn hold(mut self, taken: Taken, doubts: u64) -> Result<Result<LeasedLock, Option<Turn>>, Error> {
        match self.footprint.keeper.hold(self.footprint.serial, taken, doubts) {
            Some(lease) => {
                let Footprint { keeper, courtesy, claim, .. } = &self.footprint;
                if let Some(holder) = taken.token.filter(|_| keeper.store.counts_holders()) {
                    courtesy.granted(&claim.name, holder);
                }
                Ok(Ok(LeasedLock::new(self.footprint, lease, taken.token)))
            }
            None if self.footprint.keeper.closed.is_cancelled() => Err(Error::Closed),
            None => Ok(Err(self.footprint.turn.take())),
        }
    }
}

async fn pause(pause: Duration, deadline: Deadline) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => {}
        () = deadline.wait() => {}
    }
}
