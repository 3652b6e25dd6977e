//! Locks for which contenders queue up under a session, over a simulated service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Gate, Simulation, World, under_seeds};
use crate::heart::Heart;
use crate::lease::Lease;
use crate::providers::queued::{Contender, Entered, Gone, QueueStore, QueuedProvider, Session, Ticket, have_it};
use crate::{Error, Features, Health, Holder, Listing, Mode, Order, Provider, WaitPolicy};

/// How long the service keeps a session that it hears nothing of.
const SESSION: Duration = Duration::from_secs(3);
/// How much sooner its owner believes it lost.
const MARGIN: Duration = Duration::from_millis(300);

/// The service: places in queues, which go with the sessions they were made in.
#[derive(Debug, Default)]
struct Service {
    queues: Mutex<Queues>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    sessions: BTreeMap<u64, Kept>,
    places: BTreeMap<u64, Stand>,
    last: u64,
}

/// A session, as the service keeps it.
#[derive(Debug)]
struct Kept {
    until: Instant,
    /// The highest number of a request in it. One that is overtaken is not carried out: its connection is gone.
    arrived: u64,
}

#[derive(Debug)]
struct Stand {
    name: String,
    ticket: String,
    mode: Mode,
    session: u64,
}

impl Service {
    /// The places whose sessions have not ended.
    fn alive(&self) -> MutexGuard<'_, Queues> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Queues { sessions, places, .. } = &mut *queues;
        sessions.retain(|_, session| Instant::now() < session.until);
        let before = places.len();
        places.retain(|_, stand| sessions.contains_key(&stand.session));
        if places.len() < before {
            self.changed.notify_waiters();
        }
        queues
    }
}

impl Queues {
    fn open_session(&mut self) -> u64 {
        self.last += 1;
        self.sessions.insert(self.last, Kept { until: Instant::now() + SESSION, arrived: 0 });
        self.last
    }

    /// A sign of life; false when the session has ended.
    fn hear_of(&mut self, session: u64) -> bool {
        let kept = self.sessions.get_mut(&session);
        kept.map(|kept| kept.until = Instant::now() + SESSION).is_some()
    }

    /// Whether a request of a session may still be carried out.
    fn arrives(&mut self, session: u64, number: u64) -> bool {
        let Some(kept) = self.sessions.get_mut(&session).filter(|kept| kept.arrived < number) else { return false };
        kept.arrived = number;
        true
    }

    fn queue(&self, name: &str) -> Vec<Contender> {
        let here = self.places.iter().filter(|(_, stand)| stand.name == name);
        here.map(|(order, stand)| contender(*order, stand)).collect()
    }

    fn enter(&mut self, session: u64, name: &str, ticket: &Ticket) -> Entered {
        self.last += 1;
        let stand = Stand { name: name.to_owned(), ticket: ticket.id.clone(), mode: ticket.mode, session };
        let own = contender(self.last, &stand);
        self.places.insert(self.last, stand);
        Entered { own, queue: self.queue(name) }
    }
}

fn contender(order: u64, stand: &Stand) -> Contender {
    Contender { node: order.to_string(), order, mode: stand.mode, token: Some(order) }
}

/// The way of one process to the service.
#[derive(Debug)]
struct Store {
    world: Arc<World>,
    service: Arc<Service>,
    process: usize,
    instance: String,
    session: Mutex<Option<Session>>,
    connected: Notify,
    requests: AtomicU64,
}

impl Store {
    fn current(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connected(&self) {
        loop {
            let connected = self.connected.notified();
            if self.current().is_some() {
                return;
            }
            connected.await;
        }
    }

    /// Opens sessions, one after the other, and keeps each alive.
    async fn keep(self: Arc<Self>) {
        loop {
            let (sent, service) = (Instant::now(), self.service.clone());
            let Ok(id) = self.world.call(self.process, move || service.alive().open_session()).await else { continue };
            let lease = Lease::until(sent + SESSION - MARGIN);
            *self.current() = Some(Session { lease: lease.clone(), generation: id });
            self.connected.notify_waiters();
            while !lease.is_lost() {
                tokio::select! {
                    biased;
                    () = lease.expired() => {}
                    () = self.beat(&lease, id) => {}
                }
            }
            *self.current() = None;
        }
    }

    async fn beat(&self, lease: &Lease, session: u64) {
        tokio::time::sleep(SESSION / 3).await;
        let (sent, service) = (Instant::now(), self.service.clone());
        match self.world.call(self.process, move || service.alive().hear_of(session)).await {
            Ok(true) => drop(lease.renew(sent + SESSION - MARGIN)),
            Ok(false) => lease.lose("the session has ended"),
            Err(_) => {}
        }
    }

    /// One request in a session.
    async fn ask<T: Send + 'static>(
        &self,
        session: &Session,
        mut request: impl FnMut(&mut Queues) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (service, session) = (self.service.clone(), session.generation);
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let carried_out = move || {
            let mut queues = service.alive();
            queues.arrives(session, number).then(|| request(&mut queues))
        };
        let answer = self.world.call(self.process, carried_out).await?;
        answer.ok_or_else(|| Error::Unavailable("the connection is gone".to_owned()))
    }
}

#[async_trait]
impl QueueStore for Store {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        Health::Up
    }

    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error> {
        if let WaitPolicy::Until(deadline) = wait {
            tokio::select! {
                biased;
                () = self.connected() => {}
                () = deadline.wait() => {}
            }
        }
        let current = self.current().clone();
        current.ok_or_else(|| Error::Unavailable("no session".to_owned()))
    }

    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error> {
        let (id, name, ticket) = (session.generation, name.to_owned(), ticket.clone());
        self.ask(session, move |queues| queues.enter(id, &name, &ticket)).await
    }

    async fn queue(&self, session: &Session, name: &str) -> Result<Vec<Contender>, Error> {
        let name = name.to_owned();
        self.ask(session, move |queues| queues.queue(&name)).await
    }

    async fn find(&self, session: &Session, _name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error> {
        let ticket = ticket.id.clone();
        let find = move |queues: &mut Queues| {
            let mut places = queues.places.iter();
            places.find(|(_, stand)| stand.ticket == ticket).map(|(order, stand)| contender(*order, stand))
        };
        self.ask(session, find).await
    }

    async fn gone(&self, session: &Session, _name: &str, contender: &Contender) -> Result<Gone, Error> {
        let order = contender.order;
        self.ask(session, |_| ()).await?;
        if self.world.chance(50) {
            return Ok(Gone::Perhaps);
        }
        loop {
            let changed = self.service.changed.notified();
            let until = {
                let queues = self.service.alive();
                let Some(stand) = queues.places.get(&order) else { break };
                queues.sessions.get(&stand.session).map_or_else(Instant::now, |session| session.until)
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
        self.world.call(self.process, || Gone::Surely).await
    }

    async fn leave(&self, session: &Session, _name: &str, own: &Contender) -> Result<bool, Error> {
        let order = own.order;
        let service = self.service.clone();
        let leave = move |queues: &mut Queues| {
            service.changed.notify_waiters();
            queues.places.remove(&order).is_some()
        };
        self.ask(session, leave).await
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        Ok(Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let mut queues = self.service.alive();
        let queue = queues.queue(name);
        self.service.changed.notify_waiters();
        Ok(have_it(&queue).filter(|holder| queues.places.remove(&holder.order).is_some()).count() > 0)
    }

    async fn close(&self) {}
}

fn simulate(seed: u64) -> Result<u64, String> {
    Simulation::run(seed, SESSION, |world| {
        let (world, service) = (world.clone(), Arc::new(Service::default()));
        Box::new(move |number: usize, gate: &Gate| -> Arc<dyn Provider> {
            let store = Arc::new(Store {
                world: world.clone(),
                service: service.clone(),
                process: number,
                instance: format!("process-{number}"),
                session: Mutex::default(),
                connected: Notify::new(),
                requests: AtomicU64::new(0),
            });
            let heart = Heart::behind(gate);
            heart.spawn("session", store.clone().keep());
            Arc::new(QueuedProvider::new(store, heart))
        })
    })
}

#[test]
fn nobody_holds_what_another_one_holds() {
    under_seeds(simulate);
}

#[test]
fn a_seed_replays() {
    assert_eq!(simulate(7), simulate(7));
    assert_ne!(simulate(7), simulate(8));
}
