//! Locks as records of memcached.
//!
//! **Whose a record is** its value tells: our member id and the claim's own id. tooz writes its member id there and compares with
//! that, so each leaves the other's alone. A record that still has a claim's id was never anybody else's in between.
//!
//! **Atomic.** Memcached numbers each write of a record. What extends or removes a record names the number that it had when it
//! was known to be ours, so it never touches another's (tooz reads, compares, then deletes whatever is there by then). The
//! numbers begin anew when the server is started again, so they are only good on the connections that were there when they came.
//!
//! **Memcached's clock** moves once a second: a record may go up to a second early. And a server that was stopped stamps the first
//! requests after it goes on with the time at which it was stopped: a deadline does not count from the request, but from
//! when the server's clock last ran for sure before it. That is why it is asked all the time whether it is there.
//!
//! **A restart forgets everything**, and all that we see of it is that the connection ends. So whatever is held counts as
//! lost when it does: perhaps needlessly, but never too late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use rand::Rng;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::client::{Client, Stream};
use super::options::Settings;
use super::wire::{Answer, Command, Expiry, LONGEST_KEY, Verb};
use crate::heart::Heart;
use crate::link::{Connection, Link};
use crate::name::bare;
use crate::providers::leased::{Claim, LeaseStore, Take, Taken};
use crate::{Error, Features, Health, Holder, Listing, Options, Order, WaitPolicy};

pub(super) const KIND: &str = "memcached";

/// What tooz puts before the name of a lock (`MemcachedLock._LOCK_PREFIX`).
const PREFIX: &str = "__TOOZ_LOCK_";

/// Before the name of a lock: the instance that began to wait for it last. A record that is gone does not tell whose it was, so an
/// instance that takes the lock turn after turn would not see that others have it in between.
const WAITS: &str = "__SCORIA_WT_";

/// How long that stands, in seconds: longer than it takes to get in where room is made.
const WAITS_FOR: u32 = 5;

/// How much earlier than told memcached may forget.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// How long a waiter may sleep before it looks: memcached cannot tell when a lock becomes free.
const POLL: Duration = Duration::from_millis(20);

/// How often tooz looks (`tooz/_retry.py`).
const PEERS_POLL: Duration = Duration::from_secs(1);

/// How often a change of our own may come between two looks at our own record.
const TRIES: u32 = 5;

#[derive(Debug)]
pub(super) struct Store {
    instance: String,
    settings: Arc<Settings>,
    link: Arc<Link<Connected>>,
    heart: Heart,
    lost_sight: Arc<Notify>,
    never: watch::Sender<()>,
}

/// Two connections to one server, which end together, and what is known of our records there.
#[derive(Debug)]
struct Connected {
    /// On the thread for beats. Both end when nobody has this one any more.
    beats: Client,
    /// On the executor of the callers.
    requests: Client,
    ours: Mutex<HashMap<String, Ours>>,
    lost_sight: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Ours {
    unique: u64,
    /// Past this it has gone by itself.
    deadline: Instant,
}

/// What a look at a lock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nobodys,
    Ours(u64),
    Anothers,
}

impl Store {
    /// Starts to connect.
    pub(super) fn open(settings: Settings, options: &Options, heart: Heart) -> Self {
        let store = Self {
            instance: options.instance.clone(),
            settings: Arc::new(settings),
            link: Arc::new(Link::new(KIND)),
            heart,
            lost_sight: Arc::default(),
            never: watch::Sender::new(()),
        };
        let (link, settings, options) = (store.link.clone(), store.settings.clone(), options.clone());
        let (heart, lost_sight) = (store.heart.clone(), store.lost_sight.clone());
        store.heart.spawn("memcached-link", async move {
            let connect = || connect(&settings, &heart, &lost_sight);
            link.supervise(&options, heart.stopping(), connect).await;
        });
        store
    }

    fn connected(&self) -> Result<Arc<Connected>, Error> {
        let connected = self.link.current()?;
        match connected.requests.why_over() {
            None => Ok(connected),
            Some(why) => Err(Error::Unavailable(why)),
        }
    }

    fn value(&self, claim: &Claim) -> String {
        format!("{} {}", self.instance, claim.id)
    }

    /// Until when a record is good that was written for a lock's whole time.
    fn deadline(&self, counts_from: Instant) -> Instant {
        counts_from + self.time_to_live().saturating_sub(CLOCK_STEP)
    }

    fn seen(&self, claim: &Claim, answer: &Answer) -> Result<Seen, Error> {
        match &answer.record {
            None => Ok(Seen::Nobodys),
            Some(record) if record.value != self.value(claim).as_bytes() => Ok(Seen::Anothers),
            // Without the numbers nothing could be removed safely.
            Some(record) if record.unique == 0 => Err(Error::Unsupported(NO_CAS.to_owned())),
            Some(record) => Ok(Seen::Ours(record.unique)),
        }
    }

    /// Writes a claim's record: whether it was written, what is there then, and the time that counts.
    async fn write(
        &self,
        over: &Client,
        verb: Verb,
        claim: &Claim,
        expiry: Expiry,
    ) -> Result<(bool, Seen, Instant), Error> {
        let (key, value) = (key(&claim.name)?, self.value(claim));
        let (answer, counts_from) = over.ask(Command::Write { verb, key: &key, value: &value, expiry }).await?;
        Ok((answer.line == "STORED", self.seen(claim, &answer)?, counts_from))
    }

    async fn look(&self, on: &Connected, claim: &Claim) -> Result<Seen, Error> {
        let (answer, _) = on.requests.ask(Command::Look { key: &key(&claim.name)? }).await?;
        self.seen(claim, &answer)
    }

    /// Extends a record if it is the claim's. `known` is what was seen of it last.
    async fn confirm(
        &self,
        on: &Connected,
        over: &Client,
        claim: &Claim,
        mut known: Seen,
    ) -> Result<Option<Taken>, Error> {
        for _ in 0..TRIES {
            let Seen::Ours(unique) = known else { break };
            let whole = Expiry::In(self.settings.lock_timeout);
            let (done, seen, counts_from) = self.write(over, Verb::Swap(unique), claim, whole).await?;
            if let (true, Seen::Ours(unique)) = (done, seen) {
                let deadline = self.deadline(counts_from);
                on.know(claim, Ours { unique, deadline });
                return Ok(Some(Taken { token: None, deadline }));
            }
            known = seen;
        }
        on.forget(claim);
        Ok(None)
    }
}

const NO_CAS: &str = "memcached runs without CAS (option -C): locks cannot be given back safely; start it without -C";

async fn connect(settings: &Settings, heart: &Heart, lost_sight: &Arc<Notify>) -> Result<Connected, Error> {
    let (host, port) = (&settings.host, settings.port);
    let failed = |why: String| Error::Unavailable(format!("memcached at {host}:{port}: {why}"));
    let stream = timeout(settings.patience, connected_stream(settings)).await;
    let stream = stream.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(error.to_string()))?;
    let (beats, work) = Client::over(stream, settings.patience, settings.pulse);
    heart.spawn("memcached-beats", work);
    let (answer, _) = beats.ask(Command::Settings).await.map_err(|error| match error {
        Error::Unavailable(why) => failed(format!("{why}; is use_ssl={} right?", settings.tls.is_some())),
        other => other,
    })?;
    if answer.lines.iter().any(|line| line == "STAT cas_enabled no") {
        return Err(failed(NO_CAS.to_owned()));
    }
    let second = settings.clone();
    let second = heart.callers().spawn(async move { connected_stream(&second).await });
    let requests = match timeout(settings.patience, second).await {
        Ok(Ok(stream)) => {
            let (requests, work) = beats.beside(stream.map_err(|error| failed(error.to_string()))?);
            // It is asked from there whether it is there, too: nobody else could tell a silent server from a busy executor.
            let pulse = requests.clone();
            heart.spawn_beside_callers("memcached-requests", async move {
                drop(tokio::join!(work, pulse.ended()));
            });
            requests
        }
        // An executor that is too busy for this must not keep beats from beginning.
        _ => beats.clone(),
    };
    // If the first one still answers, both lead to the same server.
    beats.ask(Command::Version).await?;
    beats.awake().await;
    Ok(Connected { beats, requests, ours: Mutex::default(), lost_sight: lost_sight.clone() })
}

async fn connected_stream(settings: &Settings) -> std::io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((settings.host.as_str(), settings.port)).await?;
    tcp.set_nodelay(true)?;
    Ok(match &settings.tls {
        None => Box::new(tcp),
        Some(tls) => Box::new(tls.connect(tcp).await?),
    })
}

impl Connected {
    fn ours(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ours>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, claim: &Claim, ours: Ours) {
        self.ours().insert(claim.id.clone(), ours);
    }

    fn known(&self, claim: &Claim) -> Seen {
        self.ours().get(&claim.id).map_or(Seen::Nobodys, |ours| Seen::Ours(ours.unique))
    }

    fn forget(&self, claim: &Claim) {
        self.ours().remove(&claim.id);
    }
}

impl Connection for Connected {
    async fn ended(&self) -> String {
        let why = self.beats.ended().await;
        self.lost_sight.notify_one();
        why
    }
}

/// The key of a lock's record; the name has its `cinder-` prefix.
fn key(name: &str) -> Result<String, Error> {
    let refused = |reason: String| Error::Name { name: bare(name).to_owned(), reason };
    if name.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(refused("memcached allows neither blanks nor control characters".to_owned()));
    }
    let longest = LONGEST_KEY - PREFIX.len() - crate::PREFIX.len();
    if bare(name).len() > longest {
        return Err(refused(format!("it is longer than {longest} characters, memcached's keys have at most 250")));
    }
    Ok(format!("{PREFIX}{name}"))
}

fn waits(name: &str) -> Result<String, Error> {
    Ok(key(name)?.replacen(PREFIX, WAITS, 1))
}

#[async_trait]
impl LeaseStore for Store {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn features(&self) -> Features {
        Features { token: false, order: Order::Own, shared: false, listing: Listing::Own }
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    async fn others_wait(&self, name: &str) -> Result<bool, Error> {
        let (answer, _) = self.connected()?.requests.ask(Command::Look { key: &waits(name)? }).await?;
        Ok(answer.record.is_some_and(|record| record.value != self.instance.as_bytes()))
    }

    async fn ready(&self, wait: WaitPolicy) -> Result<(), Error> {
        self.link.ready(wait).await.map(drop)
    }

    fn time_to_live(&self) -> Duration {
        Duration::from_secs(self.settings.lock_timeout.into())
    }

    fn poll_interval(&self) -> Duration {
        // Never the same twice: whoever looks in step with those who take and give back finds it free every time, or never.
        rand::rng().random_range(POLL / 2..=POLL)
    }

    fn wakes_within(&self) -> Duration {
        POLL
    }

    fn peers_poll(&self) -> Option<Duration> {
        Some(PEERS_POLL)
    }

    async fn suspect(&self) {
        self.lost_sight.notified().await;
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let on = self.connected()?;
        let whole = Expiry::In(self.settings.lock_timeout);
        match self.write(&on.requests, Verb::Add, claim, whole).await? {
            (true, Seen::Ours(unique), counts_from) => {
                // What was told before the connection ended may have been forgotten since.
                on.requests.why_over().map_or(Ok(()), |why| Err(Error::Unavailable(why)))?;
                let deadline = self.deadline(counts_from);
                on.know(claim, Ours { unique, deadline });
                Ok(Take::Taken(Taken { token: None, deadline }))
            }
            // An earlier try of the same claim did it.
            (false, seen @ Seen::Ours(_), _) => {
                Ok(self.confirm(&on, &on.requests, claim, seen).await?.map_or(Take::Held(None), Take::Taken))
            }
            (true, _, _) => Err(Error::Unavailable("memcached forgot a lock at once".to_owned())),
            (false, _, _) => Ok(Take::Held(None)),
        }
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let Ok(on) = self.connected() else { return Ok(vec![None; claims.len()]) };
        on.ours().retain(|_, ours| ours.deadline > Instant::now());
        let extended = claims.iter().map(|claim| self.confirm(&on, &on.beats, claim, on.known(claim)));
        let extended = try_join_all(extended).await?;
        Ok(extended.into_iter().map(|taken| taken.map(|taken| taken.deadline)).collect())
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let on = self.connected()?;
        let seen = self.look(&on, claim).await?;
        self.confirm(&on, &on.requests, claim, seen).await
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        let on = self.connected()?;
        let mut seen = on.known(claim);
        if seen == Seen::Nobodys {
            seen = self.look(&on, claim).await?;
        }
        on.forget(claim);
        for _ in 0..TRIES {
            let Seen::Ours(unique) = seen else { return Ok(false) };
            let (done, now, _) = self.write(&on.requests, Verb::Swap(unique), claim, Expiry::Now).await?;
            if done {
                return Ok(true);
            }
            seen = now;
        }
        Err(Error::Unavailable("memcached: a lock was extended again and again while it was given back".to_owned()))
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        let (key, expiry) = (waits(&claim.name)?, Expiry::In(WAITS_FOR));
        let word = Command::Write { verb: Verb::Set, key: &key, value: &self.instance, expiry };
        self.connected()?.requests.ask(word).await?;
        Ok(self.never.subscribe())
    }

    /// What we hold the coordinator itself knows.
    async fn list(&self) -> Result<Vec<Holder>, Error> {
        self.connected().map(|_| Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let on = self.connected()?;
        let (answer, _) = on.requests.ask(Command::Delete { key: &key(name)? }).await?;
        Ok(answer.line == "DELETED")
    }

    async fn close(&self) {
        if let Ok(connected) = self.link.current() {
            connected.beats.end("closed");
        }
        self.heart.stop().await;
    }
}
