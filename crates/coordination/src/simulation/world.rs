//! What is between the processes and the lock service, and what goes wrong there.

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

    fn in_trouble(&self) -> bool {
        let permille = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        self.chance(permille)
    }

    fn way(&self) -> Duration {
        if self.in_trouble() { self.millis(4_000) } else { self.millis(3) }
    }

    /// The service tells something, which arrives late or never when there is trouble.
    pub(crate) fn message(&self, arrives: impl FnOnce() + Send + 'static) {
        let (lost, way) = (self.in_trouble(), self.way());
        if !lost {
            drop(self.tasks.spawn("message", async move {
                tokio::time::sleep(way).await;
                arrives();
            }));
        }
    }

    /// Sends a request to the service and waits for the answer. Once sent, it takes its way whatever becomes of the sender:
    /// an error, or giving up, says nothing about whether it is carried out.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        mut request: impl FnMut() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (lost, repeated, answer_lost) = (self.in_trouble(), self.in_trouble(), self.in_trouble());
        let (there, back, again) = (self.way(), self.way(), self.way());
        let (answer, answered) = oneshot::channel();
        let service = self.service.clone();
        if !lost {
            drop(self.tasks.spawn("request", async move {
                tokio::time::sleep(there).await;
                service.wait().await;
                let outcome = request();
                if !answer_lost {
                    tokio::time::sleep(back).await;
                    let _ = answer.send(outcome);
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
