//! What is held: kept alive by beats, told lost in time, given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use scoria_runtime::{CancellationToken, Deadline};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::heart::Heart;
use crate::lease::Lease;
use crate::turns::Turn;
use crate::{Error, WaitPolicy};

use super::{Claim, LeaseStore, Taken};

/// First wait after a request that failed; doubled each time.
pub(super) const AGAIN: Duration = Duration::from_millis(20);

/// The longest that closing waits for what is at the service to be given back.
const CLOSING: Duration = Duration::from_secs(5);

/// Keeps the list of our claims, beats for those that are held, and watches their deadlines: two tasks, however many locks.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) closed: CancellationToken,
    pub(super) heart: Heart,
    beat: Duration,
    /// How long one request may take; after that its answer is not waited for.
    patience: Duration,
    /// Taken off the time to live: who is told of a loss needs time to stop.
    margin: Duration,
    table: Mutex<Table>,
    /// There is a deadline before the one that is waited for.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    /// The deadline that is waited for.
    watched: Option<Instant>,
    /// How often everything held had to be looked at at once.
    doubts: u64,
    /// What was still being withdrawn when the background ended.
    unsettled: Vec<Arc<Claim>>,
}

/// A claim that the service may know of; with a lease once it is held.
#[derive(Debug)]
struct Entry {
    claim: Arc<Claim>,
    lease: Option<Lease>,
}

impl Keeper {
    pub(super) fn start(store: Arc<dyn LeaseStore>, heart: &Heart, heartbeat: Duration) -> Arc<Self> {
        let time_to_live = store.time_to_live();
        let keeper = Arc::new(Self {
            store,
            closed: CancellationToken::new(),
            heart: heart.branch(),
            beat: heartbeat.min(time_to_live / 3),
            patience: time_to_live / 3,
            margin: time_to_live / 10,
            table: Mutex::default(),
            earlier: Notify::new(),
        });
        keeper.heart.spawn("lock-beats", keeper.clone().beats());
        keeper.heart.spawn("lock-deadlines", keeper.clone().deadlines());
        keeper
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to one request, but not for ever.
    pub(super) async fn ask<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.ask_within(self.patience, request).await
    }

    /// As [`Keeper::ask`], and at most so long.
    pub(super) async fn ask_within<T>(
        &self,
        most: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let most = most.min(self.patience);
        let silent = |_| Err(Error::Unavailable(format!("no answer within {:.1} s", most.as_secs_f64())));
        tokio::time::timeout(most, request).await.unwrap_or_else(silent)
    }

    /// Notes a claim that the service is going to hear of.
    pub(super) fn enter(&self, claim: &Arc<Claim>) -> u64 {
        let mut table = self.table();
        table.next += 1;
        let serial = table.next;
        table.entries.insert(serial, Entry { claim: claim.clone(), lease: None });
        serial
    }

    /// How often everything that was held came into doubt.
    pub(super) fn doubts(&self) -> u64 {
        self.table().doubts
    }

    /// The claim has got its lock; `None` when that is no longer sure: the answer came too late, or what was held when it was
    /// asked for (`doubts`) has come into doubt since.
    pub(super) fn hold(&self, serial: u64, taken: Taken, doubts: u64) -> Option<Lease> {
        let lease = Lease::until(self.certain(taken.deadline));
        let mut table = self.table();
        if lease.is_lost() || table.doubts != doubts || self.closed.is_cancelled() {
            return None;
        }
        table.entries.get_mut(&serial)?.lease = Some(lease.clone());
        if table.watched.is_none_or(|watched| lease.deadline() < watched) {
            self.earlier.notify_one();
        }
        Some(lease)
    }

    /// From now on the claim is neither kept alive nor given back by us; false when it was not in the list any more.
    pub(super) fn forget(&self, serial: u64) -> bool {
        self.table().entries.remove(&serial).is_some()
    }

    fn certain(&self, deadline: Instant) -> Instant {
        deadline.checked_sub(self.margin).unwrap_or(deadline)
    }

    async fn beats(self: Arc<Self>) {
        let stop = self.heart.stopping();
        let beating = async {
            let (mut next, mut failing) = (self.beat, false);
            loop {
                tokio::select! {
                    biased;
                    () = self.store.suspect() => self.table().doubts += 1,
                    () = tokio::time::sleep(next) => {}
                }
                next = self.beat;
                let outcome = self.extend().await;
                if let Err(error) = &outcome {
                    if !failing {
                        tracing::warn!(backend = self.store.kind(), %error, "locks could not be extended, trying again");
                    }
                    let _down = self.store.ready(WaitPolicy::Until(Deadline::after(self.beat))).await;
                    next = AGAIN.min(self.beat);
                }
                failing = outcome.is_err();
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = beating => {}
        }
    }

    /// Extends everything that is held.
    async fn extend(self: &Arc<Self>) -> Result<(), Error> {
        let held = |(serial, entry): (&u64, &Entry)| Some((*serial, entry.claim.clone(), entry.lease.clone()?));
        let held: Vec<_> = self.table().entries.iter().filter_map(held).collect();
        if held.is_empty() {
            return Ok(());
        }
        let claims: Vec<_> = held.iter().map(|(_, claim, _)| claim.clone()).collect();
        let extended = self.ask(self.store.extend(&claims)).await?;
        for ((serial, claim, lease), deadline) in held.into_iter().zip(extended) {
            match deadline {
                Some(deadline) => {
                    lease.renew(self.certain(deadline));
                }
                // The holder is told; only then goes what is left of the claim at the service.
                None if self.forget(serial) => {
                    lease.lose("its record is gone or somebody else's");
                    drop(self.withdraw(claim, None, true));
                }
                // Given back in the meantime.
                None => {}
            }
        }
        Ok(())
    }

    async fn deadlines(self: Arc<Self>) {
        let stop = self.heart.stopping();
        loop {
            let next = self.lose_overdue();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.earlier.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Tells what has not been confirmed in time; says when to look again.
    fn lose_overdue(&self) -> Option<Instant> {
        let mut table = self.table();
        table.entries.retain(|_, entry| !entry.lease.as_ref().is_some_and(Lease::is_lost));
        table.watched = table.entries.values().filter_map(|entry| entry.lease.as_ref().map(Lease::deadline)).min();
        table.watched
    }

    /// Gives back in the background what may be at the service in the name of a claim. After the first try the turn is passed on
    /// and the receiver ends.
    ///
    /// `known`: no request of the claim is still under way. Otherwise one may yet be carried out after we have looked, so we
    /// look again for as long as what it does can live. A service that does not answer is asked until it does: a record ends by
    /// itself, a place in line need not.
    pub(super) fn withdraw(
        self: &Arc<Self>,
        claim: Arc<Claim>,
        turn: Option<Turn>,
        known: bool,
    ) -> oneshot::Receiver<()> {
        let keeper = self.clone();
        let (told, tried) = oneshot::channel();
        self.heart.spawn("lock-withdrawal", async move {
            let stop = keeper.heart.stopping();
            let longest = keeper.store.time_to_live();
            let until = Instant::now() + longest;
            let (mut first_try, mut pause) = (Some((turn, told)), AGAIN);
            loop {
                match keeper.ask(keeper.store.give_back(&claim)).await {
                    Ok(true) => return,
                    Ok(false) if known => return,
                    Err(Error::Unavailable(_)) => {}
                    Ok(false) | Err(_) if Instant::now() >= until => return,
                    Ok(false) | Err(_) => {}
                }
                drop(first_try.take());
                let again = async {
                    tokio::time::sleep(pause).await;
                    drop(keeper.store.ready(WaitPolicy::Until(Deadline::after(pause))).await);
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return keeper.table().unsettled.push(claim),
                    () = again => pause = (pause * 2).min(longest),
                }
            }
        });
        tried
    }

    /// Tells every holder, gives everything back, ends the background and the connection.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let by = Instant::now() + CLOSING;
        let entries = std::mem::take(&mut self.table().entries);
        for lease in entries.values().filter_map(|entry| entry.lease.as_ref()) {
            lease.lose("the coordinator was closed");
        }
        let failed = self.give_back_by(by, entries.values().map(|entry| &entry.claim)).await;
        if failed > 0 {
            let seconds = self.store.time_to_live().as_secs_f64();
            tracing::warn!(locks = failed, "locks could not be given back: they are free after {seconds} s");
        }
        self.heart.stop().await;
        let wishes = entries.into_values().filter(|entry| entry.lease.is_none()).map(|entry| entry.claim);
        let mut unsettled = std::mem::take(&mut self.table().unsettled);
        unsettled.extend(wishes);
        if !unsettled.is_empty() && tokio::time::timeout_at(by, self.store.settled()).await.is_ok() {
            self.give_back_by(by, &unsettled).await;
        }
        self.store.close().await;
    }

    /// Gives back all of them at once; says how many could not be by then.
    async fn give_back_by(&self, by: Instant, claims: impl IntoIterator<Item = &Arc<Claim>>) -> usize {
        let given_back: Vec<_> = claims.into_iter().map(|claim| self.ask(self.store.give_back(claim))).collect();
        let claims = given_back.len();
        let outcomes = tokio::time::timeout_at(by, join_all(given_back)).await;
        outcomes.map_or(claims, |all| all.iter().filter(|outcome| outcome.is_err()).count())
    }
}
