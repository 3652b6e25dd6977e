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
    state: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_name: BTreeMap<String, Record>,
    token: u64,
    /// One for each that waits, so that they wake in order.
    waiting: BTreeMap<String, Vec<watch::Sender<()>>>,
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
    instance: String,
}

impl Store {
    async fn ask<T: Send + 'static>(
        &self,
        claim: &Claim,
        request: impl Fn(&Claim, &mut Records) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (service, claim) = (self.service.clone(), claim.clone());
        self.world.call(move || request(&claim, &mut service.alive())).await
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

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let sent = Instant::now();
        let taken = |claim: &Claim, records: &mut Records| match records.by_name.get(&claim.name) {
            Some(record) => Err(record.until - Instant::now()),
            None => {
                records.token += 1;
                let (id, token) = (claim.id.clone(), records.token);
                let record = Record { id, token, until: Instant::now() + TIME_TO_LIVE };
                records.by_name.insert(claim.name.clone(), record);
                Ok(token)
            }
        };
        Ok(match self.ask(claim, taken).await? {
            Ok(token) => Take::Taken(Taken { token: Some(token), deadline: sent + TIME_TO_LIVE }),
            Err(remaining) => Take::Held(Some(remaining)),
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
        self.world.call(extend).await
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
        self.ask(claim, |claim, records| {
            let ours = records.by_name.get(&claim.name).is_some_and(|record| record.id == claim.id);
            if ours {
                records.by_name.remove(&claim.name);
                let waiting = records.waiting.entry(claim.name.clone()).or_default();
                waiting.retain(|waiting| waiting.send(()).is_ok());
            }
            ours
        })
        .await
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        let wait = |claim: &Claim, records: &mut Records| {
            let (wakes, woken) = watch::channel(());
            records.waiting.entry(claim.name.clone()).or_default().push(wakes);
            woken
        };
        self.ask(claim, wait).await
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
        let (world, service) = (world.clone(), Arc::new(Service::default()));
        Box::new(move |number: usize, gate: &Gate| -> Arc<dyn Provider> {
            let instance = format!("process-{number}");
            let store = Arc::new(Store { world: world.clone(), service: service.clone(), instance });
            Arc::new(LeasedProvider::new(store, &Heart::behind(gate), &Options::default()))
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
