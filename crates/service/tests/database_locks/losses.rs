//! Links and servers that are silent or away for longer than a lease: who holds a lock is told before another one has it.

use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, LockSet};
use scoria_runtime::Tasks;
use scoria_testkit::faults::Link;
use tokio::task::JoinHandle;

use crate::crowd::Crowd;
use crate::place::Place;
use crate::{SOON, coordinator, soon};

const LEASE: Duration = Duration::from_secs(5);
const URL: &str = "database://?lock_timeout=5";

/// Somebody who has a lock, and somebody else who waits for it.
struct Contended {
    held: LockSet,
    waiting: JoinHandle<LockSet>,
}

impl Contended {
    async fn new(holder: &Coordinator, waiter: &Coordinator, name: &'static str) -> Self {
        let held = soon(holder, name).await;
        let (waiter, lost) = (waiter.clone(), held.lost());
        let waiting = Tasks::new().spawn("waiter", async move {
            let next = soon(&waiter, name).await;
            assert!(lost.is_cancelled(), "two holders");
            next
        });
        Self { held, waiting }
    }

    /// Since then nothing that it asks is answered.
    async fn is_lost_in_time(&self, since: Instant) {
        tokio::time::timeout(SOON, self.held.lost().cancelled()).await.expect("the loss is told");
        assert!(since.elapsed() < LEASE, "{:?}", since.elapsed());
    }

    async fn goes_to_the_waiter(self) {
        let next = self.waiting.await.unwrap();
        assert!(next.token() > self.held.token());
        assert!(matches!(self.held.release().await, Err(Error::Lost { .. })));
        next.verify().await.unwrap();
        next.release().await.unwrap();
    }
}

async fn silence_is_told_in_time(mut place: Place) {
    let behind: [_; 3] = std::array::from_fn(|_| place.proxied());
    let [one, two, three] = behind.each_ref().map(|(_, url)| url.as_str());
    let crowd = Crowd::start(&[one, two, three, &place.url], URL).await;
    let direct = coordinator(&place.url, "direct", URL).await;

    // Each of the links fails in a way of its own, for as long as it takes.
    let faults = [("a", Link::Stalled), ("b", Link::Cut), ("c", Link::AnswersLost)];
    let mut locks = Vec::new();
    for ((_, url), (name, _)) in behind.iter().zip(faults) {
        locks.push(Contended::new(&coordinator(url, name, URL).await, &direct, name).await);
    }
    crowd.keeps().await;
    let since = Instant::now();
    for ((proxy, _), (_, fault)) in behind.iter().zip(faults) {
        proxy.set(fault);
    }
    futures_util::future::join_all(locks.iter().map(|lock| lock.is_lost_in_time(since))).await;
    for lock in locks {
        lock.goes_to_the_waiter().await;
    }
    // And each in another way for a moment.
    for round in 1..3 {
        crowd.keeps().await;
        for (number, (proxy, _)) in behind.iter().enumerate() {
            proxy.set(faults[(number + round) % 3].1);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (proxy, _) in &behind {
            proxy.set(Link::Up);
            proxy.cut();
        }
        crowd.goes_on().await;
    }

    let lock = Contended::new(&direct, &coordinator(&place.url, "other", URL).await, "paused").await;
    crowd.keeps().await;
    place.pause();
    let since = Instant::now();
    lock.is_lost_in_time(since).await;
    tokio::time::sleep_until((since + LEASE).into()).await;
    place.resume();
    lock.goes_to_the_waiter().await;
    crowd.goes_on().await;

    let lock = Contended::new(&direct, &coordinator(&place.url, "other", URL).await, "killed").await;
    crowd.keeps().await;
    place.kill();
    let since = Instant::now();
    lock.is_lost_in_time(since).await;
    tokio::time::sleep_until((since + LEASE).into()).await;
    place.restart().await;
    lock.goes_to_the_waiter().await;
    crowd.goes_on().await;
    let summary = crowd.ends().await;
    // At least where nobody was answered.
    assert!(summary.acquired > 30 && summary.lost >= 2, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_s_silence_is_told_in_time_and_there_are_never_two_holders() {
    silence_is_told_in_time(Place::own_mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_s_silence_is_told_in_time_and_there_are_never_two_holders() {
    silence_is_told_in_time(Place::own_postgresql().await).await;
}

/// Somebody else, a backup for instance, has the file to itself for longer than a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_s_silence_is_told_in_time() {
    let place = Place::sqlite().await;
    let (one, two) = (coordinator(&place.url, "one", URL).await, coordinator(&place.url, "two", URL).await);
    let lock = Contended::new(&one, &two, "a").await;
    let alone = place.taken_by_another_process();
    let since = Instant::now();
    lock.is_lost_in_time(since).await;
    tokio::time::sleep_until((since + LEASE).into()).await;
    assert!(!lock.waiting.is_finished(), "nobody can give it the lock");
    drop(alone);
    lock.goes_to_the_waiter().await;
}
