//! What is between the processes and the lock service, and what goes wrong there.

use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scoria_runtime::Tasks;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::Error;

/// How long a client waits for an answer.
pub(crate) const ANSWER: Duration = Duration::from_millis(800);

/// Network and service of one simulation.
#[derive(Debug)]
pub(crate) struct World {
    rng: Mutex<StdRng>,
    began: Instant,
    tasks: Tasks,
    service: Arc<Running>,
    /// Of a thousand messages, how many are late, lost or repeated.
    trouble: Mutex<u32>,
    /// Numbers of the processes of which nothing gets through, either way.
    cut_off: Arc<Mutex<BTreeSet<usize>>>,
    aloud: bool,
    /// A sum over all that was told.
    story: Mutex<DefaultHasher>,
}

/// Whether the service runs; requests wait while it does not.
///
/// Not tokio's `watch`: that wakes those who wait in an order of chance, and a seed would not replay.
#[derive(Debug, Default)]
struct Running {
    stopped: Mutex<bool>,
    goes_on: Notify,
}

impl Running {
    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self) {
        loop {
            let goes_on = self.goes_on.notified();
            if !*self.stopped() {
                return;
            }
            goes_on.await;
        }
    }
}

impl World {
    /// A world in which nothing goes wrong yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            began: Instant::now(),
            tasks: Tasks::new(),
            service: Arc::default(),
            trouble: Mutex::new(0),
            cut_off: Arc::default(),
            aloud: std::env::var_os("SCORIA_SEED").is_some(),
            story: Mutex::default(),
        }
    }

    /// True `permille` times out of a thousand.
    pub(crate) fn chance(&self, permille: u32) -> bool {
        self.below(1000) < u64::from(permille)
    }

    /// A number from 0 below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..bound)
    }

    /// A time from 0 to `most` milliseconds.
    pub(crate) fn millis(&self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000 + 1))
    }

    /// Tells what happens; aloud when one seed runs alone.
    pub(crate) fn tell(&self, what: Arguments<'_>) {
        let line = format!("{:10.4} {what}", self.began.elapsed().as_secs_f64());
        line.hash(&mut *self.story.lock().unwrap_or_else(PoisonError::into_inner));
        if self.aloud {
            eprintln!("{line}");
        }
    }

    /// A number that is the same for the same story.
    pub(crate) fn story(&self) -> u64 {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }

    /// Stops the service, or lets it go on.
    pub(crate) fn run_service(&self, running: bool) {
        self.tell(format_args!("service {}", if running { "runs" } else { "is stopped" }));
        *self.service.stopped() = !running;
        self.service.goes_on.notify_waiters();
    }

    /// From now on so many of a thousand messages are late, lost or repeated.
    pub(crate) fn trouble(&self, permille: u32) {
        self.tell(format_args!("trouble for {permille} of 1000 messages"));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = permille;
    }

    /// Cuts a process off from the service, or connects it again.
    pub(crate) fn connect(&self, process: usize, connected: bool) {
        self.tell(format_args!("process {process} is {}", if connected { "connected" } else { "cut off" }));
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            true => cut_off.remove(&process),
            false => cut_off.insert(process),
        };
    }

    /// Tells at any later time whether a process is cut off.
    fn line_of(&self, process: usize) -> impl Fn() -> bool + Send + 'static {
        let cut_off = self.cut_off.clone();
        move || cut_off.lock().unwrap_or_else(PoisonError::into_inner).contains(&process)
    }

    fn in_trouble(&self) -> bool {
        let permille = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        self.chance(permille)
    }

    fn way(&self) -> Duration {
        if self.in_trouble() { self.millis(4_000) } else { self.millis(3) }
    }

    /// The service tells a process something, which arrives late or never when there is trouble.
    pub(crate) fn message(&self, process: usize, arrives: impl FnOnce() + Send + 'static) {
        let (lost, way, is_cut_off) = (self.in_trouble(), self.way(), self.line_of(process));
        if !lost {
            drop(self.tasks.spawn("message", async move {
                tokio::time::sleep(way).await;
                if !is_cut_off() {
                    arrives();
                }
            }));
        }
    }

    /// Sends a process' request to the service and waits for the answer. Once sent, it takes its way whatever becomes of the sender:
    /// an error, or giving up, says nothing about whether it is carried out.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        process: usize,
        mut request: impl FnMut() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (lost, repeated, answer_lost) = (self.in_trouble(), self.in_trouble(), self.in_trouble());
        let (there, back, again) = (self.way(), self.way(), self.way());
        let (answer, answered) = oneshot::channel();
        let (service, is_cut_off) = (self.service.clone(), self.line_of(process));
        if !lost && !is_cut_off() {
            drop(self.tasks.spawn("request", async move {
                tokio::time::sleep(there).await;
                service.wait().await;
                let outcome = request();
                if !answer_lost {
                    tokio::time::sleep(back).await;
                    if !is_cut_off() {
                        let _ = answer.send(outcome);
                    }
                }
                if repeated {
                    tokio::time::sleep(again).await;
                    drop(request());
                }
            }));
        }
        let answered = async move {
            match answered.await {
                Ok(outcome) => outcome,
                // A lost message says nothing, not even that it is lost.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::time::timeout(ANSWER, answered).await.map_err(|_| Error::Unavailable("no answer in time".to_owned()))
    }
}
