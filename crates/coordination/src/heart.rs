//! The thread that keeps locks alive.

mod async_io;

use std::future::Future;
use std::sync::Arc;
use std::{io, thread};

use scoria_runtime::{CancellationToken, Tasks};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::Error;

/// A thread with an executor of its own for beats and for the connection they go over: no busy executor elsewhere can starve
/// them. Only lock services that need beats have one.
///
/// The executor is tokio's, or one beside the sockets of async-io ([`Heart::start_on_async_io`]).
#[derive(Debug, Clone)]
pub(crate) struct Heart {
    executor: Executor,
    /// The executor of whoever started it.
    #[allow(dead_code, reason = "not every lock service can have requests and beats apart")]
    callers: Handle,
    tasks: Tasks,
    /// Ends the thread when the last clone goes.
    _ends: Option<Ends>,
    /// Stops what runs on it, as a process is stopped.
    #[cfg(test)]
    gate: crate::simulation::Gate,
}

/// What runs on the thread.
#[derive(Debug, Clone)]
enum Executor {
    Tokio(Handle),
    AsyncIo(async_io::Executor),
}

/// A thread ends when the last clone goes.
type Ends = Arc<oneshot::Sender<()>>;

impl Heart {
    /// Starts the thread. Called on the executor that locks are going to be taken on.
    pub(crate) fn start(kind: &'static str) -> Result<Self, Error> {
        let (handle, ends) = start_tokio(format!("locks-{kind}")).map_err(not_started)?;
        Ok(Self::new(Executor::Tokio(handle.clone()), handle, ends))
    }

    /// As [`Heart::start`], for a client library that has its sockets from async-io: the thread waits for these itself. On tokio's
    /// executor it would be woken by another thread, which async-io has for that. Another thread there is all the same, for
    /// tokio's timers, which work as ever: it sleeps until one is due.
    pub(crate) fn start_on_async_io(kind: &'static str) -> Result<Self, Error> {
        let (timers, timers_end) = start_tokio(format!("timer-{kind}")).map_err(not_started)?;
        let started = async_io::Executor::start(format!("locks-{kind}"), timers.clone(), timers_end);
        let (executor, ends) = started.map_err(not_started)?;
        Ok(Self::new(Executor::AsyncIo(executor), timers, ends))
    }

    fn new(executor: Executor, otherwise: Handle, ends: Ends) -> Self {
        Self {
            executor,
            callers: Handle::try_current().unwrap_or(otherwise),
            tasks: Tasks::new(),
            _ends: Some(ends),
            #[cfg(test)]
            gate: crate::simulation::Gate::default(),
        }
    }

    /// The executor of the caller instead of a thread: for tests on simulated time.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self::behind(&crate::simulation::Gate::default())
    }

    /// As [`Heart::here`]; what runs on it runs only while the gate is open.
    #[cfg(test)]
    pub(crate) fn behind(gate: &crate::simulation::Gate) -> Self {
        let handle = Handle::current();
        let executor = Executor::Tokio(handle.clone());
        Self { executor, callers: handle, tasks: Tasks::new(), _ends: None, gate: gate.clone() }
    }

    /// The same thread for another group of tasks, which is stopped by itself.
    pub(crate) fn branch(&self) -> Self {
        Self { tasks: Tasks::new(), ..self.clone() }
    }

    /// The executor on which locks are taken: a connection for their requests belongs there, so that no thread has to wake another
    /// one. Beats never go over it.
    pub(crate) fn callers(&self) -> &Handle {
        &self.callers
    }

    /// Cancelled by [`Heart::stop`].
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.tasks.stop_token()
    }

    /// Runs something in the background. It should end with [`Heart::stopping`].
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        match &self.executor {
            Executor::Tokio(handle) => self.spawn_on(handle, name, future),
            Executor::AsyncIo(executor) => executor.spawn(self.tasks.track(name, future)),
        }
    }

    /// As [`Heart::spawn`], beside the callers.
    pub(crate) fn spawn_beside_callers(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&self.callers, name, future);
    }

    fn spawn_on(&self, executor: &Handle, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let _there = executor.enter();
        #[cfg(test)]
        let future = self.gate.behind(future);
        drop(self.tasks.spawn(name, future));
    }

    /// Runs something there and waits for it. It is dropped when nobody waits for it any more; `None` when the heart was stopped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (mut told, outcome) = oneshot::channel();
        let stop = self.stopping();
        self.spawn(name, async move {
            let outcome = tokio::select! {
                biased;
                () = told.closed() => return,
                () = stop.cancelled() => return,
                outcome = future => outcome,
            };
            drop(told.send(outcome));
        });
        outcome.await.ok()
    }

    /// Tells everything to stop and waits for it.
    pub(crate) async fn stop(&self) {
        self.tasks.shutdown().await;
    }
}

/// A thread that runs a tokio executor.
fn start_tokio(name: String) -> io::Result<(Handle, Ends)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (ends, ended) = oneshot::channel::<()>();
    thread::Builder::new().name(name).spawn(move || runtime.block_on(async { drop(ended.await) }))?;
    Ok((handle, Arc::new(ends)))
}

fn not_started(error: io::Error) -> Error {
    Error::Unavailable(format!("the thread for beats cannot be started: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn beats_and_ends(heart: Heart) {
        let (beat, beats) = std::sync::mpsc::channel();
        let stopping = heart.stopping();
        heart.spawn("beat", async move {
            while !stopping.is_cancelled() {
                let _ = beat.send(thread::current().name().map(str::to_owned));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        // Blocks the only thread of this executor.
        for _ in 0..3 {
            let name = beats.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(name.as_deref(), Some("locks-test"));
        }
        heart.stop().await;
        assert!(heart.stopping().is_cancelled());
    }

    #[tokio::test]
    async fn it_beats_while_the_callers_executor_is_blocked_and_ends_when_told() {
        beats_and_ends(Heart::start("test").unwrap()).await;
        beats_and_ends(Heart::start_on_async_io("test").unwrap()).await;
    }

    #[tokio::test]
    async fn what_runs_on_it_goes_with_its_last_clone() {
        let hearts = [Heart::start("test"), Heart::start_on_async_io("test")];
        for heart in hearts {
            let (held, dropped) = oneshot::channel::<()>();
            heart.unwrap().spawn("for ever", async move {
                let _held = held;
                tokio::time::sleep(Duration::from_secs(3600)).await;
            });
            assert!(dropped.await.is_err());
        }
    }
}
