//! A claim that is good until a deadline.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use scoria_runtime::CancellationToken;
use tokio::time::Instant;

/// A claim on a lock or a session: good until a deadline on the monotonic clock, unless it is confirmed again before.
///
/// The deadline is counted from when the last confirmed request was *sent*, so the service cannot have begun to count
/// earlier than we did. Once lost it stays lost. Whoever is about to have an effect asks [`Lease::is_lost`], which looks at
/// the clock itself: a process that was stopped and goes on knows at once, before any timer has run.
#[derive(Debug, Clone)]
pub(crate) struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deadline: Mutex<Instant>,
    lost: CancellationToken,
    reason: OnceLock<String>,
}

impl Lease {
    /// A claim that is good until `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self(Arc::new(Inner {
            deadline: Mutex::new(deadline),
            lost: CancellationToken::new(),
            reason: OnceLock::new(),
        }))
    }

    /// Until when it is good.
    pub(crate) fn deadline(&self) -> Instant {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the deadline off; false when it is too late for that.
    pub(crate) fn renew(&self, deadline: Instant) -> bool {
        if self.is_lost() {
            return false;
        }
        let mut held = self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *held = deadline.max(*held);
        true
    }

    /// Declares it lost. The first reason counts.
    pub(crate) fn lose(&self, reason: impl Into<String>) {
        let _ = self.0.reason.set(reason.into());
        self.0.lost.cancel();
    }

    /// Whether it is lost; past its deadline it is.
    pub(crate) fn is_lost(&self) -> bool {
        if !self.0.lost.is_cancelled() && Instant::now() >= self.deadline() {
            self.lose("it was not confirmed in time");
        }
        self.0.lost.is_cancelled()
    }

    /// Resolves once it is lost, and sees to it that it is when the deadline comes.
    pub(crate) async fn expired(&self) {
        while !self.is_lost() {
            tokio::select! {
                biased;
                () = self.0.lost.cancelled() => {}
                () = tokio::time::sleep_until(self.deadline()) => {}
            }
        }
    }

    /// Cancelled once it is lost. Somebody has to call [`Lease::is_lost`] or await [`Lease::expired`] when the deadline comes.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.0.lost.clone()
    }

    /// Why it was lost.
    pub(crate) fn reason(&self) -> &str {
        self.0.reason.get().map_or("it was taken away", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn past_its_deadline_it_is_lost_and_stays_lost() {
        let second = Duration::from_secs(1);
        let lease = Lease::until(Instant::now() + second);
        tokio::time::advance(second / 2).await;
        assert!(lease.renew(Instant::now() + second));
        tokio::time::advance(second * 3 / 4).await;
        assert!(!lease.is_lost() && !lease.lost().is_cancelled());
        tokio::time::advance(second / 4).await;
        assert!(!lease.renew(Instant::now() + second), "too late");
        assert!(lease.lost().is_cancelled());
        lease.lose("later");
        assert_eq!(lease.reason(), "it was not confirmed in time");
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_confirmation_does_not_shorten_it() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let lease = Lease::until(now + second * 2);
        assert!(lease.renew(now + second));
        assert_eq!(lease.deadline(), now + second * 2);
    }
}
