//! An executor on a thread that waits for the sockets and timers of async-io by itself.

use std::future::Future;
use std::sync::Arc;
use std::{io, thread};

use spawns_core::{Spawn, Task};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Ends;

/// What runs on it.
#[derive(Debug, Clone)]
pub(super) struct Executor(Arc<async_executor::Executor<'static>>);

impl Executor {
    /// Starts the thread. It has the timers of `timers`, a tokio executor elsewhere, which outlives it.
    pub(super) fn start(name: String, timers: Handle, timers_end: Ends) -> io::Result<(Self, Ends)> {
        let executor = Self(Arc::default());
        let (ends, ended) = oneshot::channel::<()>();
        let running = executor.clone();
        thread::Builder::new().name(name).spawn(move || {
            let _timers = timers.enter();
            // What a library spawns belongs here too, and not on the executor that has the timers.
            let _spawner = spawns_core::enter(&running);
            async_io::block_on(running.0.run(async { drop(ended.await) }));
            drop(timers_end);
        })?;
        Ok((executor, Arc::new(ends)))
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future).detach();
    }
}

impl Spawn for Executor {
    fn spawn(&self, task: Task) {
        self.spawn(Box::into_pin(task.future));
    }
}
