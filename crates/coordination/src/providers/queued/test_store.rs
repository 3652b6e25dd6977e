//! A lock service inside the test, in the time of the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Contender, Entered, Gone, QueueStore, QueuedProvider, Session, Ticket, have_it};
use crate::heart::Heart;
use crate::lease::Lease;
use crate::{Error, Features, Health, Holder, Listing, Mode, Order, WaitPolicy};

/// How the next call of a kind fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is done, but its answer never comes.
    AnswerLost,
    /// It is not done.
    NotDone,
    /// It is not done, and nothing is answered for so long.
    Hangs(Duration),
}

/// The queues, which all instances share.
#[derive(Debug, Clone, Default)]
pub(super) struct Service(Arc<Mutex<Queues>>);

#[derive(Debug)]
struct Queues {
    last: u64,
    places: BTreeMap<u64, Stand>,
    changed: watch::Sender<()>,
}

impl Default for Queues {
    fn default() -> Self {
        Self { last: 0, places: BTreeMap::new(), changed: watch::Sender::new(()) }
    }
}

#[derive(Debug, Clone)]
struct Stand {
    name: String,
    ticket: String,
    mode: Mode,
    session: CancellationToken,
}

impl Service {
    pub(super) fn instance(&self) -> (QueuedProvider, Arc<TestStore>) {
        let (session, _) = watch::channel(None);
        let store =
            Arc::new(TestStore { service: self.clone(), session, faults: Mutex::default(), calls: Mutex::default() });
        store.connect();
        (QueuedProvider::new(store.clone(), Heart::here()), store)
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.0.lock().unwrap()
    }

    fn queue(&self, name: &str) -> Vec<Contender> {
        let mut queues = self.queues();
        queues.places.retain(|_, stand| !stand.session.is_cancelled());
        let here = queues.places.iter().filter(|(_, stand)| stand.name == name);
        here.map(|(order, stand)| contender(*order, stand)).collect()
    }

    fn remove(&self, order: u64) -> bool {
        let mut queues = self.queues();
        let removed = queues.places.remove(&order).is_some();
        queues.changed.send_replace(());
        removed
    }

    /// As an administrator does.
    pub(super) fn remove_first(&self, name: &str) {
        assert!(self.remove(self.queue(name)[0].order));
    }

    /// As [`Service::remove_first`].
    pub(super) fn remove_last(&self, name: &str) {
        assert!(self.remove(self.queue(name).last().unwrap().order));
    }

    /// How many places there are in all queues.
    pub(super) fn places(&self) -> usize {
        self.queues().places.values().filter(|stand| !stand.session.is_cancelled()).count()
    }
}

fn contender(order: u64, stand: &Stand) -> Contender {
    Contender { node: format!("{}-{order}", stand.ticket), order, mode: stand.mode, token: Some(order) }
}

#[derive(Debug)]
pub(super) struct TestStore {
    service: Service,
    session: watch::Sender<Option<(Session, CancellationToken)>>,
    faults: Mutex<BTreeMap<&'static str, VecDeque<Fault>>>,
    calls: Mutex<Vec<String>>,
}

impl TestStore {
    /// A session; one before it goes on at the service until [`TestStore::expire`].
    pub(super) fn connect(&self) {
        let generation = self.session.borrow().as_ref().map_or(0, |(session, _)| session.generation) + 1;
        let lease = Lease::until(Instant::now() + Duration::from_secs(3600));
        self.session.send_replace(Some((Session { lease, generation }, CancellationToken::new())));
    }

    /// The session ends, for us and at the service.
    pub(super) fn expire(&self) {
        let ended = self.session.send_replace(None);
        if let Some((session, at_service)) = ended {
            session.lease.lose("the session ended");
            at_service.cancel();
        }
        self.service.queues().changed.send_replace(());
    }

    pub(super) fn fail(&self, call: &'static str, fault: Fault) {
        self.faults.lock().unwrap().entry(call).or_default().push_back(fault);
    }

    /// What was called since the last time this was asked.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// One round trip.
    async fn call<T>(&self, call: &'static str, of: &str, answer: impl FnOnce() -> T) -> Result<T, Error> {
        self.calls.lock().unwrap().push(format!("{call} {of}").trim().to_owned());
        let fault = self.faults.lock().unwrap().get_mut(call).and_then(VecDeque::pop_front);
        let failed = Err(Error::Unavailable(format!("{call} failed")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        match fault {
            Some(Fault::Hangs(time)) => tokio::time::sleep(time).await,
            Some(Fault::NotDone) => {}
            Some(Fault::AnswerLost) => drop(answer()),
            None => {
                let answer = answer();
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Ok(answer);
            }
        }
        failed
    }

    fn at_service(&self, session: &Session) -> CancellationToken {
        match &*self.session.borrow() {
            Some((current, at_service)) if current.generation == session.generation => at_service.clone(),
            _ => panic!("used in an ended session"),
        }
    }
}

#[async_trait]
impl QueueStore for TestStore {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn instance(&self) -> &str {
        "test"
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        if self.session.borrow().is_some() { Health::Up } else { Health::Down("no session".to_owned()) }
    }

    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error> {
        let mut sessions = self.session.subscribe();
        let there = async { sessions.wait_for(Option::is_some).await.is_ok() };
        match wait {
            WaitPolicy::No => {}
            WaitPolicy::Until(deadline) => tokio::select! {
                biased;
                _ = there => {}
                () = deadline.wait() => {}
            },
        }
        let current = self.session.borrow().as_ref().map(|(session, _)| session.clone());
        current.ok_or_else(|| Error::Unavailable("no session".to_owned()))
    }

    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error> {
        let stand = Stand {
            name: name.to_owned(),
            ticket: ticket.id.clone(),
            mode: ticket.mode,
            session: self.at_service(session),
        };
        let enter = || {
            let own = {
                let mut queues = self.service.queues();
                queues.last += 1;
                let order = queues.last;
                queues.places.insert(order, stand.clone());
                contender(order, &stand)
            };
            Entered { own, queue: self.service.queue(name) }
        };
        self.call("enter", "", enter).await
    }

    async fn queue(&self, _session: &Session, name: &str) -> Result<Vec<Contender>, Error> {
        self.call("queue", "", || self.service.queue(name)).await
    }

    async fn find(&self, _session: &Session, name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error> {
        let find = || self.service.queue(name).into_iter().find(|place| place.node.starts_with(&ticket.id));
        self.call("find", "", find).await
    }

    async fn gone(&self, _session: &Session, name: &str, contender: &Contender) -> Result<Gone, Error> {
        let mut changes = self.service.queues().changed.subscribe();
        self.call("gone", &contender.order.to_string(), || ()).await?;
        while self.service.queue(name).contains(contender) {
            changes.changed().await.unwrap();
        }
        Ok(Gone::Surely)
    }

    async fn leave(&self, _session: &Session, _name: &str, own: &Contender) -> Result<bool, Error> {
        self.call("leave", &own.order.to_string(), || self.service.remove(own.order)).await
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        Ok(Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let queue = self.service.queue(name);
        Ok(have_it(&queue).filter(|holder| self.service.remove(holder.order)).count() > 0)
    }

    async fn close(&self) {
        self.expire();
    }
}
