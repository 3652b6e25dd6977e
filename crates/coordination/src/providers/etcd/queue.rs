//! `etcd://`: contenders queue up under the session's lease, in the order of their keys' creation.
//!
//! The key of a contender is `/<namespace>/locks/<name>/<ticket>`; it is never written again. Its creation revision is its place
//! and its fencing token.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::details::Details;
use super::removals::Known;
use super::session::{Client, EtcdSession, Keys};
use super::settings::Settings;
use super::wire::{self, KeyValue, Txn};
use crate::heart::Heart;
use crate::name::PREFIX;
use crate::providers::queued::{Contender, Entered, Gone, QueueStore, Session, Ticket, have_it};
use crate::{Error, Features, Health, Holder, Listing, Options, Order, WaitPolicy};

/// The store of `etcd://`.
#[derive(Debug)]
pub(super) struct EtcdQueue {
    client: Arc<Client>,
    /// What the keys of all contenders begin with.
    locks: String,
}

impl EtcdQueue {
    /// Starts to connect, on `heart`.
    pub(super) fn start(settings: Settings, options: &Options, heart: &Heart) -> Result<Self, Error> {
        let namespace = format!("/{}/", settings.namespace);
        let locks = format!("{namespace}locks/");
        let keys = Keys { watched: locks.clone(), sessions: format!("{namespace}sessions/") };
        Ok(Self { client: Client::start("etcd", settings, options, keys, heart)?, locks })
    }

    /// What the keys of all contenders for a lock begin with.
    fn of(&self, name: &str) -> String {
        format!("{}{name}/", self.locks)
    }

    fn key(&self, name: &str, ticket: &Ticket) -> String {
        format!("{}{}", self.of(name), ticket.id)
    }

    /// The session of the engine, if it is still the current one.
    fn session_of(&self, session: &Session) -> Result<Arc<EtcdSession>, Error> {
        let current = self.client.current()?;
        if current.generation != session.generation {
            return Err(Error::Unavailable("the session with etcd ended".to_owned()));
        }
        current.check()?;
        Ok(current)
    }

    /// Everybody in the queue for a lock, from the keys of its contenders.
    fn queue_from(&self, found: &[KeyValue]) -> Vec<Contender> {
        let mut queue: Vec<_> = found.iter().filter_map(contender).collect();
        queue.sort_by_key(|contender| contender.order);
        queue
    }
}

fn contender(found: &KeyValue) -> Option<Contender> {
    Some(Contender {
        node: found.key_after("")?.to_owned(),
        order: found.create_revision,
        mode: Details::read(&found.value).mode(),
        token: Some(found.create_revision),
    })
}

#[async_trait]
impl QueueStore for EtcdQueue {
    fn kind(&self) -> &'static str {
        self.client.kind
    }

    fn instance(&self) -> &str {
        &self.client.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        self.client.health()
    }

    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error> {
        let session = self.client.session(wait).await?;
        Ok(Session { lease: session.lease.clone(), generation: session.generation })
    }

    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error> {
        let session = self.session_of(session)?;
        let key = self.key(name, ticket);
        let details = Details::new(&self.client.instance, ticket.mode, &ticket.owner, Instant::now()).written();
        let operations = [wire::put(&key, details, session.id), wire::range_of(&self.of(name))];
        loop {
            let (request, not_given_up) = session.guard.request();
            let compare = [not_given_up];
            let failure = [wire::range(session.guard.key())];
            let txn = self.client.endpoints.txn(&compare, &operations, &failure).await;
            let txn: Txn = request.answered(txn).map_err(|failure| session.failed(failure))?;
            if txn.succeeded {
                let queue = self.queue_from(txn.found(1));
                let own = queue.iter().find(|contender| contender.node == key).cloned();
                let own = own.ok_or_else(|| Error::Unavailable("etcd does not list what it has written".to_owned()))?;
                return Ok(Entered { own, queue });
            }
            session.guard.check(txn.found(0)).map_err(|failure| session.failed(failure))?;
        }
    }

    async fn queue(&self, session: &Session, name: &str) -> Result<Vec<Contender>, Error> {
        self.session_of(session)?;
        Ok(self.queue_from(&self.client.endpoints.range_of(&self.of(name)).await?.kvs))
    }

    async fn find(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error> {
        let session = self.session_of(session)?;
        let look = [vec![wire::range(&self.key(name, ticket))], Vec::new()];
        let txn = session.guard.settle(&self.client.endpoints, &[], look).await;
        let txn = txn.map_err(|failure| session.failed(failure))?;
        Ok(txn.found(0).first().and_then(contender))
    }

    async fn gone(&self, session: &Session, _name: &str, contender: &Contender) -> Result<Gone, Error> {
        let session = self.session_of(session)?;
        let mut removed = self.client.removals.of(&contender.node);
        match self.client.removals.known(&contender.node, contender.order) {
            Known::Removed => return Ok(Gone::Surely),
            Known::There => {}
            Known::Unknown if self.client.endpoints.exists(&contender.node).await? => {}
            Known::Unknown => return Ok(Gone::Surely),
        }
        tokio::select! {
            biased;
            _ = removed.changed() => {}
            () = session.lease.expired() => {}
        }
        match self.client.removals.known(&contender.node, contender.order) {
            Known::Removed => Ok(Gone::Surely),
            _ => Ok(Gone::Perhaps),
        }
    }

    async fn leave(&self, session: &Session, _name: &str, own: &Contender) -> Result<bool, Error> {
        let session = self.session_of(session)?;
        self.client.endpoints.delete(&own.node).await.map_err(|failure| session.failed(failure))
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        let found = self.client.endpoints.range_of(&self.locks).await?.kvs;
        // The keys come sorted, so those of one lock stand together.
        let lock = |found: &KeyValue| Some(found.key_after(&self.locks)?.split_once('/')?.0.to_owned());
        let mut holders = Vec::new();
        for of_one in found.chunk_by(|a, b| lock(a) == lock(b)) {
            let Some(name) = lock(&of_one[0]).filter(|name| name.starts_with(PREFIX)) else { continue };
            let queue = self.queue_from(of_one);
            let have: Vec<_> = have_it(&queue).map(|contender| contender.order).collect();
            let mut of_one: Vec<_> = of_one.iter().collect();
            of_one.sort_by_key(|found| found.create_revision);
            holders.extend(of_one.into_iter().map(|found| {
                let order = found.create_revision;
                Details::read(&found.value).holder(&name, have.contains(&order), order)
            }));
        }
        Ok(holders)
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let queue = self.queue_from(&self.client.endpoints.range_of(&self.of(name)).await?.kvs);
        let remove: Vec<_> = have_it(&queue).map(|holder| wire::delete(&holder.node)).collect();
        if remove.is_empty() {
            return Ok(false);
        }
        let txn = self.client.endpoints.txn(&[], &remove, &[]).await?;
        Ok((0..remove.len()).any(|index| txn.deleted(index) > 0))
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
