//! `memory://`: locks inside one process, for stand-alone use and for tests, which can break them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use scoria_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::name::{PREFIX, bare};
use crate::turns::{Turn, Turns};
use crate::{Error, Features, Health, HeldLock, Holder, Listing, Mode, Order, Owner, Provider, Scope, WaitPolicy};

/// Locks inside one process: fair, with shared mode and fencing tokens.
///
/// [`MemoryProvider::another`] makes further instances over the same locks. Tests make them fail with
/// [`MemoryProvider::lose`], [`MemoryProvider::fail_next`] and [`MemoryProvider::set_down`].
#[derive(Debug)]
pub struct MemoryProvider {
    space: Arc<Space>,
    instance: String,
    /// Why this instance cannot reach the locks.
    down: watch::Sender<Option<String>>,
    closed: CancellationToken,
}

/// Where a failure strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// The next try to take a lock; none is taken.
    Acquire,
    /// The next look whether a lock is still held.
    Verify,
    /// The next release: it is done, but its answer never comes.
    Release,
}

/// The locks that several instances share.
#[derive(Debug, Default)]
struct Space {
    turns: Turns,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    token: u64,
    entries: BTreeMap<u64, Entry>,
    faults: VecDeque<(FaultPoint, Error)>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    mode: Mode,
    instance: String,
    owner: Owner,
    since: Instant,
    token: Option<u64>,
    lost: CancellationToken,
    /// None while it waits.
    turn: Option<Turn>,
}

/// A holder or waiter; gone when dropped.
#[derive(Debug)]
struct MemoryLock {
    space: Arc<Space>,
    id: u64,
    name: String,
    token: u64,
    lost: CancellationToken,
}

impl Default for MemoryProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryProvider {
    /// Locks nobody holds.
    #[must_use]
    pub fn new() -> Self {
        Self::named("memory")
    }

    pub(super) fn named(instance: &str) -> Self {
        Self {
            space: Arc::default(),
            instance: instance.to_owned(),
            down: watch::Sender::new(None),
            closed: CancellationToken::new(),
        }
    }

    /// A further instance over the same locks, as if another process used the same service.
    #[must_use]
    pub fn another(&self, instance: &str) -> Self {
        Self { space: self.space.clone(), ..Self::named(instance) }
    }

    /// Takes a lock (named without the prefix) away from whoever holds it: they are told, others can have it. False when
    /// nobody held it.
    pub fn lose(&self, name: &str) -> bool {
        self.take_away(|entry| entry.name.strip_prefix(PREFIX) == Some(name)) > 0
    }

    /// How many locks were ever taken, by all instances.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.space.state().token
    }

    /// Makes the next call at `point`, in any instance, fail with `error`. Faults at one point strike in the order they were set.
    pub fn fail_next(&self, point: FaultPoint, error: Error) {
        self.space.state().faults.push_back((point, error));
    }

    /// Cuts this instance off from the locks for a reason, or with `None` lets it reach them again. What it holds stays held;
    /// whoever wants a lock waits.
    pub fn set_down(&self, reason: Option<&str>) {
        self.down.send_replace(reason.map(str::to_owned));
    }

    /// Waits until the locks can be reached, as whoever asks a service in the network does.
    async fn reach(&self, wait: WaitPolicy) -> Result<(), Error> {
        let mut down = self.down.subscribe();
        let unavailable = |reason: Option<String>| Error::Unavailable(reason.unwrap_or_default());
        let deadline = match wait {
            WaitPolicy::Until(deadline) => deadline,
            WaitPolicy::No => match down.borrow().clone() {
                None => return Ok(()),
                reason => return Err(unavailable(reason)),
            },
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Closed),
            _ = down.wait_for(Option::is_none) => Ok(()),
            () = deadline.wait() => Err(unavailable(self.down.borrow().clone())),
        }
    }

    fn take_away(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let taken: Vec<_> = self.space.state().entries.extract_if(.., |_, e| e.turn.is_some() && which(e)).collect();
        for (_, entry) in &taken {
            entry.lost.cancel();
        }
        taken.len()
    }
}

impl Space {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, point: FaultPoint) -> Result<(), Error> {
        let mut state = self.state();
        let at = state.faults.iter().position(|(strikes, _)| *strikes == point);
        at.and_then(|at| state.faults.remove(at)).map_or(Ok(()), |(_, error)| Err(error))
    }

    fn holds(&self, id: u64) -> bool {
        self.state().entries.contains_key(&id)
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        match self.down.borrow().clone() {
            _ if self.closed.is_cancelled() => Health::Down("closed".to_owned()),
            Some(reason) => Health::Down(reason),
            None => Health::Up,
        }
    }

    async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        self.reach(wait).await?;
        self.space.fault(FaultPoint::Acquire)?;
        let mut lock = {
            let mut state = self.space.state();
            state.next += 1;
            let (id, lost) = (state.next, CancellationToken::new());
            let entry = Entry {
                name: name.to_owned(),
                mode,
                instance: self.instance.clone(),
                owner: owner.clone(),
                since: Instant::now(),
                token: None,
                lost: lost.clone(),
                turn: None,
            };
            state.entries.insert(id, entry);
            MemoryLock { space: self.space.clone(), id, name: name.to_owned(), token: 0, lost }
        };
        let turn = self.space.turns.take_within(name, mode, wait).await;
        let turn = turn.ok_or_else(|| Error::Busy { name: bare(name).to_owned(), by: String::new() })?;
        let mut state = self.space.state();
        state.token += 1;
        lock.token = state.token;
        if let Some(entry) = state.entries.get_mut(&lock.id) {
            (entry.turn, entry.token, entry.since) = (Some(turn), Some(lock.token), Instant::now());
        }
        drop(state);
        Ok(Box::new(lock))
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let holder = |entry: &Entry| Holder {
            name: bare(&entry.name).to_owned(),
            mode: entry.mode,
            held: entry.turn.is_some(),
            instance: entry.instance.clone(),
            host: None,
            owner: entry.owner.clone(),
            since: Some(entry.since.elapsed()),
            token: entry.token,
        };
        Ok(self.space.state().entries.values().map(holder).collect())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        Ok(self.take_away(|entry| entry.name == name) > 0)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.take_away(|entry| entry.instance == self.instance);
    }
}

#[async_trait]
impl HeldLock for MemoryLock {
    fn token(&self) -> Option<u64> {
        Some(self.token)
    }

    fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    async fn verify(&self) -> Result<(), Error> {
        self.space.fault(FaultPoint::Verify)?;
        self.still_held(self.space.holds(self.id))
    }

    async fn release(self: Box<Self>) -> Result<(), Error> {
        let entry = self.space.state().entries.remove(&self.id);
        self.space.fault(FaultPoint::Release)?;
        self.still_held(entry.is_some())
    }
}

impl MemoryLock {
    fn still_held(&self, held: bool) -> Result<(), Error> {
        if held {
            return Ok(());
        }
        Err(Error::Lost { name: bare(&self.name).to_owned(), reason: "it was taken away".to_owned() })
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let entry = self.space.state().entries.remove(&self.id);
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(provider: &MemoryProvider) -> Result<Box<dyn HeldLock>, Error> {
        provider.acquire("cinder-a", Mode::Exclusive, &Owner::default(), WaitPolicy::No).await
    }

    #[tokio::test]
    async fn a_lock_that_is_lost_is_told_and_another_instance_gets_it_with_a_higher_token() {
        let one = MemoryProvider::new();
        let two = one.another("two");
        let first = take(&one).await.unwrap();
        assert!(matches!(take(&two).await, Err(Error::Busy { .. })));
        assert!(one.lose("a"));
        assert!(first.lost().is_cancelled());
        assert!(matches!(first.verify().await, Err(Error::Lost { .. })));
        let second = take(&two).await.unwrap();
        assert!(second.token() > first.token());
        assert!(matches!(first.release().await, Err(Error::Lost { .. })));
        second.verify().await.unwrap();
        assert!(!one.lose("b"));
    }

    #[tokio::test]
    async fn an_instance_that_is_cut_off_waits_and_says_why() {
        let one = MemoryProvider::new();
        let two = one.another("two");
        one.set_down(Some("no route"));
        assert_eq!(one.health(), Health::Down("no route".to_owned()));
        assert!(matches!(take(&one).await, Err(Error::Unavailable(reason)) if reason == "no route"));
        take(&two).await.unwrap().release().await.unwrap();
        let owner = Owner::default();
        let wait = WaitPolicy::Until(scoria_runtime::Deadline::NEVER);
        let (lock, ()) = tokio::join!(one.acquire("cinder-a", Mode::Exclusive, &owner, wait), async {
            tokio::task::yield_now().await;
            one.set_down(None);
        });
        lock.unwrap().release().await.unwrap();
        assert_eq!(one.health(), Health::Up);
    }

    #[tokio::test]
    async fn failures_strike_where_they_were_set() {
        let provider = MemoryProvider::new();
        let down = || Error::Unavailable("test".to_owned());
        provider.fail_next(FaultPoint::Release, down());
        provider.fail_next(FaultPoint::Acquire, down());
        provider.fail_next(FaultPoint::Verify, down());
        assert!(matches!(take(&provider).await, Err(Error::Unavailable(_))));
        let lock = take(&provider).await.unwrap();
        assert!(matches!(lock.verify().await, Err(Error::Unavailable(_))));
        lock.verify().await.unwrap();
        assert!(matches!(lock.release().await, Err(Error::Unavailable(_))));
        take(&provider).await.unwrap().release().await.unwrap();
    }
}
