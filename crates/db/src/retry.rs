//! Trying again after a deadlock, a busy SQLite file, or a lost connection.

use std::future::Future;
use std::time::Duration;

use scoria_runtime::Backoff;

use crate::{Database, Error, Result};

/// Which try this is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attempt {
    /// An earlier try lost its connection, so it may have been carried out although no answer came. A try that finds its
    /// own work already there must then call it done.
    pub(crate) ambiguous: bool,
}

impl Database {
    /// Runs a whole method until it succeeds, fails for good, or has used up its tries. The first lost connection is tried
    /// again at once: it was most likely an idle one that the server had closed.
    pub(crate) async fn retry<T, F, Fut>(&self, what: &'static str, mut method: F) -> Result<T>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let options = &self.inner.options;
        let mut backoff = Backoff::new(options.db_retry_interval, options.db_max_retry_interval);
        let mut attempt = Attempt::default();
        let mut left = options.db_max_retries;
        loop {
            let error = match method(attempt).await {
                Err(error) if error.is_retryable() && left > 0 => error,
                other => return other,
            };
            left -= 1;
            metrics::counter!("scoria_db_retries_total", "method" => what).increment(1);
            let mut wait = backoff.next_wait();
            if matches!(error, Error::Unavailable(_)) {
                self.inner.suspicion.lost_one();
                if !attempt.ambiguous {
                    wait = Duration::ZERO;
                }
                attempt.ambiguous = true;
            }
            tracing::warn!(method = what, %error, wait_ms = wait.as_millis(), "database call failed, trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
