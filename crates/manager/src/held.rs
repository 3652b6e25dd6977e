//! The locks of a running operation, and everything that may stop it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_coordination::{LockRequest, LockSet, WaitPolicy};
use scoria_db::WorkerClaim;
use scoria_drivers::Work;
use scoria_model::{Fault, FaultClass, RequestContext, Worker};
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
    /// Somebody had this work before, and may have died of it.
    pub(crate) again: bool,
    /// Set when no message asked for it but a sweep found it.
    pub(crate) swept: Option<Swept>,
    /// The rows that were taken for it.
    claims: Mutex<Vec<WorkerClaim>>,
}

/// How a sweep found work that is nobody's.
#[derive(Debug, Clone)]
pub(crate) enum Swept {
    /// By its `workers` row, which stands for nobody only as long as it is unchanged.
    Row(Worker),
    /// By its state; no holder has a row for it.
    State,
}

impl Swept {
    /// Whether nobody has taken the work since, given the row that is `seen` now under the lock.
    pub(crate) fn still_stands(&self, seen: Option<&Worker>) -> bool {
        match (self, seen) {
            (Self::Row(found), Some(seen)) => {
                (found.id, found.service_id, found.race_preventer) == (seen.id, seen.service_id, seen.race_preventer)
            }
            (Self::Row(_), None) => false,
            (Self::State, seen) => seen.is_none_or(|row| row.service_id.is_none()),
        }
    }
}

impl Job {
    /// A request that was delivered, `again` if not for the first time.
    pub(crate) fn new(
        context: RequestContext,
        operation: &'static str,
        resource: String,
        deadline: Deadline,
        entry: Entry,
        again: bool,
    ) -> Self {
        let (entry, claims) = (Arc::new(entry), Mutex::default());
        Self { context, operation, resource, deadline, entry, again, swept: None, claims }
    }

    pub(crate) fn claimed(&self, claim: WorkerClaim) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
    }

    /// The rows that were taken for it so far.
    pub(crate) fn claims(&self) -> Vec<WorkerClaim> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Locks held by an operation. [`Held::release`] gives them back and waits for that; dropping does it in the background.
pub(crate) struct Held {
    /// Taken out when they are given back.
    locks: Option<Arc<LockSet>>,
    lost: CancellationToken,
    entry: Arc<Entry>,
    stop_now: CancellationToken,
    /// Cancelled when the database has been away for too long.
    cut: CancellationToken,
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
        if self.is_lost() {
            self.work.cancel.cancel();
            return Err(Interruption::LockLost.into());
        }
        if self.stop_now.is_cancelled() {
            return Err(Interruption::Draining.into());
        }
        if self.cut.is_cancelled() {
            return Err(Interruption::Unavailable("the database was away for too long".to_owned()).into());
        }
        Ok(())
    }

    /// Told, or known by the clock: a process that was stopped for longer than its locks live has heard of nothing yet.
    fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || self.locks.as_ref().is_some_and(|locks| locks.is_lost())
    }

    /// The same locks without the deadline, to clean up under.
    pub(crate) fn without_deadline(&self) -> Self {
        Self {
            locks: self.locks.clone(),
            lost: self.lost.clone(),
            entry: self.entry.clone(),
            stop_now: self.stop_now.clone(),
            cut: self.cut.clone(),
            waited: self.waited,
            since: self.since,
            work: Work { cancel: self.work.cancel.child_token(), deadline: Deadline::NEVER, token: self.work.token },
            #[cfg(test)]
            script: self.script.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.locks.iter().flat_map(|locks| locks.names())
    }

    /// Gives the locks back. A lock found lost only now changes nothing: what was written was compared and swapped.
    pub(crate) async fn release(mut self) {
        let held = self.since.elapsed();
        // Nobody shares them any more: who cleaned up under them has ended.
        if let Some(locks) = self.locks.take().and_then(Arc::into_inner)
            && let Err(error) = locks.release().await
        {
            tracing::warn!(%error, "lock was no longer ours when it was given back");
        }
        tracing::debug!(waited = ?self.waited, ?held, "locks given back");
    }
}

impl VolumeManager {
    /// As [`VolumeManager::hold`]. When the locks cannot be had in time nothing was begun: `give_up` has the row say so,
    /// without a claim on it.
    pub(crate) async fn hold_or(
        &self,
        job: &Job,
        request: LockRequest,
        give_up: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Held, Failure> {
        match self.hold(job, request).await {
            Err(Failure::Fault(fault)) => {
                give_up.await?;
                Err(fault.into())
            }
            other => other,
        }
    }

    /// Waits for the locks of an operation, at most until its deadline.
    pub(crate) async fn hold(&self, job: &Job, request: LockRequest) -> Result<Held, Failure> {
        job.entry.set_state("waiting for locks");
        let began = Instant::now();
        let limit = self.options.lock_wait_timeout.map_or(Deadline::NEVER, Deadline::after);
        let wait = match job.swept {
            // Whoever holds the locks is alive, or not yet known to be dead: the next sweep looks again.
            Some(_) => WaitPolicy::No,
            None => WaitPolicy::Until(job.deadline.min(limit)),
        };
        let acquire = self.locks.acquire(request.wait(wait));
        let cut = self.isolation.cut();
        // An operation that still waits has done nothing: neither a shutdown nor isolation need wait for it.
        let locks = tokio::select! {
            locks = acquire => match locks {
                Err(scoria_coordination::Error::Busy { .. }) if job.swept.is_some() => {
                    return Err(Interruption::Superseded("held by another".to_owned()).into());
                }
                locks => locks?,
            },
            interruption = self.closed() => return Err(interruption.into()),
        };
        let cancel = CancellationToken::new();
        let (lost, stop_now, cut_off, done) = (locks.lost(), self.stop_now.clone(), cut.clone(), cancel.clone());
        self.tasks.spawn("watch locks", async move {
            tokio::select! {
                () = lost.cancelled() => done.cancel(),
                () = stop_now.cancelled() => done.cancel(),
                () = cut_off.cancelled() => done.cancel(),
                () = done.cancelled() => {}
            }
        });
        let work = Work { cancel, deadline: job.deadline, token: locks.token() };
        Ok(Held {
            lost: locks.lost(),
            locks: Some(Arc::new(locks)),
            entry: job.entry.clone(),
            stop_now: self.stop_now.clone(),
            cut,
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
