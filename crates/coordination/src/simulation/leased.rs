//! Locks that are records with a time to live, over a simulated service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::name::bare;
use crate::providers::leased::{Claim, LeaseStore, LeasedProvider, Take, Taken};
use crate::{Error, Features, Health, Holder, Listing, Mode, Options, Owner, WaitPolicy};

use super::{Gate, Simulation, World, under_seeds};

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
    changed: BTreeMap<String, watch::Sender<()>>,
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
        Features { token: true, order: false, shared: false, listing: Listing::Own }
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
                if let Some(changed) = records.changed.get(&claim.name) {
                    changed.send_replace(());
                }
            }
            ours
        })
        .await
    }

    async fn watch(&self, name: &str) -> Result<watch::Receiver<()>, Error> {
        let (service, name) = (self.service.clone(), name.to_owned());
        self.world.call(move || service.alive().changed.entry(name.clone()).or_default().subscribe()).await
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        let service = self.service.clone();
        let holder = |(name, record): (&String, &Record)| Holder {
            name: bare(name).to_owned(),
            mode: Mode::Exclusive,
            held: true,
            instance: record.id.clone(),
            host: None,
            owner: Owner::default(),
            since: None,
            token: Some(record.token),
        };
        self.world.call(move || service.alive().by_name.iter().map(holder).collect()).await
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let (service, name) = (self.service.clone(), name.to_owned());
        self.world.call(move || service.alive().by_name.remove(&name).is_some()).await
    }

    async fn close(&self) {}
}
