//! From a delivery to its settlement: admission, turns, lanes, acknowledgement.
//!
//! A call is acknowledged on admission, because its caller is the retry. A cast is acknowledged when its outcome is
//! durable; one that runs past the ceiling is acknowledged then, because its `workers` row carries it on. What is
//! interrupted goes back to the queue and comes again, here or elsewhere, and is handled like a first time.

use std::sync::Arc;
use std::time::Duration;

use scoria_model::Fault;
use scoria_rpc::{Begin, Delivery, Duplicates, Request, Target};
use scoria_runtime::Deadline;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::Instrument;

use crate::args;
use crate::failure::{Failure, Interruption};
use crate::held::Job;
use crate::manager::VolumeManager;
use crate::metrics;
use crate::operations::{self, Lane, Method};

/// Wait before a request goes back to the queue because something it needs is away: long enough not to spin, short
/// enough not to be noticed.
const HAND_BACK_DELAY: Duration = Duration::from_secs(2);

/// What is known of a request once it was admitted.
struct Admitted {
    request: Request,
    method: &'static Method,
    key: String,
    redelivered: bool,
}

impl VolumeManager {
    /// What this back end listens to: the legacy topic, its host queue, and its cluster's when clustered
    /// (`cinder/service.py: Service.start`).
    fn targets(&self) -> Vec<Target> {
        let (host, service) = (&self.options.host, self.options.service_host());
        let mut targets =
            vec![Target::new("cinder-volume", &service), Target::new(format!("cinder-volume.{service}"), host)];
        if let (Some(cluster), Some(name)) = (&self.options.cluster, self.options.cluster_name()) {
            targets.push(Target::new(format!("cinder-volume.{name}"), cluster));
        }
        targets
    }

    /// Serves requests until [`VolumeManager::drain`] is called; while isolated it listens to nothing.
    ///
    /// # Errors
    /// When the transport was closed under it.
    pub async fn serve(self: &Arc<Self>) -> Result<(), scoria_rpc::Error> {
        let prefetch = self.options.quick_slots.saturating_add(self.options.heavy_slots);
        let duplicates = Arc::new(Duplicates::new());
        if self.starts_isolated().await {
            // What is asked of us meanwhile waits in our queues, so they have to be there.
            self.transport.listen(self.targets(), 1).await?.stop().await;
        }
        while self.opened().await {
            let mut listener = self.transport.listen(self.targets(), prefetch).await?;
            loop {
                let delivery = tokio::select! {
                    biased;
                    _ = self.closed() => None,
                    delivery = listener.next() => delivery,
                };
                let Some(delivery) = delivery else { break };
                let (manager, duplicates) = (self.clone(), duplicates.clone());
                self.tasks.spawn("request", async move { manager.handle(delivery, &duplicates).await });
            }
            listener.stop().await;
        }
        Ok(())
    }

    /// Begins nothing new, waits for what is running at most as long as configured, then has it stop at its next safe
    /// point, and waits for that.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.running.gate().close();
        let grace = self.options.graceful_shutdown_timeout;
        let deadline = if grace.is_zero() { Deadline::NEVER } else { Deadline::after(grace) };
        if let Err(still_running) = self.running.gate().emptied(deadline).await {
            tracing::warn!(
                operations = still_running.join(", "),
                "graceful_shutdown_timeout passed, stopping at the next safe point"
            );
            self.stop_now.cancel();
            // A child that was killed is reaped in no time; only a dead server can hold a step longer than this.
            let _ = self.running.gate().emptied(Deadline::after(Duration::from_secs(10))).await;
        }
        self.stop_now.cancel();
    }

    async fn handle(self: Arc<Self>, delivery: Box<dyn Delivery>, duplicates: &Duplicates) {
        if !delivery.is_live() {
            return;
        }
        let Some(admitted) = self.admit(&*delivery).await else { return };
        let context = &admitted.request.context;
        let span = tracing::info_span!(
            "request",
            request_id = context.request_id.as_deref().unwrap_or("-"),
            user = context.user_id.as_deref().unwrap_or("-"),
            project = context.project_id.as_deref().unwrap_or("-"),
        );
        self.take_turn(&*delivery, &admitted, duplicates).instrument(span).await;
    }

    /// Refuses what is no request of ours, with one line and, where somebody waits, the proper failure.
    async fn admit(&self, delivery: &dyn Delivery) -> Option<Admitted> {
        let request = match delivery.request() {
            Ok(request) => request.clone(),
            Err(error) => {
                tracing::error!(%error, "message refused");
                ::metrics::counter!(metrics::REFUSED, "reason" => "undecodable").increment(1);
                let fault = Fault::new(scoria_model::FaultClass::ValueError, error.to_string());
                self.refuse(delivery, fault).await;
                return None;
            }
        };
        let refused =
            (!serves_version(&request.version)).then(|| Fault::unsupported_version(&request.version, &request.method));
        let method = operations::METHODS.iter().find(|method| method.name == request.method);
        match (refused, method) {
            (None, Some(method)) => {
                let key = args::key(&request.args).unwrap_or_else(|| method.name.to_owned());
                Some(Admitted { request, method, key, redelivered: delivery.redelivered() })
            }
            (refused, _) => {
                let fault = refused.unwrap_or_else(|| Fault::no_such_method(&request.method));
                tracing::error!(method = request.method, version = request.version, %fault, "request refused");
                ::metrics::counter!(metrics::REFUSED, "reason" => fault.class.name()).increment(1);
                self.refuse(delivery, fault).await;
                None
            }
        }
    }

    async fn refuse(&self, delivery: &dyn Delivery, fault: Fault) {
        if let Err(error) = delivery.reply(Err(fault)).await {
            tracing::warn!(%error, "reply could not be sent");
        }
        delivery.reject().await;
    }

    async fn take_turn(self: &Arc<Self>, delivery: &dyn Delivery, admitted: &Admitted, duplicates: &Duplicates) {
        let is_call = admitted.request.call.is_some();
        let deadline = if is_call {
            Deadline::after(self.options.response_timeout)
        } else {
            self.options.operation_timeout.map_or(Deadline::NEVER, Deadline::after)
        };
        if is_call {
            delivery.ack().await;
        }
        // One operation per volume at a time. A message that came twice waits here for its first run.
        let turn = tokio::select! {
            biased;
            interruption = self.closed() => return self.not_begun(delivery, is_call, interruption).await,
            turn = self.turns.take(&admitted.key) => turn,
        };
        let unique_id = admitted.request.unique_id.as_ref();
        if let Some(id) = unique_id
            && matches!(duplicates.begin(id), Begin::Done)
        {
            tracing::info!(method = admitted.method.name, "request was already served, dropped");
            delivery.ack().await;
            return;
        }
        let lane = match admitted.method.lane {
            Lane::Quick => ("quick", &*self.quick),
            Lane::Heavy => ("heavy", &*self.heavy),
        };
        let finished = match self.wait_for_slot(lane).await {
            Ok(_slot) if delivery.is_live() || is_call => {
                ::metrics::gauge!(metrics::LANE_RUNNING, "lane" => lane.0).increment(1);
                let finished = self.run_and_settle(delivery, admitted, deadline).await;
                ::metrics::gauge!(metrics::LANE_RUNNING, "lane" => lane.0).decrement(1);
                finished
            }
            // The connection it came by is gone: it comes again by another.
            Ok(_) => false,
            Err(interruption) => {
                self.not_begun(delivery, is_call, interruption).await;
                false
            }
        };
        if let Some(id) = unique_id {
            if finished { duplicates.finish(id) } else { duplicates.abandon(id) }
        }
        drop(turn);
    }

    /// A place in a lane, or why there will be none.
    pub(crate) async fn wait_for_slot<'a>(
        &self,
        (lane, slots): (&'static str, &'a Semaphore),
    ) -> Result<SemaphorePermit<'a>, Interruption> {
        ::metrics::gauge!(metrics::LANE_WAITING, "lane" => lane).increment(1);
        let slot = tokio::select! {
            biased;
            interruption = self.closed() => Err(interruption),
            slot = slots.acquire() => Ok(slot.expect("the lanes are never closed")),
        };
        ::metrics::gauge!(metrics::LANE_WAITING, "lane" => lane).decrement(1);
        slot
    }

    /// Runs the operation and settles the delivery. Returns whether the request is done with.
    async fn run_and_settle(
        self: &Arc<Self>,
        delivery: &dyn Delivery,
        admitted: &Admitted,
        deadline: Deadline,
    ) -> bool {
        let is_call = admitted.request.call.is_some();
        let run = self.run(admitted, deadline);
        tokio::pin!(run);
        let mut acked = is_call;
        let outcome = tokio::select! {
            outcome = &mut run => outcome,
            () = tokio::time::sleep(self.options.late_ack_ceiling), if !acked => {
                tracing::info!(method = admitted.method.name, "still running, acknowledged: its workers row carries it on");
                acked = true;
                delivery.ack().await;
                run.await
            }
        };
        if is_call {
            self.answer(delivery, outcome).await;
            return true;
        }
        match outcome {
            Err(Failure::Interrupted(interruption)) if interruption.comes_again() => {
                if !acked {
                    self.hand_back(delivery, &interruption).await;
                }
                false
            }
            _ => {
                if !acked && !delivery.ack().await {
                    tracing::info!("the connection was lost before the acknowledgement: the request will come again");
                }
                true
            }
        }
    }

    async fn answer(&self, delivery: &dyn Delivery, outcome: Result<Value, Failure>) {
        let reply = outcome.map_err(|failure| match failure {
            Failure::Fault(fault) => fault,
            Failure::Interrupted(interruption) => Fault::backend(interruption),
        });
        if let Err(error) = delivery.reply(reply).await {
            tracing::warn!(%error, "reply could not be sent");
        }
    }

    /// A cast comes again, here or elsewhere; a call is settled already, so its caller has to hear of it.
    async fn not_begun(&self, delivery: &dyn Delivery, is_call: bool, interruption: Interruption) {
        match is_call {
            true => self.answer(delivery, Err(interruption.into())).await,
            false => self.hand_back(delivery, &interruption).await,
        }
    }

    async fn hand_back(&self, delivery: &dyn Delivery, why: &Interruption) {
        let reason = match why {
            Interruption::Draining => "draining",
            Interruption::LockLost => "lock lost",
            _ => "unavailable",
        };
        ::metrics::counter!(metrics::HANDED_BACK, "reason" => reason).increment(1);
        // Nothing comes to an isolated service, so there is nothing to slow down.
        if matches!(why, Interruption::Unavailable(_)) && self.is_open() {
            tokio::select! {
                () = tokio::time::sleep(HAND_BACK_DELAY) => {}
                () = self.draining.cancelled() => {}
            }
        }
        delivery.requeue().await;
    }

    /// Runs the operation; one that is interrupted is put down in order.
    pub(crate) async fn perform(self: &Arc<Self>, job: &Job, request: &Request) -> Result<Value, Failure> {
        let outcome = operations::run(self, job, request).await;
        if matches!(&outcome, Err(Failure::Interrupted(interruption)) if interruption.comes_again()) {
            self.put_down(job).await;
        }
        outcome
    }

    async fn run(self: &Arc<Self>, admitted: &Admitted, deadline: Deadline) -> Result<Value, Failure> {
        let (request, method) = (&admitted.request, admitted.method);
        let entry = self
            .running
            .enter(method.name, &admitted.key, request.context.request_id.as_deref())
            .map_err(|_| Failure::from(Interruption::Draining))?;
        let job =
            Job::new(request.context.clone(), method.name, admitted.key.clone(), deadline, entry, admitted.redelivered);
        let began = Instant::now();
        tracing::info!(resource = job.resource, "{} started", method.name);
        let outcome = self.perform(&job, request).await;
        let took = began.elapsed();
        let word = match &outcome {
            Ok(_) => "ok",
            Err(Failure::Fault(_)) => "failed",
            Err(Failure::Interrupted(_)) => "interrupted",
        };
        ::metrics::counter!(metrics::OPERATIONS, "operation" => method.name, "outcome" => word).increment(1);
        ::metrics::histogram!(metrics::OPERATION_SECONDS, "operation" => method.name).record(took.as_secs_f64());
        match &outcome {
            Ok(_) => tracing::info!(resource = job.resource, ?took, "{} done", method.name),
            Err(failure @ Failure::Fault(_)) => {
                tracing::error!(resource = job.resource, ?took, "{} failed: {failure}", method.name);
            }
            Err(failure) => tracing::warn!(resource = job.resource, ?took, "{} {failure}", method.name),
        }
        outcome
    }
}

/// Whether a message of that version is for us: same major, not a newer minor (`oslo_messaging`: `version_is_compatible`).
fn serves_version(version: &str) -> bool {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let served = parse(scoria_model::VOLUME_RPC_VERSION).expect("our own version is well formed");
    parse(version).is_some_and(|(major, minor)| major == served.0 && minor <= served.1)
}

#[cfg(test)]
mod tests {
    use super::serves_version;

    #[test]
    fn versions_are_served_within_the_major() {
        assert!(serves_version("3.0") && serves_version("3.20"));
        for version in ["3.21", "4.0", "2.9", "1.0", "3", "x"] {
            assert!(!serves_version(version), "{version}");
        }
    }
}
