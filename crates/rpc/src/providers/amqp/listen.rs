//! Listening: consumers that survive their connections, and the messages not yet in hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::BasicNackOptions;
use scoria_runtime::{CancellationToken, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::connection::Access;
use super::delivery::AmqpDelivery;
use super::link::{Link, Live, Retry};
use super::reply::Replier;
use super::session::{Incident, Session};
use super::topology::Queue;
use crate::{Delivery, Error, Listener};

/// How long handing back may take; after that the broker takes everything back when the channel closes.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The receiving end.
pub(super) struct AmqpListener {
    deliveries: mpsc::Receiver<AmqpDelivery>,
    replier: Arc<Replier>,
    tasks: Tasks,
    /// Stops the consumer; dropping the listener does too.
    stop: CancellationToken,
    /// Closed when the consumer has ended.
    ended: watch::Receiver<()>,
}

/// Keeps the queues consumed.
pub(super) struct Consumer {
    pub(super) queues: Vec<Queue>,
    pub(super) prefetch: u16,
    pub(super) link: Link,
    pub(super) access: Arc<Access>,
    pub(super) replier: Arc<Replier>,
}

impl Consumer {
    /// Consumes in the background, and returns when the queues are declared and consumed: a message sent before that is
    /// lost. That may take until there is a broker.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(super) async fn start(self, tasks: &Tasks) -> Result<AmqpListener, Error> {
        let (sender, deliveries) = mpsc::channel(usize::from(self.prefetch));
        let (open, mut opened) = watch::channel(false);
        let (ending, ended) = watch::channel(());
        let stop = CancellationToken::new();
        let (replier, stopped, transport_stop) = (self.replier.clone(), stop.clone(), tasks.stop_token());
        tasks.spawn("rpc listener", async move {
            self.run(sender, open, stopped, transport_stop).await;
            drop(ending);
        });
        let listener = AmqpListener { deliveries, replier, tasks: tasks.clone(), stop, ended };
        opened.wait_for(|open| *open).await.map_err(|_| Error::Closed)?;
        Ok(listener)
    }

    async fn run(
        self,
        sender: mpsc::Sender<AmqpDelivery>,
        open: watch::Sender<bool>,
        stop: CancellationToken,
        transport_stop: CancellationToken,
    ) {
        let slots = Arc::new(Semaphore::new(self.prefetch.into()));
        let mut offsets = vec![None; self.queues.len()];
        let mut retry = Retry::new(self.access.clone());
        loop {
            let session = tokio::select! {
                () = stop.cancelled() => return,
                () = transport_stop.cancelled() => return,
                session = self.open(&offsets) => session,
            };
            match session {
                Ok(session) => {
                    retry.reset();
                    open.send_replace(true);
                    let mut serving = Serving { session, waiting: VecDeque::new(), slots: &slots, sender: &sender };
                    let reason = tokio::select! {
                        reason = serving.run(&self.replier) => reason,
                        () = stop.cancelled() => return serving.hand_back().await,
                        () = transport_stop.cancelled() => return serving.hand_back().await,
                    };
                    offsets.clone_from_slice(serving.session.offsets());
                    tracing::warn!(reason, "listener interrupted: what was not settled comes again");
                }
                Err(Error::Closed) => return,
                Err(error) => tracing::warn!(%error, "the queues cannot be consumed: trying again"),
            }
            tokio::select! {
                () = retry.wait().wait() => {}
                () = stop.cancelled() => return,
                () = transport_stop.cancelled() => return,
            }
        }
    }

    async fn open(&self, offsets: &[Option<i64>]) -> Result<Session, Error> {
        let live = self.link.live().await?;
        let opened = Session::open(live, &self.queues, offsets, self.prefetch).await;
        opened.map_err(|error| Error::Unavailable(error.to_string()))
    }
}

/// One session of a consumer.
struct Serving<'a> {
    session: Session,
    /// Came, but no slot is free. The broker bounds it.
    waiting: VecDeque<lapin::message::Delivery>,
    slots: &'a Arc<Semaphore>,
    sender: &'a mpsc::Sender<AmqpDelivery>,
}

impl Serving<'_> {
    /// Passes messages on as slots become free; returns why it ended. The consumers are polled all the while, so that the
    /// end of the connection is noticed even when every slot is taken.
    async fn run(&mut self, replier: &Arc<Replier>) -> String {
        loop {
            tokio::select! {
                incident = self.session.next() => match incident {
                    Incident::Message(index, delivery) => {
                        self.session.passed(index, &delivery);
                        self.waiting.push_back(*delivery);
                    }
                    Incident::Cancelled(index) => {
                        tracing::warn!("the broker has cancelled a consumer (queue deleted or moved): declaring it again");
                        metrics::counter!("scoria_rpc_consumers_cancelled_total").increment(1);
                        if let Err(error) = self.session.repair(index).await {
                            return error.to_string();
                        }
                    }
                    Incident::Gone(reason) => return reason,
                },
                permit = self.slots.clone().acquire_owned(), if !self.waiting.is_empty() => {
                    // The semaphore is never closed.
                    let Ok(permit) = permit else { return "closed".to_owned() };
                    if let Some(delivery) = self.waiting.pop_front() {
                        self.pass_on(delivery, permit, replier);
                    }
                }
            }
        }
    }

    fn pass_on(&self, delivery: lapin::message::Delivery, permit: OwnedSemaphorePermit, replier: &Arc<Replier>) {
        let (live, channel): (Arc<Live>, _) = (self.session.live.clone(), self.session.channel.clone());
        let delivery = AmqpDelivery::new(delivery, live, channel, replier.clone(), permit);
        // There are as many places as slots, so it fails only when the listener is gone; then it goes back by being dropped.
        let _ = self.sender.try_send(delivery);
    }

    async fn hand_back(self) {
        let handing_back = async {
            let left = self.session.cancel().await;
            for delivery in self.waiting.into_iter().chain(left) {
                // A failure means that the channel is gone, and then the broker has it back already.
                let _ = delivery.acker.nack(BasicNackOptions { multiple: false, requeue: true }).await;
            }
        };
        if tokio::time::timeout(HAND_BACK_TIMEOUT, handing_back).await.is_err() {
            tracing::warn!("the broker does not answer: what was not begun goes back when the connection ends");
        }
    }
}

#[async_trait]
impl Listener for AmqpListener {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            let delivery = self.deliveries.recv().await?;
            // Prefetched by a connection that has died since: it comes again.
            if !delivery.is_live() {
                continue;
            }
            if let Some(call) = delivery.call()
                && let Some(seconds) = call.monitor_timeout
            {
                let watch = self.replier.clone().watch(call.clone(), seconds, delivery.monitored());
                let stop = self.tasks.stop_token();
                self.tasks.spawn("call monitor", async move {
                    stop.run_until_cancelled(watch).await;
                });
            }
            return Some(Box::new(delivery));
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        // Ends with an error when the sender is gone, which is what is waited for.
        let _ = self.ended.changed().await;
        self.deliveries.close();
        while let Some(delivery) = self.deliveries.recv().await {
            delivery.requeue().await;
        }
    }
}

impl Drop for AmqpListener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
