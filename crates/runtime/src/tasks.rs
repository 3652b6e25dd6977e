//! Named background tasks that end with the process.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Where every task of the process is spawned: each has a name and hears of the shutdown.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to stop.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `future` under a name until it ends by itself. It should listen to [`Tasks::stop_token`].
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future.instrument(tracing::debug_span!("task", name)))
    }

    /// As [`Tasks::spawn`], on whatever executor the caller has: what is to be run there.
    pub fn track<F: Future>(&self, name: &'static str, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(future.instrument(tracing::debug_span!("task", name)))
    }

    /// Tells every task to stop and waits for all of them.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
