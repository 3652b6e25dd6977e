//! What is to happen to the steps of the next operation.

use std::sync::{Arc, Mutex, PoisonError};

use scoria_model::{Fault, FaultClass};
use tokio::sync::Notify;

use crate::failure::{Failure, Interruption};
use crate::held::Held;
use crate::steps::Step;

/// One law's mischief; numbers count the steps of an operation from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// None.
    Plain,
    /// Every step runs twice.
    Twice,
    /// The step takes effect and then fails.
    FailAt(usize),
    /// The operation stands still before the step until [`Script::resume`].
    PauseAt(usize),
    /// Whoever comes to a step dies of it.
    Die,
    /// The step takes effect and nobody hears of it: the process dies, the answer is lost.
    ReplyLostAt(usize),
    /// A lock goes just before the step.
    LockLostAt(usize),
    /// The process was stopped before the step for longer than its locks live: only the clock knows.
    LeaseOverAt(usize),
}

struct State {
    trial: Trial,
    steps: usize,
    /// Scripted deaths of all trials.
    deaths: usize,
    /// A step is running: the steps of an operation within it are part of it.
    within: bool,
    lose_lock: Arc<dyn Fn(&str) + Send + Sync>,
    end_leases: Arc<dyn Fn() + Send + Sync>,
}

/// Shared between a test and the manager it tests.
#[derive(Clone)]
pub(crate) struct Script {
    state: Arc<Mutex<State>>,
    resume: Arc<Notify>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl Default for Script {
    fn default() -> Self {
        let state = State {
            trial: Trial::Plain,
            steps: 0,
            deaths: 0,
            within: false,
            lose_lock: Arc::new(|_| {}),
            end_leases: Arc::new(|| {}),
        };
        Self { state: Arc::new(Mutex::new(state)), resume: Arc::default() }
    }
}

impl Script {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, trial: Trial) {
        let mut state = self.state();
        (state.trial, state.steps) = (trial, 0);
    }

    /// Lets an operation go on that was paused, now or next.
    pub(crate) fn resume(&self) {
        self.resume.notify_one();
    }

    pub(crate) fn on_lock_loss(&self, lose: impl Fn(&str) + Send + Sync + 'static) {
        self.state().lose_lock = Arc::new(lose);
    }

    pub(crate) fn on_lease_end(&self, end: impl Fn() + Send + Sync + 'static) {
        self.state().end_leases = Arc::new(end);
    }

    /// How many steps have run since the trial was set.
    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    /// How many have died of a [`Trial::Die`].
    pub(crate) fn deaths(&self) -> usize {
        self.state().deaths
    }

    /// What is to happen to the next step; `None` for a step within another.
    fn enter(&self) -> Option<(Trial, usize)> {
        let mut state = self.state();
        if state.within {
            return None;
        }
        state.within = true;
        state.steps += 1;
        Some((state.trial, state.steps - 1))
    }
}

/// A step is running; whichever way it ends, the next one may.
struct Within<'a>(&'a Script);

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.0.state().within = false;
    }
}

/// Runs one step the way the script says.
pub(crate) async fn run_one<O: Send>(operation: &mut O, step: &dyn Step<O>, held: &Held) -> Result<(), Failure> {
    let Some((trial, number)) = held.script.enter() else { return step.run(operation, held).await };
    let _within = Within(&held.script);
    scripted(operation, step, held, trial, number).await
}

async fn scripted<O: Send>(
    operation: &mut O,
    step: &dyn Step<O>,
    held: &Held,
    trial: Trial,
    number: usize,
) -> Result<(), Failure> {
    match trial {
        Trial::Twice => {
            step.run(operation, held).await?;
            step.run(operation, held).await
        }
        Trial::PauseAt(at) if at == number => {
            held.script.resume.notified().await;
            held.check(step.name())?;
            step.run(operation, held).await
        }
        Trial::Die => {
            held.script.state().deaths += 1;
            panic!("scripted death at {}", step.name());
        }
        Trial::FailAt(at) if at == number => {
            step.run(operation, held).await?;
            Err(Fault::new(FaultClass::VolumeDriverException, format!("scripted failure at {}", step.name())).into())
        }
        Trial::ReplyLostAt(at) if at == number => {
            step.run(operation, held).await?;
            Err(Interruption::Unavailable(format!("scripted loss of the answer at {}", step.name())).into())
        }
        Trial::LockLostAt(at) if at == number => {
            let lose = held.script.state().lose_lock.clone();
            held.names().for_each(|name| lose(name));
            held.check(step.name())?;
            panic!("step '{}' would have run without its lock", step.name());
        }
        Trial::LeaseOverAt(at) if at == number => {
            let end = held.script.state().end_leases.clone();
            end();
            held.check(step.name())?;
            panic!("step '{}' would have run after its lease", step.name());
        }
        _ => step.run(operation, held).await,
    }
}
