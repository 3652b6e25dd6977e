//! The engine over a small store in memory, on paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::{Rng, SeedableRng};
use scoria_runtime::Deadline;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::{Listing, Order};

const SECOND: Duration = Duration::from_secs(1);
const TIME_TO_LIVE: Duration = Duration::from_secs(3);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It does not reach the service.
    Lost,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
    /// It is carried out after so long, although nobody waits for it any more.
    Late(Duration),
    /// No request is answered.
    Down,
}

/// A service in memory; clones are ways to the same one.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Service>);

#[derive(Debug, Default)]
struct Service {
    lines_up: bool,
    /// It tells nobody: waiters look, after 5 ms at first and every [`LONGEST_LOOK`] in the end.
    tells_nobody: bool,
    requests: AtomicU64,
    state: Mutex<State>,
    reconnected: tokio::sync::Notify,
    late: scoria_runtime::Tasks,
}

#[derive(Debug, Default)]
struct State {
    token: u64,
    records: BTreeMap<String, (String, u64, Instant)>,
    wakes: BTreeMap<String, watch::Sender<()>>,
    /// Claims that wait, for as long as they are not given back.
    line: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl Memory {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.records.retain(|_, (_, _, until)| *until > Instant::now());
        state
    }

    fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    fn fail_next(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    fn free(&self, name: &str) -> bool {
        !self.state().records.contains_key(name)
    }

    /// Wakes somebody whenever the lock is found free.
    async fn look(self, name: String, wake: watch::Sender<()>) {
        const FIRST: Duration = Duration::from_millis(5);
        let mut pause = FIRST;
        let mut chance = rand::rngs::StdRng::seed_from_u64(self.requests());
        while !wake.is_closed() {
            tokio::time::sleep(chance.random_range(pause / 2..=pause)).await;
            let name = name.clone();
            if let Ok(false) = self.call(move |state| state.records.contains_key(&name)).await {
                wake.send_replace(());
                pause = FIRST;
            } else {
                pause = (pause * 5 / 4).min(LONGEST_LOOK);
            }
        }
    }

    /// One round trip.
    async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Error> {
        const WAY: Duration = Duration::from_millis(1);
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let fault = {
            let faults = &mut self.state().faults;
            if faults.first() == Some(&Fault::Down) { Some(Fault::Down) } else { faults.pop() }
        };
        tokio::time::sleep(WAY).await;
        match fault {
            Some(Fault::Lost | Fault::Down) => std::future::pending().await,
            Some(Fault::AnswerLost) => {
                request(&mut self.state());
                std::future::pending().await
            }
            Some(Fault::Late(late)) => {
                let memory = self.clone();
                drop(self.0.late.spawn("late", async move {
                    tokio::time::sleep(late).await;
                    request(&mut memory.state());
                }));
                std::future::pending().await
            }
            None => {
                let answer = request(&mut self.state());
                tokio::time::sleep(WAY).await;
                Ok(answer)
            }
        }
    }
}

#[async_trait]
impl LeaseStore for Memory {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn instance(&self) -> &str {
        "test"
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
        SECOND
    }

    fn peers_poll(&self) -> Option<Duration> {
        Some(SECOND / 10)
    }

    fn lines_up(&self) -> bool {
        self.0.lines_up
    }

    fn wakes_within(&self) -> Duration {
        if self.0.tells_nobody { LONGEST_LOOK } else { Duration::ZERO }
    }

    fn counts_holders(&self) -> bool {
        true
    }

    async fn suspect(&self) {
        self.0.reconnected.notified().await;
    }

    async fn take(&self, claim: &Claim) -> Result<Take, Error> {
        let (sent, claim) = (Instant::now(), claim.clone());
        self.call(move |state| match state.records.get(&claim.name) {
            Some((_, _, until)) => Take::Held(Some(*until - Instant::now())),
            None => {
                state.token += 1;
                state.records.insert(claim.name, (claim.id, state.token, Instant::now() + TIME_TO_LIVE));
                Take::Taken(Taken { token: Some(state.token), deadline: sent + TIME_TO_LIVE })
            }
        })
        .await
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<Option<Instant>>, Error> {
        let (sent, claims) = (Instant::now(), claims.to_vec());
        self.call(move |state| {
            let extended = |claim: &Arc<Claim>| {
                let (_, _, until) = state.records.get_mut(&claim.name).filter(|record| record.0 == claim.id)?;
                *until = Instant::now() + TIME_TO_LIVE;
                Some(sent + TIME_TO_LIVE)
            };
            claims.iter().map(extended).collect()
        })
        .await
    }

    async fn find(&self, claim: &Claim) -> Result<Option<Taken>, Error> {
        let (sent, claim) = (Instant::now(), claim.clone());
        self.call(move |state| {
            let (_, token, until) = state.records.get(&claim.name).filter(|record| record.0 == claim.id)?;
            Some(Taken { token: Some(*token), deadline: sent + (*until - Instant::now()) })
        })
        .await
    }

    async fn give_back(&self, claim: &Claim) -> Result<bool, Error> {
        let claim = claim.clone();
        self.call(move |state| {
            state.line.remove(&claim.id);
            let ours = state.records.get(&claim.name).is_some_and(|record| record.0 == claim.id);
            if ours {
                state.records.remove(&claim.name);
                if let Some(wakes) = state.wakes.get(&claim.name) {
                    wakes.send_replace(());
                }
            }
            ours
        })
        .await
    }

    async fn watch(&self, claim: &Claim) -> Result<watch::Receiver<()>, Error> {
        if self.0.tells_nobody {
            let (wake, woken) = watch::channel(());
            drop(scoria_runtime::Tasks::new().spawn("looking", self.clone().look(claim.name.clone(), wake)));
            return Ok(woken);
        }
        let claim = claim.clone();
        self.call(move |state| {
            state.line.insert(claim.id);
            state.wakes.entry(claim.name).or_default().subscribe()
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        Ok(Vec::new())
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.call(move |state| state.records.remove(&name).is_some()).await
    }

    async fn settled(&self) {
        self.0.late.shutdown().await;
    }

    async fn close(&self) {}
}

fn provider(service: &Memory) -> LeasedProvider {
    LeasedProvider::new(Arc::new(service.clone()), &Heart::here(), &Options::default())
}

fn within(seconds: u64) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(SECOND * seconds as u32))
}

async fn take(provider: &LeasedProvider, wait: WaitPolicy) -> Result<Box<dyn HeldLock>, Error> {
    provider.acquire("a", Mode::Exclusive, &Owner::default(), wait).await
}

#[tokio::test(start_paused = true)]
async fn a_free_lock_is_one_round_trip_and_so_is_its_release() {
    let service = Memory::default();
    let provider = provider(&service);
    let lock = take(&provider, within(9)).await.unwrap();
    assert_eq!(service.requests(), 1);
    lock.release().await.unwrap();
    assert_eq!(service.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn beats_keep_it_and_a_silent_service_loses_it_before_anybody_else_can_have_it() {
    let service = Memory::default();
    let (one, two) = (provider(&service), provider(&service));
    let lock = take(&one, WaitPolicy::No).await.unwrap();
    tokio::time::sleep(SECOND * 60).await;
    assert!(!lock.is_lost());
    lock.verify().await.unwrap();
    service.fail_next(Fault::Down);
    let began = Instant::now();
    lock.lost().cancelled().await;
    assert!(began.elapsed() < TIME_TO_LIVE, "{:?}", began.elapsed());
    assert!(!service.free("a"), "nobody else could have it yet");
    service.state().faults.clear();
    let other = take(&two, within(9)).await.unwrap();
    assert!(other.token() > lock.token());
    assert!(matches!(lock.release().await, Err(Error::Lost { .. })));
    tokio::time::sleep(SECOND).await;
    other.verify().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_gone_is_told_with_the_next_beat_and_at_once_after_a_reconnection() {
    let service = Memory::default();
    let provider = provider(&service);
    for reconnected in [false, true] {
        let lock = take(&provider, within(9)).await.unwrap();
        assert!(provider.break_lock("a").await.unwrap());
        let began = Instant::now();
        if reconnected {
            service.0.reconnected.notify_one();
        }
        lock.lost().cancelled().await;
        let longest = if reconnected { SECOND / 100 } else { SECOND * 11 / 10 };
        assert!(began.elapsed() < longest, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_came_is_looked_up_and_the_lock_adopted() {
    for fault in [Fault::AnswerLost, Fault::Lost, Fault::Late(SECOND / 2), Fault::Late(SECOND * 5)] {
        let service = Memory::default();
        let provider = provider(&service);
        service.fail_next(fault);
        let lock = take(&provider, within(60)).await.unwrap();
        lock.verify().await.unwrap();
        assert_eq!(service.state().token, 1, "{fault:?}: it was taken once");
        lock.release().await.unwrap();
        tokio::time::sleep(SECOND * 10).await;
        assert!(matches!(fault, Fault::Late(_)) || service.free("a"), "{fault:?}: an orphan");
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_after_a_lost_answer_leaves_no_orphan() {
    for fault in [Fault::AnswerLost, Fault::Late(SECOND * 3 / 2)] {
        let service = Memory::default();
        let provider = provider(&service);
        service.fail_next(fault);
        let given_up = tokio::time::timeout(SECOND / 2, take(&provider, within(60))).await;
        assert!(given_up.is_err());
        tokio::time::sleep(SECOND * 5 / 2).await;
        assert!(service.free("a"), "{fault:?}: an orphan");
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_the_service_is_silent_leaves_the_line_when_it_answers() {
    let service = Memory(Arc::new(Service { lines_up: true, ..Service::default() }));
    let (one, two) = (provider(&service), provider(&service));
    let lock = take(&one, WaitPolicy::No).await.unwrap();
    let given_up = tokio::time::timeout(SECOND, take(&two, within(60)));
    assert!(given_up.await.is_err());
    tokio::time::sleep(SECOND / 100).await;
    assert!(service.state().line.is_empty());

    let given_up = tokio::time::timeout(SECOND, take(&two, within(60)));
    let silent = async {
        tokio::time::sleep(SECOND / 2).await;
        service.fail_next(Fault::Down);
    };
    assert!(tokio::join!(given_up, silent).0.is_err());
    tokio::time::sleep(TIME_TO_LIVE * 10).await;
    assert_eq!(service.state().line.len(), 1);
    service.state().faults.clear();
    tokio::time::sleep(TIME_TO_LIVE * 4).await;
    assert!(service.state().line.is_empty());
    drop(lock);
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_is_repeated_and_succeeds() {
    for fault in [Fault::AnswerLost, Fault::Lost] {
        let service = Memory::default();
        let provider = provider(&service);
        let lock = take(&provider, WaitPolicy::No).await.unwrap();
        service.fail_next(fault);
        lock.release().await.unwrap();
        assert!(service.free("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_given_up_half_way_goes_on_in_the_background() {
    let service = Memory::default();
    let provider = provider(&service);
    let lock = take(&provider, WaitPolicy::No).await.unwrap();
    service.fail_next(Fault::Lost);
    assert!(tokio::time::timeout(SECOND / 100, lock.release()).await.is_err());
    tokio::time::sleep(SECOND / 100).await;
    assert!(service.free("a"));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_wakes_with_the_release_and_takes_two_round_trips() {
    let service = Memory::default();
    let (one, two) = (provider(&service), provider(&service));
    let lock = take(&one, WaitPolicy::No).await.unwrap();
    let waiting = scoria_runtime::Tasks::new().spawn("waiter", async move {
        let lock = take(&two, within(60)).await.unwrap();
        (Instant::now(), lock)
    });
    tokio::time::sleep(SECOND * 10).await;
    assert!(!waiting.is_finished());
    let released = Instant::now();
    lock.release().await.unwrap();
    let (had, _lock) = waiting.await.unwrap();
    let round_trip = Duration::from_millis(2);
    assert!(had - released <= round_trip * 2, "{:?}", had - released);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_in_vain_does_not_stand_in_its_own_way() {
    let service = Memory::default();
    let (one, two) = (provider(&service), provider(&service));
    let lock = take(&one, WaitPolicy::No).await.unwrap();
    assert!(matches!(take(&two, within(1)).await, Err(Error::Busy { .. })));
    service.state().records.clear();
    take(&two, WaitPolicy::No).await.expect("at once, whatever is still done in the background");
    drop(lock);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holders_record_is_taken_when_it_ends() {
    let service = Memory::default();
    let provider = provider(&service);
    let until = Instant::now() + TIME_TO_LIVE;
    service.state().records.insert("a".to_owned(), ("python".to_owned(), 0, until));
    let lock = take(&provider, within(60)).await.unwrap();
    assert!(Instant::now() - until < SECOND / 100);
    drop(lock);
    tokio::time::sleep(SECOND / 100).await;
    assert!(service.free("a"), "dropping gives back");
}

#[tokio::test(start_paused = true)]
async fn closing_tells_gives_back_and_refuses() {
    let service = Memory::default();
    let one = Arc::new(provider(&service));
    let lock = take(&one, WaitPolicy::No).await.unwrap();
    let waiter = one.clone();
    let waiting = scoria_runtime::Tasks::new().spawn("waiter", async move { take(&waiter, within(60)).await.err() });
    tokio::time::sleep(SECOND).await;
    one.close().await;
    assert!(service.free("a") && lock.is_lost());
    assert!(matches!(waiting.await.unwrap(), Some(Error::Closed)));
    assert!(matches!(take(&one, WaitPolicy::No).await, Err(Error::Closed)));
    assert!(matches!(lock.release().await, Err(Error::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_carried_out_while_it_closes_is_given_back() {
    for gives_up in [true, false] {
        let service = Memory::default();
        let provider = Arc::new(provider(&service));
        service.fail_next(Fault::Late(SECOND / 2));
        let wisher = provider.clone();
        let wish = scoria_runtime::Tasks::new().spawn("wish", async move { take(&wisher, within(60)).await.err() });
        tokio::time::sleep(SECOND / 10).await;
        if gives_up {
            wish.abort();
            tokio::time::sleep(SECOND / 10).await;
        }
        provider.close().await;
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(service.state().token, 1, "it was carried out");
        assert!(service.free("a"), "gives up: {gives_up}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_ever() {
    let service = Memory::default();
    let provider = Arc::new(provider(&service));
    service.fail_next(Fault::Late(SECOND * 60));
    let given_up = tokio::time::timeout(SECOND / 2, take(&provider, within(60)));
    assert!(given_up.await.is_err());
    let began = Instant::now();
    provider.close().await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

/// Turns that each of several instances gets in a minute, all of them always wanting more, and what a polling peer gets.
async fn contend(instances: usize, hold: Duration) -> (Vec<u64>, u64) {
    let service = Memory::default();
    let end = Instant::now() + SECOND * 60;
    let tasks = scoria_runtime::Tasks::new();
    let instances = (0..instances).map(|_| {
        let (provider, turns) = (Arc::new(provider(&service)), Arc::new(AtomicU64::new(0)));
        for _ in 0..2 {
            let (provider, turns) = (provider.clone(), turns.clone());
            drop(tasks.spawn("user", async move {
                while Instant::now() < end {
                    let lock = take(&provider, within(60)).await.unwrap();
                    tokio::time::sleep(hold).await;
                    lock.release().await.unwrap();
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        turns
    });
    let turns: Vec<_> = instances.collect();
    let mut peer = 0;
    let claim =
        |id: u64| Claim { name: "a".to_owned(), id: id.to_string(), owner: Owner::default(), since: Instant::now() };
    while Instant::now() < end {
        tokio::time::sleep(SECOND / 10).await;
        if matches!(service.take(&claim(peer)).await.unwrap(), Take::Taken(_)) {
            tokio::time::sleep(hold).await;
            assert!(service.give_back(&claim(peer)).await.unwrap());
            peer += 1;
        }
    }
    tasks.shutdown().await;
    (turns.iter().map(|turns| turns.load(Ordering::SeqCst)).collect(), peer)
}

#[tokio::test(start_paused = true)]
async fn nobody_is_starved() {
    let (turns, peer) = contend(1, SECOND / 50).await;
    assert!(peer >= 10, "a polling peer got {peer} turns beside {turns:?}");
    assert!(turns[0] > 2000, "{turns:?}");
    let (turns, _) = contend(2, SECOND / 50).await;
    assert!(turns.iter().min().unwrap() * 2 >= *turns.iter().max().unwrap(), "{turns:?}");
}

/// Two that go from hand to hand would leave the third a turn in twenty.
#[tokio::test(start_paused = true)]
async fn who_looks_has_turns_beside_others() {
    const MOST: u64 = 60;
    for hold in 1..=20 {
        let service = Memory(Arc::new(Service { tells_nobody: true, ..Service::default() }));
        let (tasks, most) = (scoria_runtime::Tasks::new(), Arc::new(AtomicU64::new(0)));
        let mut crowd = Vec::new();
        for provider in [provider(&service), provider(&service), provider(&service)].map(Arc::new) {
            for _ in 0..2 {
                let (provider, most) = (provider.clone(), most.clone());
                crowd.push(tasks.spawn("user", async move {
                    let mut turns = 0;
                    while most.load(Ordering::SeqCst) < MOST {
                        let lock = take(&provider, within(60)).await.unwrap();
                        turns += 1;
                        most.fetch_max(turns, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(hold)).await;
                        lock.release().await.unwrap();
                    }
                    turns
                }));
            }
        }
        let turns: Vec<_> = futures_util::future::join_all(crowd).await.into_iter().map(Result::unwrap).collect();
        assert!(turns.iter().all(|turns| turns + 10 >= MOST), "held for {hold} ms: {turns:?}");
    }
}
