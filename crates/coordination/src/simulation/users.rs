//! Processes that take locks, are stopped and killed, and a judge who looks at every step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_runtime::{CancellationToken, Deadline, Tasks};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Gate, World};
use crate::{Error, HeldLock, Mode, Owner, Provider, WaitPolicy};

/// Names that the users fight for.
const NAMES: [&str; 2] = ["cinder-a", "cinder-b"];

/// How long it may take until a process that runs is told what it could know.
const TOLD: Duration = Duration::from_secs(1);

/// One simulation: a world, processes with a provider each, and a judge.
pub(crate) struct Simulation {
    world: Arc<World>,
    judge: Arc<Judge>,
    processes: Vec<Process>,
    /// How long a dead process' locks may stay.
    time_to_live: Duration,
}

#[derive(Clone)]
struct Process {
    number: usize,
    gate: Gate,
    provider: Arc<dyn Provider>,
}

/// Keeps what everybody believes to hold.
#[derive(Debug, Default)]
struct Judge {
    state: Mutex<Judged>,
}

#[derive(Debug, Default)]
struct Judged {
    next: u64,
    held: BTreeMap<u64, Belief>,
    /// By name: the highest token of anybody, and of those who held it alone.
    tokens: BTreeMap<String, (u64, u64)>,
    /// By name: an administrator has taken it away; until then whoever had it has to know.
    told_by: BTreeMap<String, Instant>,
    taken: u64,
    wrong: Option<String>,
}

/// A lock that a process believes to hold.
#[derive(Debug)]
struct Belief {
    process: usize,
    name: String,
    mode: Mode,
    lock: Box<dyn HeldLock>,
}

impl Simulation {
    /// Runs a simulation: `service` makes what makes the provider of a process, whose background goes behind the gate it is given.
    /// The sum over all that happened, or what was wrong.
    pub(crate) fn run(
        seed: u64,
        time_to_live: Duration,
        service: impl FnOnce(&Arc<World>) -> Box<dyn Fn(usize, &Gate) -> Arc<dyn Provider>>,
    ) -> Result<u64, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let world = Arc::new(World::new(seed));
            let provider = service(&world);
            let processes = (0..2 + world.below(3) as usize)
                .map(|number| {
                    let gate = Gate::default();
                    Process { number, provider: provider(number, &gate), gate }
                })
                .collect();
            let simulation = Self { world, judge: Arc::default(), processes, time_to_live };
            let users = simulation.play().await;
            // Somebody new gets every lock once the dead ones' have gone.
            let gate = Gate::default();
            let last = Process { number: 99, provider: provider(99, &gate), gate };
            simulation.settles(&last).await;
            for user in users {
                if let Err(panic) = user.await {
                    simulation.judge.wrong(format!("a user's task: {panic}"));
                }
            }
            simulation.judge.verdict().map(|()| simulation.world.story())
        })
    }

    /// What the processes do, in a world in which things go wrong. In the end some of them are stopped for good.
    async fn play(&self) -> Vec<JoinHandle<()>> {
        let tasks = Tasks::new();
        let mut users = Vec::new();
        let end = Instant::now() + Duration::from_secs(20) + self.world.millis(40_000);
        for process in &self.processes {
            for _ in 0..1 + self.world.below(2) {
                let user = User { world: self.world.clone(), judge: self.judge.clone(), process: process.clone(), end };
                users.push(tasks.spawn("user", process.gate.behind(user.work())));
            }
        }
        while Instant::now() < end {
            tokio::time::sleep(self.world.millis(4_000)).await;
            self.upset().await;
        }
        self.world.trouble(0);
        self.world.run_service(true);
        for process in &self.processes {
            // A killed process is one that is stopped for good.
            if self.world.chance(700) {
                process.gate.open();
            } else {
                self.world.tell(format_args!("process {} is killed", process.number));
                process.gate.close();
            }
        }
        users
    }

    /// Something goes wrong, for a while.
    async fn upset(&self) {
        let process = &self.processes[self.world.below(self.processes.len() as u64) as usize];
        match self.world.below(6) {
            0 => {
                self.world.run_service(false);
                tokio::time::sleep(self.world.millis(6_000)).await;
                self.world.run_service(true);
            }
            1 => {
                self.world.trouble(self.world.below(300) as u32);
                tokio::time::sleep(self.world.millis(8_000)).await;
                self.world.trouble(0);
            }
            2 => {
                self.world.connect(process.number, false);
                tokio::time::sleep(self.world.millis(8_000)).await;
                self.world.connect(process.number, true);
            }
            3 => {
                let name = NAMES[self.world.below(NAMES.len() as u64) as usize];
                self.world.tell(format_args!("'{name}' is taken away"));
                if process.provider.break_lock(name).await.expect("it needs no network here") {
                    let told_by = Instant::now() + self.time_to_live + TOLD;
                    self.judge.state().told_by.insert(name.to_owned(), told_by);
                }
            }
            _ => {
                self.world.tell(format_args!("process {} is stopped", process.number));
                process.gate.close();
                tokio::time::sleep(self.world.millis(8_000)).await;
                process.gate.open();
                self.world.tell(format_args!("process {} goes on", process.number));
            }
        }
    }

    async fn settles(&self, last: &Process) {
        // Requests that are late may still be carried out, then live as long as a lock lives.
        tokio::time::sleep(self.time_to_live * 3 + Duration::from_secs(10)).await;
        for name in NAMES {
            let wait = WaitPolicy::Until(Deadline::after(self.time_to_live * 4 + Duration::from_secs(20)));
            match last.provider.acquire(name, Mode::Exclusive, &Owner::default(), wait).await {
                Ok(lock) => {
                    self.judge.believes(last.number, name, Mode::Exclusive, lock);
                }
                Err(error) => self.judge.wrong(format!("'{name}' never becomes free again: {error}")),
            }
        }
        if self.judge.state().taken == 0 {
            self.judge.wrong("nobody ever got a lock".to_owned());
        }
        for process in self.processes.iter().chain([last]) {
            process.gate.open();
        }
    }
}

impl Judged {
    /// Whether somebody may still work under a lock that was taken away.
    fn is_overruled(&self, name: &str) -> bool {
        self.told_by.get(name).is_some_and(|told_by| Instant::now() <= *told_by)
    }
}

impl Judge {
    fn state(&self) -> std::sync::MutexGuard<'_, Judged> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, what: String) {
        self.state().wrong.get_or_insert(what);
    }

    fn verdict(&self) -> Result<(), String> {
        self.state().wrong.take().map_or(Ok(()), Err)
    }

    /// A process has got a lock. Nobody may hold one that excludes it: by the clock, not by what they have noticed.
    fn believes(&self, process: usize, name: &str, mode: Mode, lock: Box<dyn HeldLock>) -> u64 {
        let mut state = self.state();
        state.taken += 1;
        if let Some(token) = lock.token().filter(|_| !lock.is_lost()) {
            let (highest, highest_alone) = state.tokens.entry(name.to_owned()).or_default();
            // Readers that got it together may learn of it in any order.
            let before = if mode == Mode::Shared { *highest_alone } else { *highest };
            *highest = token.max(*highest);
            if mode == Mode::Exclusive {
                *highest_alone = token.max(*highest_alone);
            }
            if token <= before && !state.is_overruled(name) {
                state.wrong.get_or_insert(format!("process {process} got '{name}' with token {token} after {before}"));
            }
        }
        state.next += 1;
        let id = state.next;
        state.held.insert(id, Belief { process, name: name.to_owned(), mode, lock });
        drop(state);
        self.acts(id);
        id
    }

    /// Whether the holder may have an effect now; if so, nobody else may.
    fn acts(&self, id: u64) -> bool {
        let mut state = self.state();
        let Some(own) = state.held.get(&id).filter(|own| !own.lock.is_lost()) else { return false };
        let other = state.held.iter().find(|(other, belief)| {
            **other != id
                && belief.name == own.name
                && (belief.mode == Mode::Exclusive || own.mode == Mode::Exclusive)
                && !belief.lock.is_lost()
        });
        let wrong = other
            .filter(|_| !state.is_overruled(&own.name))
            .map(|(_, other)| format!("processes {} and {} both hold '{}'", own.process, other.process, own.name));
        if let Some(wrong) = wrong {
            state.wrong.get_or_insert(wrong);
        }
        true
    }

    /// What tells the holder of a loss.
    fn lost(&self, id: u64) -> Option<CancellationToken> {
        self.state().held.get(&id).map(|belief| belief.lock.lost())
    }

    /// From now on the holder does nothing under the lock any more.
    fn gives_up(&self, id: u64) -> Option<Box<dyn HeldLock>> {
        self.state().held.remove(&id).map(|belief| belief.lock)
    }
}

/// Takes locks, works under them, gives them back; now and then it changes its mind.
struct User {
    world: Arc<World>,
    judge: Arc<Judge>,
    process: Process,
    end: Instant,
}

impl User {
    async fn work(self) {
        while Instant::now() < self.end {
            tokio::time::sleep(self.world.millis(500)).await;
            let name = NAMES[self.world.below(NAMES.len() as u64) as usize];
            let mode = match self.process.provider.features().shared && self.world.chance(300) {
                true => Mode::Shared,
                false => Mode::Exclusive,
            };
            let Some(lock) = self.acquire(name, mode).await else { continue };
            let id = self.judge.believes(self.process.number, name, mode, lock);
            self.world.tell(format_args!("process {} has '{name}' ({})", self.process.number, mode.as_str()));
            for _ in 0..self.world.below(8) {
                if !self.judge.acts(id) {
                    self.is_told(id).await;
                    break;
                }
                tokio::time::sleep(self.world.millis(700)).await;
            }
            let Some(lock) = self.judge.gives_up(id) else { continue };
            self.world.tell(format_args!("process {} gives up '{name}'", self.process.number));
            match self.world.below(10) {
                0 => drop(lock),
                1 => drop(tokio::time::timeout(self.world.millis(5), lock.release()).await),
                _ => drop(lock.release().await),
            }
        }
    }

    /// What the clock says is also told, once the process runs.
    async fn is_told(&self, id: u64) {
        let Some(lost) = self.judge.lost(id) else { return };
        // Both may become ready while the process is stopped: then whoever tells has not run yet.
        if tokio::time::timeout(TOLD, lost.cancelled()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !lost.is_cancelled() {
                self.judge.wrong(format!("process {} has lost a lock and is not told", self.process.number));
            }
        }
    }

    async fn acquire(&self, name: &str, mode: Mode) -> Option<Box<dyn HeldLock>> {
        let wait = match self.world.below(4) {
            0 => WaitPolicy::No,
            _ => WaitPolicy::Until(Deadline::after(self.world.millis(10_000))),
        };
        let owner = Owner { operation: "simulated".to_owned(), ..Owner::default() };
        let acquire = self.process.provider.acquire(name, mode, &owner, wait);
        let outcome = match self.world.chance(150) {
            true => tokio::time::timeout(self.world.millis(3_000), acquire).await.ok()?,
            false => acquire.await,
        };
        match outcome {
            Ok(lock) => Some(lock),
            Err(Error::Busy { .. } | Error::Unavailable(_) | Error::Lost { .. }) => None,
            Err(error) => {
                self.judge.wrong(format!("process {}: {error}", self.process.number));
                None
            }
        }
    }
}
