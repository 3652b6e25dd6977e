//! Locks that are records with a time to live, over a simulated service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Gate, Simulation, World, under_seeds};
use crate::heart::Heart;
use crate::providers::leased::{Claim, LeaseStore, LeasedProvider, Take, Taken};
use crate::{Error, Features, Health, Holder, Listing, Options, Order, Provider, WaitPolicy};

const TIME_TO_LIVE: Duration = Duration::from_secs(3);

/// The service: records that go by themselves.
#[derive(Debug, Default)]
struct Service {
    /// A lock that is given back is handed on to whoever waits longest; otherwise all that wait are woken.
    hands_on: bool,
    state: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_name: BTreeMap<String, Record>,
    token: u64,
    /// In the order in which they came.
    waiting: BTreeMap<String, Vec<(Claim, Arc<Waiter>)>>,
}

/// What one that waits has heard of the service.
#[derive(Debug)]
struct Waiter {
    process: usize,
    wake: watch::Sender<()>,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// When it last looked and was answered, or looks for the first time, and the highest token then.
    looked: Option<(Instant, u64)>,
    yours: Option<Taken>,
}

impl Waiter {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of the service: only what is newer than the last look was given after that was sent.
    fn given(&self, token: u64) {
        let mut heard = self.heard();
        let looked = heard.looked.filter(|(_, highest)| token > *highest);
        heard.yours = looked.map(|(sent, _)| Taken { token: Some(token), deadline: sent + TIME_TO_LIVE });
        self.wake.send_replace(());
    }
}

impl Records {
    /// Whoever waits for it has it now, unless nobody does.
    fn hand_on(&mut self, name: &str) -> Option<(Arc<Waiter>, u64)> {
        let waiting = self.waiting.get_mut(name).filter(|waiting| !waiting.is_empty())?;
        let (claim, waiter) = waiting.remove(0);
        Some((waiter, self.give(&claim)))
    }

    fn give(&mut self, claim: &Claim) -> u64 {
        self.token += 1;
        let record = Record { id: claim.id.clone(), token: self.token, until: Instant::now() + TIME_TO_LIVE };
        self.by_name.insert(claim.name.clone(), record);
        self.token
    }

    fn leave_line(&mut self, claim: &Claim) {
        if let Some(waiting) = self.waiting.get_mut(&claim.name) {
            waiting.retain(|(other, _)| other.id != claim.id);
        }
    }
}

#[derive(Debug)]
struct Record {
    id: String,
    token: u64,
    until: Instant,
}

impl Service {
    /// The records that have not run out.
    fn alive(&self) -> std::sync::MutexGuard<'_, Records> {
        let mut records = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        records.by_name.retain(|_, record| Instant::now() < record.until);
        records
    }
}

/// The way of one process to the service.
#[derive(Debug)]
struct Store {
    world: Arc<World>,
    service: Arc<Service>,
    process: usize,
    instance: String,
    waiters: Mutex<BTreeMap<String, Arc<Waiter>>>,
}

impl Store {
    fn waiter(&self, claim: &Claim) -> Option<Arc<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).get(&claim.id).cloned()
    }

    fn forget(&self, claim: &Claim) {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).remove(&claim.id);
    }

    async fn ask<T: Send + 'static>(
        &self,
        claim: &Claim,
        request: impl Fn(&Claim, &mut Records) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (service, claim) = (self.service.clone(), claim.clone());
        self.world.call(self.process, move || request(&claim, &mut service.alive())).await
    }
}

#[async_trait]
impl LeaseStore for Store {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::Own, shared: false, listing: Listing::Own }
    }

    fn health(&self) -> Health {
        Health::Up
    }

    async fn ready(&self, _wait: WaitPolicy) -> Result<(), Error> {
        Ok(())
    }

    fn time_to_live(&self) -> Duration {
        TIME_TO_LIVE
    }

    fn poll_interval(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn keeps_order(&self) -> bool {
        self.service.hands_on
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let (sent, waiter) = (Instant::now(), self.waiter(claim));
        if let Some(waiter) = &waiter {
            waiter.heard().looked.get_or_insert((sent, 0));
        }
        let lines_up = waiter.clone().filter(|_| self.service.hands_on);
        let taken = move |claim: &Claim, records: &mut Records| match records.by_name.get(&claim.name) {
            Some(record) if record.id == claim.id => Ok((record.token, record.until - Instant::now())),
            Some(record) => {
                let (left, highest) = (record.until - Instant::now(), records.token);
                if let Some(waiter) = &lines_up {
                    records.leave_line(claim);
                    records.waiting.entry(claim.name.clone()).or_default().push((claim.clone(), waiter.clone()));
                }
                Err((left, highest))
            }
            None => {
                records.leave_line(claim);
                Ok((records.give(claim), TIME_TO_LIVE))
            }
        };
        Ok(match self.ask(claim, taken).await? {
            Ok((token, left)) => {
                self.forget(claim);
                Take::Taken(Taken { token: Some(token), deadline: sent + left })
            }
            Err((remaining, highest)) => {
                if let Some(waiter) = waiter {
                    waiter.heard().looked = Some((sent, highest));
                }
                Take::Held(Some(remaining))
            }
        })
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let sent = Instant::now();
        let (service, claims) = (self.service.clone(), claims.to_vec());
        let extend = move || {
            let mut records = service.alive();
            let extended = |claim: &Arc<Claim>| {
                let record = records.by_name.get_mut(&claim.name).filter(|record| record.id == claim.id)?;
                record.until = Instant::now() + TIME_TO_LIVE;
                Some(sent + TIME_TO_LIVE)
            };
            claims.iter().map(extended).collect()
        };
        self.world.call(self.process, extend).await
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let sent = Instant::now();
        let found = move |claim: &Claim, records: &mut Records| {
            let record = records.by_name.get(&claim.name).filter(|record| record.id == claim.id)?;
            // What is left of its time, as of when this was asked.
            let left = record.until - Instant::now();
            Some(Taken { token: Some(record.token), deadline: sent + left })
        };
        self.ask(claim, found).await
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        self.forget(claim);
        let (world, hands_on) = (self.world.clone(), self.service.hands_on);
        self.ask(claim, move |claim, records| {
            let ours = records.by_name.get(&claim.name).is_some_and(|record| record.id == claim.id);
            records.leave_line(claim);
            if ours {
                records.by_name.remove(&claim.name);
                if hands_on {
                    if let Some((waiter, token)) = records.hand_on(&claim.name) {
                        world.message(waiter.process, move || waiter.given(token));
                    }
                } else if let Some(waiting) = records.waiting.get(&claim.name) {
                    waiting.iter().for_each(|(_, waiter)| waiter.wake.send_replace(()));
                }
            }
            ours
        })
        .await
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        let waiter =
            Arc::new(Waiter { process: self.process, wake: watch::Sender::default(), heard: Mutex::default() });
        let woken = waiter.wake.subscribe();
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).insert(claim.id.clone(), waiter.clone());
        if !self.service.hands_on {
            let wait = move |claim: &Claim, records: &mut Records| {
                records.waiting.entry(claim.name.clone()).or_default().push((claim.clone(), waiter.clone()));
            };
            self.ask(claim, wait).await?;
        }
        Ok(woken)
    }

    fn handed_on(&self, claim: &Claim) -> Option<Taken> {
        self.waiter(claim)?.heard().yours
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        Ok(Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        Ok(self.service.alive().by_name.remove(name).is_some())
    }

    async fn close(&self) {}
}

fn simulate(seed: u64) -> Result<u64, String> {
    Simulation::run(seed, TIME_TO_LIVE, |world| {
        let service = Service { hands_on: world.chance(500), ..Service::default() };
        let (world, service) = (world.clone(), Arc::new(service));
        Box::new(move |number: usize, gate: &Gate| -> Arc<dyn Provider> {
            let store = Store {
                world: world.clone(),
                service: service.clone(),
                process: number,
                instance: format!("process-{number}"),
                waiters: Mutex::default(),
            };
            Arc::new(LeasedProvider::new(Arc::new(store), &Heart::behind(gate), &Options::default()))
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
