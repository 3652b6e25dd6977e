//! Locks as records in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Script};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::heart::Heart;
use crate::link::Link;
use crate::providers::leased::{Claim, LeaseStore, Take, Taken};
use crate::{Error, Features, Health, Holder, Listing, Options, Order, WaitPolicy};

use super::connection::Connection;
use super::keys::{Details, HOLDER, Keys, LOCK};
use super::options::RedisOptions;
use super::scripts::{self, Scripts};
use super::wakes::Wakes;

/// How many locks one script extends: others have to come in between.
const EXTENDED_AT_ONCE: usize = 500;

/// How long a waiter sleeps that the server wakes.
const TOLD: Duration = Duration::from_secs(1);
/// How long one sleeps that it does not: as a Python peer.
const UNTOLD: Duration = Duration::from_millis(100);

/// What the server may have forgotten of what we hold.
#[derive(Debug, Default)]
struct Memory {
    /// What is held has to be looked at.
    in_doubt: Notify,
    /// The server with which we talked last is dead, and has forgotten everything.
    lost: AtomicBool,
    /// It would have forgotten nothing.
    kept: AtomicBool,
}

impl Memory {
    /// Another server, or the same one anew, may know nothing of what we hold.
    fn connected(&self, keeps: bool) {
        self.lost.store(false, Ordering::SeqCst);
        self.kept.store(keeps, Ordering::SeqCst);
        self.in_doubt.notify_one();
    }

    /// The server is dead. Once it lives again anybody can have what was ours, so that is lost now.
    fn server_died(&self) {
        if !self.kept.load(Ordering::SeqCst) && !self.lost.swap(true, Ordering::SeqCst) {
            self.in_doubt.notify_one();
        }
    }
}

/// A Redis server, or the master of several, as a keeper of locks.
#[derive(Debug)]
pub(super) struct RedisStore {
    pub(super) keys: Keys,
    pub(super) link: Arc<Link<Connection>>,
    scripts: Arc<Scripts>,
    wakes: Arc<Wakes>,
    memory: Arc<Memory>,
    instance: String,
    host: Option<String>,
    lock_timeout: Duration,
    heart: Heart,
}

impl RedisStore {
    /// Connects in the background.
    pub(super) fn start(redis: RedisOptions, options: &Options, heart: &Heart) -> Self {
        let store = Self {
            keys: Keys::new(&redis.namespace),
            link: Arc::new(Link::new("redis")),
            scripts: Arc::new(Scripts::new()),
            wakes: Arc::new(Wakes::new(redis.lock_timeout)),
            memory: Arc::default(),
            instance: options.instance.clone(),
            host: nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()),
            lock_timeout: redis.lock_timeout,
            heart: heart.branch(),
        };
        let (link, scripts, wakes) = (store.link.clone(), store.scripts.clone(), store.wakes.clone());
        let (memory, options, stop) = (store.memory.clone(), options.clone(), store.heart.stopping());
        let channel = format!("{}{}", store.keys.channel, store.instance);
        let look = options.heartbeat.min(redis.lock_timeout / 3);
        let callers = heart.callers().clone();
        store.heart.spawn("redis-link", async move {
            let connect = async || {
                match Connection::open(&redis, look, &scripts, &wakes, &channel, &callers).await {
                    Ok(connection) => {
                        memory.connected(connection.remembers);
                        // Another server does not know who waits.
                        wakes.all();
                        Ok(connection)
                    }
                    Err(failed) => {
                        if failed.refused {
                            memory.server_died();
                        }
                        Err(failed.error)
                    }
                }
            };
            link.supervise(&options, stop, connect).await;
        });
        store
    }

    /// How a claim stands in line, see `record.lua`.
    fn member(&self, claim: &Claim) -> String {
        let details = Details::new(&self.instance, self.host.as_deref(), &claim.owner);
        let details = serde_json::to_string(&details).expect("text can be written as JSON");
        format!("{} {} {details}", claim.id, self.lock_timeout.as_millis())
    }

    /// Runs a script on the keys of one lock.
    async fn run<T: FromRedisValue>(&self, script: &Script, name: &str, arguments: &[&str]) -> Result<T, Error> {
        let connection = self.link.current()?;
        let bytes = self.keys.bytes(name) + arguments.iter().map(|argument| argument.len()).sum::<usize>();
        let mut call = scripts::call(script, Keys::GIVEN, bytes);
        self.keys.give(&mut call, name);
        call.arg(arguments);
        connection.run(async |mut connection| scripts::run(script, &call, &mut connection).await).await
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn left(millis: i64) -> Duration {
    Duration::from_millis(millis.max(0).unsigned_abs())
}

#[async_trait]
impl LeaseStore for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: false, listing: Listing::All }
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    async fn ready(&self, wait: WaitPolicy) -> Result<(), Error> {
        self.link.ready(wait).await.map(drop)
    }

    fn time_to_live(&self) -> Duration {
        self.lock_timeout
    }

    fn poll_interval(&self) -> Duration {
        match self.link.current() {
            // What it is told counts from its last look, so that must not be long ago.
            Ok(connection) if connection.told => TOLD.min(self.lock_timeout / 3),
            _ => UNTOLD,
        }
    }

    fn keeps_order(&self) -> bool {
        true
    }

    async fn suspect(&self) {
        tokio::select! {
            biased;
            () = self.memory.in_doubt.notified() => {}
            () = self.wakes.gone.notified() => {}
        }
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let (member, sent) = (self.member(claim), Instant::now());
        let waits = if self.wakes.looks(&claim.id, sent) { "1" } else { "0" };
        let waited = (sent - claim.since).as_micros().to_string();
        let arguments = [&member, &self.keys.channel, waits, &waited];
        let answer: Vec<i64> = self.run(&self.scripts.take, &claim.name, &arguments).await?;
        match answer[..] {
            [1, token, ms] => {
                self.wakes.forget(&claim.id);
                let token = u64::try_from(token).ok();
                Ok(Take::Taken(Taken { token, deadline: sent + left(ms) }))
            }
            [0, ms, token] => {
                self.wakes.looked(&claim.id, sent, token.unsigned_abs());
                Ok(Take::Held(Some(left(ms))))
            }
            _ => Err(Error::Unavailable(format!("the server's answer cannot be understood: {answer:?}"))),
        }
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let connection = match self.link.current() {
            Err(_) if self.memory.lost.load(Ordering::SeqCst) => return Ok(vec![None; claims.len()]),
            connection => connection?,
        };
        let sent = Instant::now();
        let ttl = millis(self.lock_timeout);
        let mut extended = Vec::with_capacity(claims.len());
        for some in claims.chunks(EXTENDED_AT_ONCE) {
            let extend = &self.scripts.extend;
            let mut call = scripts::call(extend, 2 * some.len(), 0);
            for claim in some {
                call.arg(self.keys.of(&claim.name, LOCK)).arg(self.keys.of(&claim.name, HOLDER));
            }
            call.arg(&ttl);
            for claim in some {
                call.arg(&claim.id);
            }
            let ours: Vec<bool> =
                connection.beat(async |mut connection| scripts::run(extend, &call, &mut connection).await).await?;
            extended.extend(ours.into_iter().map(|ours| ours.then(|| sent + self.lock_timeout)));
        }
        Ok(extended)
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let sent = Instant::now();
        let answer: Vec<i64> = self.run(&self.scripts.find, &claim.name, &[&claim.id]).await?;
        Ok(match answer[..] {
            [token, ms] => {
                let token = u64::try_from(token).ok().filter(|token| *token > 0);
                Some(Taken { token, deadline: sent + left(ms) })
            }
            _ => None,
        })
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        self.wakes.forget(&claim.id);
        self.run(&self.scripts.give_back, &claim.name, &[&self.member(claim), &self.keys.channel]).await
    }

    /// The next try lines the claim up.
    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        Ok(self.wakes.wait(&claim.id))
    }

    fn handed_on(&self, claim: &Claim) -> Option<Taken> {
        self.wakes.yours(&claim.id)
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        super::list::list(self).await
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        self.run(&self.scripts.break_lock, name, &[&self.keys.channel]).await
    }

    async fn close(&self) {
        self.heart.stop().await;
    }
}
