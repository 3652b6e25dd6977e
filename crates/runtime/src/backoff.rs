//! Waiting between tries: decorrelated jitter, so that many clients of one dead server do not come back together.

use std::time::Duration;

use rand::Rng;

/// Grows from `initial` to `max`; each wait is drawn between `initial` and three times the last one.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    last: Duration,
}

impl Backoff {
    /// A fresh backoff.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, last: initial }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.last.saturating_mul(3).min(self.max).max(self.initial);
        self.last = rand::rng().random_range(self.initial..=ceiling);
        self.last
    }

    /// Back to the beginning, after a success.
    pub fn reset(&mut self) {
        self.last = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_the_bounds() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(initial, max);
        for _ in 0..1000 {
            let wait = backoff.next_wait();
            assert!(wait >= initial && wait <= max);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= initial * 3);
    }
}
