//! A lock that somebody has and somebody else waits for.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, LockSet};
use scoria_runtime::Tasks;
use tokio::task::JoinHandle;

use super::locks::{lost, soon};

/// A holder whose lock the service is going to give to the waiter.
pub(crate) struct Contended {
    pub(crate) held: LockSet,
    /// Panics if it gets the lock before its holder was told of the loss.
    pub(crate) waiting: JoinHandle<LockSet>,
}

impl Contended {
    pub(crate) async fn start(holder: &Coordinator, waiter: &Coordinator, name: &'static str) -> Self {
        let held = soon(holder, name).await;
        assert_eq!(held.token().is_some(), holder.features().token);
        let (waiter, lost) = (waiter.clone(), held.lost());
        let waiting = Tasks::new().spawn("waiter", async move {
            let next = soon(&waiter, name).await;
            // Told, and not only to be found by whoever looks at the clock.
            assert!(lost.is_cancelled(), "two holders");
            next
        });
        // It has asked by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        Self { held, waiting }
    }

    /// The service has not heard of the holder since then, and the loss is told before it may give the lock to somebody else.
    pub(crate) async fn is_lost_in_time(&self, since: Instant, lease: Duration) {
        lost(&self.held).await;
        assert!(since.elapsed() < lease, "another one might have had it: {:?}", since.elapsed());
    }

    /// Sleeps until then, while there is no service that could give the lock to anybody.
    pub(crate) async fn is_given_to_nobody_until(&self, then: Instant) {
        tokio::time::sleep_until(then.into()).await;
        assert!(!self.waiting.is_finished(), "nobody can give it the lock");
    }

    /// It is the waiter's, and who had it knows.
    pub(crate) async fn goes_to_the_waiter(self) -> LockSet {
        let next = self.waiting.await.unwrap();
        assert!(self.held.token().is_none() || next.token() > self.held.token());
        assert!(matches!(self.held.release().await, Err(Error::Lost { .. })));
        next.verify().await.expect("the first one's release has not touched it");
        next
    }
}
