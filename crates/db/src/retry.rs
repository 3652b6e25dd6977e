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

/// After how long a try counts as lost. Longer than a server waits for a row's lock (MySQL: 50 s), so that only a server that
/// hangs, or a network that swallows packets, comes this far.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Gives up on an answer that does not come. The connection is left behind: it is tried out before anybody gets it again.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => {
            let reason = format!("no answer within {} s", limit.as_secs());
            Err(Error::Unavailable(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into()))
        }
    }
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
            let error = match within(CALL_LIMIT, method(attempt)).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn lost() -> Error {
        Error::Unavailable(sqlx::Error::WorkerCrashed)
    }

    fn busy() -> Error {
        Error::Busy(sqlx::Error::WorkerCrashed)
    }

    /// Runs a method that answers with these, one per try; also tells which tries were ambiguous, and how long it took.
    async fn run(answers: Vec<Result<u8>>, tries: u32) -> (Result<u8>, Vec<bool>, Duration) {
        let options = Options {
            db_max_retries: tries,
            db_retry_interval: Duration::from_millis(500),
            db_max_retry_interval: Duration::from_millis(600),
            ..Options::new("sqlite://")
        };
        let database = Database::connect(&options).await.unwrap();
        let start = std::time::Instant::now();
        let mut answers = answers.into_iter();
        let mut seen = Vec::new();
        let answer = database
            .retry("test", |attempt| {
                seen.push(attempt.ambiguous);
                let next = answers.next().expect("one answer per try");
                async move { next }
            })
            .await;
        (answer, seen, start.elapsed())
    }

    #[tokio::test]
    async fn a_lost_connection_is_tried_again_at_once_and_makes_the_next_try_ambiguous() {
        let (answer, seen, took) = run(vec![Err(lost()), Ok(1)], 5).await;
        assert_eq!((answer.unwrap(), seen), (1, vec![false, true]));
        assert!(took < Duration::from_millis(500), "{took:?}");
        let (answer, seen, took) = run(vec![Err(busy()), Err(lost()), Err(busy()), Ok(1)], 5).await;
        assert_eq!((answer.unwrap(), seen), (1, vec![false, false, true, true]));
        assert!(took >= Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test]
    async fn tries_come_to_an_end_and_what_will_not_change_is_not_tried_again() {
        let (answer, seen, _) = run((0..9).map(|_| Err(busy())).collect(), 3).await;
        assert!(matches!(answer, Err(Error::Busy(_))));
        assert_eq!(seen.len(), 4);
        let (answer, seen, _) = run(vec![Err(Error::Conflict("x".to_owned())), Ok(1)], 3).await;
        assert!(matches!(answer, Err(Error::Conflict(_))));
        assert_eq!(seen.len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_counts_as_a_lost_connection() {
        let error = within::<()>(Duration::from_millis(1), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("no answer within"), "{error}");
    }
}
