//! `etcd3+http://` and `etcd3+https://`: locks as tooz keeps them (`tooz/drivers/etcd3gw.py: Etcd3Lock`).
//!
//! The key is `/tooz/locks` and the name without a separator, the value 16 random bytes; whoever creates the key has the lock.
//! Python grants a lease for each try and leaks those that fail; here all keys hang on the one lease of the session. What tooz
//! has no place for stands under `/scoria/tooz/`: who holds, and the keys of the sessions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::details::Details;
use super::session::{Client, EtcdSession, Keys};
use super::settings::Settings;
use super::wire::{self, KeyValue};
use crate::heart::Heart;
use crate::name::PREFIX;
use crate::providers::leased::{Claim, LeaseStore, Take, Taken};
use crate::{Error, Features, Health, Holder, Listing, Mode, Options, Order, WaitPolicy};

/// `Etcd3Lock.LOCK_PREFIX`.
const LOCKS: &str = "/tooz/locks";
const HOLDERS: &str = "/scoria/tooz/holders/";
const SESSIONS: &str = "/scoria/tooz/sessions/";
/// `tooz/_retry.py`: how often Python looks.
const PYTHON_POLLS: Duration = Duration::from_secs(1);
/// Every removal is told; this is only for the case that etcd forgets one.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How many operations etcd takes in one transaction is 128 unless it is told otherwise.
const AT_ONCE: usize = 100;

/// The store of `etcd3+http://` and `etcd3+https://`.
#[derive(Debug)]
pub(super) struct ToozLocks {
    client: Arc<Client>,
}

impl ToozLocks {
    /// Starts to connect, on `heart`.
    pub(super) fn start(
        kind: &'static str,
        settings: Settings,
        options: &Options,
        heart: &Heart,
    ) -> Result<Self, Error> {
        let keys = Keys { watched: LOCKS.to_owned(), sessions: SESSIONS.to_owned() };
        Ok(Self { client: Client::start(kind, settings, options, keys, heart)? })
    }
}

fn key(name: &str) -> String {
    format!("{LOCKS}{name}")
}

/// The claim's id as the bytes that it is in hexadecimal digits of.
fn value(claim: &Claim) -> Vec<u8> {
    let id = uuid::Uuid::try_parse(&claim.id).expect("the id of a claim is 32 hexadecimal digits");
    id.as_bytes().to_vec()
}

/// Who holds for which claim. A claim's own key, so that it can be removed whoever has the lock by then.
fn details_key(name: &str, id: &str) -> String {
    format!("{HOLDERS}{name}/{id}")
}

/// What is known of a lock from its key, for a claim in a session.
fn taken(found: &[KeyValue], value: &[u8], session: &EtcdSession) -> Option<Taken> {
    // A record under the lease of an earlier session goes with that one: it is no lock.
    let ours = found.first().filter(|found| found.value == value && found.lease == session.id)?;
    Some(Taken { token: Some(ours.create_revision), deadline: session.deadline() })
}

#[async_trait]
impl LeaseStore for ToozLocks {
    fn kind(&self) -> &'static str {
        self.client.kind
    }

    fn instance(&self) -> &str {
        &self.client.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::Own, shared: false, listing: Listing::Holders }
    }

    fn health(&self) -> Health {
        self.client.health()
    }

    async fn ready(&self, wait: WaitPolicy) -> Result<(), Error> {
        self.client.session(wait).await.map(drop)
    }

    fn time_to_live(&self) -> Duration {
        self.client.settings.time_to_live
    }

    fn poll_interval(&self) -> Duration {
        LOOK_AGAIN
    }

    fn peers_poll(&self) -> Option<Duration> {
        Some(PYTHON_POLLS)
    }

    async fn suspect(&self) {
        self.client.removals.alarm().await;
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let session = self.client.current()?;
        let (key, value) = (key(&claim.name), value(claim));
        let details = Details::new(&self.client.instance, Mode::Exclusive, &claim.owner, claim.since).written();
        let success = [
            wire::put(&key, value.as_slice(), session.id),
            wire::put(&details_key(&claim.name, &claim.id), details, session.id),
        ];
        let failure = [wire::range(&key), wire::range(session.guard.key())];
        loop {
            session.check()?;
            let (request, not_given_up) = session.guard.request();
            let compare = [wire::is_absent(&key), not_given_up];
            let txn = self.client.endpoints.txn(&compare, &success, &failure).await;
            let txn = request.answered(txn).map_err(|failure| session.failed(failure))?;
            if txn.succeeded {
                let made_at = txn.revision();
                self.client.removals.mind(&key, made_at);
                return Ok(Take::Taken(Taken { token: Some(made_at), deadline: session.deadline() }));
            }
            if let Some(taken) = taken(txn.found(0), &value, &session) {
                return Ok(Take::Taken(taken));
            }
            if !txn.found(0).is_empty() {
                return Ok(Take::Held(None));
            }
            session.guard.check(txn.found(1)).map_err(|failure| session.failed(failure))?;
        }
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let session = self.client.current()?;
        let mut extended = Vec::with_capacity(claims.len());
        for claims in claims.chunks(AT_ONCE) {
            let look: Vec<_> = claims.iter().map(|claim| wire::range(&key(&claim.name))).collect();
            // The session's own beats extend; this is to see that nobody has taken the lock away. It goes the beats' way.
            let txn = session.endpoints.txn(&[], &look, &[]).await.map_err(|failure| session.failed(failure))?;
            let ours = |(index, claim): (usize, &Arc<Claim>)| taken(txn.found(index), &value(claim), &session);
            extended.extend(claims.iter().enumerate().map(ours).map(|taken| taken.map(|taken| taken.deadline)));
        }
        if session.check().is_err() {
            extended.fill(None);
        }
        Ok(extended)
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let session = self.client.current()?;
        session.check()?;
        let look = [vec![wire::range(&key(&claim.name))], Vec::new()];
        let txn = session.guard.settle(&self.client.endpoints, &[], look).await;
        let txn = txn.map_err(|failure| session.failed(failure))?;
        Ok(taken(txn.found(0), &value(claim), &session))
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        let session = self.client.current()?;
        let (key, value) = (key(&claim.name), value(claim));
        self.client.removals.forget(&key);
        let details = wire::delete(&details_key(&claim.name, &claim.id));
        let compare = [wire::has_value(&key, value)];
        let operations = [vec![wire::delete(&key), details.clone()], vec![details]];
        let txn = session.guard.settle(&self.client.endpoints, &compare, operations).await;
        Ok(txn.map_err(|failure| session.failed(failure))?.succeeded)
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        Ok(self.client.removals.of(&key(&claim.name)))
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        let look = [wire::range_of(LOCKS), wire::range_of(HOLDERS)];
        let txn = self.client.endpoints.txn(&[], &look, &[]).await?;
        let ours = txn.found(1).iter().filter_map(|details| Some((details.key_after(HOLDERS)?, details)));
        let ours: std::collections::HashMap<_, _> = ours.collect();
        let holder = |lock: &KeyValue| {
            let name = lock.key_after(LOCKS).filter(|name| name.starts_with(PREFIX))?;
            let id = uuid::Uuid::from_slice(&lock.value).ok().map(|id| id.as_simple().to_string());
            let details = id.and_then(|id| ours.get(details_key(name, &id).strip_prefix(HOLDERS)?));
            let details = match details {
                Some(details) => Details::read(&details.value),
                None => Details::of_peer(format!("a Python peer (etcd lease {:x})", lock.lease)),
            };
            Some(details.holder(name, true, lock.create_revision))
        };
        Ok(txn.found(0).iter().filter_map(holder).collect())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let remove = [wire::delete(&key(name)), wire::delete_of(&format!("{HOLDERS}{name}/"))];
        Ok(self.client.endpoints.txn(&[], &remove, &[]).await?.deleted(0) > 0)
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
