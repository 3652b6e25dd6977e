//! The locks of a running operation, and everything that may stop it.

use std::sync::Arc;
use std::time::Duration;

use scoria_coordination::{LockRequest, LockSet, WaitPolicy};
use scoria_drivers::Work;
use scoria_model::{Fault, FaultClass, RequestContext};
use scoria_runtime::{CancellationToken, Deadline};
use tokio::time::Instant;

use crate::failure::{Failure, Interruption};
use crate::manager::VolumeManager;
use crate::running::Entry;

/// One request while it is being served.
pub(crate) struct Job {
    pub(crate) context: RequestContext,
    pub(crate) operation: &'static str,
    /// Volume or snapshot that it is about.
    pub(crate) resource: String,
    /// By when the caller wants its answer, or the operation has to be done.
    pub(crate) deadline: Deadline,
    pub(crate) entry: Arc<Entry>,
}

/// Locks held by an operation. [`Held::release`] gives them back and waits for that; dropping does it in the background.
pub(crate) struct Held {
    /// Taken out when they are given back.
    locks: Option<LockSet>,
    lost: CancellationToken,
    entry: Arc<Entry>,
    stop_now: CancellationToken,
    waited: Duration,
    since: Instant,
    /// For the driver: cancelled when the locks are lost or the process has to stop.
    pub(crate) work: Work,
    #[cfg(test)]
    pub(crate) script: crate::testing::script::Script,
}

impl Held {
    /// Whether the operation may go on to its next effect.
    pub(crate) fn check(&self, step: &str) -> Result<(), Failure> {
        self.check_alive(step)?;
        if self.work.deadline.has_passed() {
            return Err(Fault::new(FaultClass::CinderException, format!("timed out before step {step}")).into());
        }
        Ok(())
    }

    /// Whether the operation may still write: an operation whose time is up has to clean up all the same.
    pub(crate) fn check_alive(&self, step: &str) -> Result<(), Failure> {
        self.entry.set_state(step);
        if self.lost.is_cancelled() {
            return Err(Interruption::LockLost.into());
        }
        if self.stop_now.is_cancelled() {
            return Err(Interruption::Draining.into());
        }
        Ok(())
    }

    /// The same locks without the deadline, to clean up under.
    pub(crate) fn without_deadline(&self) -> Self {
        Self {
            locks: None,
            lost: self.lost.clone(),
            entry: self.entry.clone(),
            stop_now: self.stop_now.clone(),
            waited: self.waited,
            since: self.since,
            work: Work { cancel: self.work.cancel.child_token(), deadline: Deadline::NEVER, token: self.work.token },
            #[cfg(test)]
            script: self.script.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.locks.iter().flat_map(LockSet::names)
    }

    /// Gives the locks back. A lock found lost only now changes nothing: what was written was compared and swapped.
    pub(crate) async fn release(mut self) {
        let held = self.since.elapsed();
        if let Some(locks) = self.locks.take()
            && let Err(error) = locks.release().await
        {
            tracing::warn!(%error, "lock was no longer ours when it was given back");
        }
        tracing::debug!(waited = ?self.waited, ?held, "locks given back");
    }
}

impl VolumeManager {
    /// Waits for the locks of an operation, at most until its deadline.
    pub(crate) async fn hold(&self, job: &Job, request: LockRequest) -> Result<Held, Failure> {
        job.entry.set_state("waiting for locks");
        let began = Instant::now();
        let limit = self.options.lock_wait_timeout.map_or(Deadline::NEVER, Deadline::after);
        let wait = job.deadline.min(limit);
        let acquire = self.locks.acquire(request.wait(WaitPolicy::Until(wait)));
        // An operation that still waits has done nothing: a shutdown need not wait for it.
        let locks = tokio::select! {
            locks = acquire => locks?,
            () = self.draining.cancelled() => return Err(Interruption::Draining.into()),
        };
        let cancel = CancellationToken::new();
        let (lost, stop_now, done) = (locks.lost(), self.stop_now.clone(), cancel.clone());
        self.tasks.spawn("watch locks", async move {
            tokio::select! {
                () = lost.cancelled() => done.cancel(),
                () = stop_now.cancelled() => done.cancel(),
                () = done.cancelled() => {}
            }
        });
        let work = Work { cancel, deadline: job.deadline, token: locks.token() };
        Ok(Held {
            lost: locks.lost(),
            locks: Some(locks),
            entry: job.entry.clone(),
            stop_now: self.stop_now.clone(),
            waited: began.elapsed(),
            since: Instant::now(),
            work,
            #[cfg(test)]
            script: self.script.clone(),
        })
    }
}

impl Drop for Held {
    /// Ends the watcher.
    fn drop(&mut self) {
        self.work.cancel.cancel();
    }
}
