//! Locks that are records with a time to live: redis, memcached, etcd as tooz uses it, a table of the database.
//!
//! [`LeasedProvider`] makes a lock service of a [`LeaseStore`]: waiting ([`wish`]), keeping what is held alive and telling
//! what is lost ([`keeper`]), room for others ([`Courtesy`]). It knows no wire; a store knows no waiting.

mod keeper;
mod lock;
mod looks;
mod store;
#[cfg(test)]
mod tests;
mod wish;

use std::sync::Arc;

use async_trait::async_trait;

use crate::heart::Heart;
use crate::name::bare;
use crate::turns::Turns;
use crate::{Error, Features, Health, HeldLock, Holder, Mode, Options, Owner, Provider, Scope, WaitPolicy};

use crate::providers::courtesy::Courtesy;
use keeper::Keeper;
pub(crate) use looks::Looks;
pub(crate) use store::{Claim, LeaseStore, Take, Taken};
use wish::Wish;

/// Locks over a [`LeaseStore`].
#[derive(Debug)]
pub(crate) struct LeasedProvider {
    keeper: Arc<Keeper>,
    courtesy: Arc<Courtesy>,
    turns: Turns,
}

impl LeasedProvider {
    /// `heart` is where beats and withdrawals run; the store may use the same thread for its connection.
    pub(crate) fn new(store: Arc<dyn LeaseStore>, heart: &Heart, options: &Options) -> Self {
        let courtesy = match store.lines_up() {
            true => Courtesy::none(),
            false => Courtesy::new(store.wakes_within(), store.peers_poll()),
        };
        let courtesy = Arc::new(courtesy);
        Self { keeper: Keeper::start(store, heart, options.heartbeat), courtesy, turns: Turns::default() }
    }

    fn store(&self) -> &dyn LeaseStore {
        &*self.keeper.store
    }

    fn open(&self) -> Result<(), Error> {
        if self.keeper.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    async fn wait_for(&self, name: &str, owner: &Owner, wait: WaitPolicy) -> Result<Box<dyn HeldLock>, Error> {
        let busy = || Error::Busy { name: bare(name).to_owned(), by: String::new() };
        // Where the service has a queue, everybody stands in that one.
        let mut turn = match self.keeper.store.keeps_order() {
            true => None,
            false => Some(self.turns.take_within(name, Mode::Exclusive, wait).await.ok_or_else(busy)?),
        };
        if let WaitPolicy::Until(deadline) = wait {
            let Keeper { store, .. } = &*self.keeper;
            let others_wait = async { matches!(self.keeper.ask(store.others_wait(name)).await, Ok(true)) };
            self.courtesy.stand_back(name, deadline, others_wait).await;
        }
        loop {
            let wish = Wish::new(&self.keeper, &self.courtesy, turn, name, owner);
            match wish.granted(wait).await? {
                Ok(lock) => return Ok(Box::new(lock)),
                // It was ours, but may be somebody else's by now: it is withdrawn, and wished for anew.
                Err(own_turn) => turn = own_turn,
            }
        }
    }
}

#[async_trait]
impl Provider for LeasedProvider {
    fn kind(&self) -> &'static str {
        self.store().kind()
    }

    fn instance(&self) -> &str {
        self.store().instance()
    }

    fn scope(&self) -> Scope {
        self.store().scope()
    }

    fn features(&self) -> Features {
        self.store().features()
    }

    fn health(&self) -> Health {
        match self.open() {
            Ok(()) => self.store().health(),
            Err(_) => Health::Down("closed".to_owned()),
        }
    }

    async fn acquire(
        &self,
        name: &str,
        // A record has one owner: nobody of these services is beside anybody (`Features::shared`).
        _mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        tokio::select! {
            biased;
            () = self.keeper.closed.cancelled() => Err(Error::Closed),
            granted = self.wait_for(name, owner, wait) => granted,
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        self.open()?;
        self.keeper.ask(self.store().list()).await
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        self.open()?;
        self.keeper.ask(self.store().break_lock(name)).await
    }

    async fn close(&self) {
        self.keeper.close().await;
    }
}
