//! Calls of ours: one reply queue for the process, and who waits for which answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use scoria_model::MessageId;
use scoria_runtime::{CancellationToken, Deadline};
use tokio::sync::{oneshot, watch};

use super::compression::plain_body;
use super::connection::Access;
use super::link::{Link, Retry};
use super::session::{Incident, Session};
use super::topology::Queue;
use crate::{Error, Reply, decode_reply};

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Reply>>>>;

/// The reply queue and its waiters.
#[derive(Debug)]
pub(super) struct Calls {
    /// Name of the reply queue, the same for the life of the process, so that an answer finds us after a reconnect.
    pub(super) reply_q: String,
    waiting: Waiting,
    ready: watch::Receiver<bool>,
}

/// A place in the list of waiters; leaving is dropping it.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) msg_id: String,
    answer: oneshot::Receiver<Reply>,
    waiting: Waiting,
}

impl Calls {
    /// Returns the queue's handle, and the work that keeps it consumed.
    pub(super) fn new(queue: Queue, link: Link, access: Arc<Access>) -> (Self, ReplyConsumer) {
        let (sender, ready) = watch::channel(false);
        let waiting = Waiting::default();
        let calls = Self { reply_q: queue.name.clone(), waiting: waiting.clone(), ready };
        (calls, ReplyConsumer { queue, link, access, waiting, ready: sender })
    }

    /// Waits until answers can come.
    ///
    /// # Errors
    /// [`Error::Unavailable`] at the deadline.
    pub(super) async fn ready(&self, deadline: Deadline) -> Result<(), Error> {
        let mut ready = self.ready.clone();
        tokio::select! {
            done = ready.wait_for(|ready| *ready) => done.map(drop).map_err(|_| Error::Closed),
            () = deadline.wait() => Err(Error::Unavailable("the reply queue could not be declared".to_owned())),
        }
    }

    /// A waiter with an id of its own.
    pub(super) fn waiter(&self) -> Waiter {
        let msg_id = MessageId::random_hex().as_str().to_owned();
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(msg_id.clone(), sender);
        Waiter { msg_id, answer, waiting: self.waiting.clone() }
    }
}

impl Waiter {
    /// The answer; `None` at the deadline.
    pub(super) async fn answer(mut self, deadline: Deadline) -> Option<Reply> {
        tokio::select! {
            answer = &mut self.answer => answer.ok(),
            () = deadline.wait() => None,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.msg_id);
    }
}

/// Consumes the reply queue, over all reconnects.
pub(super) struct ReplyConsumer {
    queue: Queue,
    link: Link,
    access: Arc<Access>,
    waiting: Waiting,
    ready: watch::Sender<bool>,
}

impl ReplyConsumer {
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.consume()).await;
    }

    async fn consume(self) {
        let mut retry = Retry::new(self.access.clone());
        while let Ok(live) = self.link.live().await {
            match Session::open(live, std::slice::from_ref(&self.queue), &[None], 0).await {
                Ok(mut session) => {
                    retry.reset();
                    self.ready.send_replace(true);
                    let reason = self.hand_out(&mut session).await;
                    self.ready.send_replace(false);
                    tracing::info!(queue = %self.queue.name, reason, "reply consumer ended: opening it again");
                }
                Err(error) => tracing::warn!(queue = %self.queue.name, %error, "the reply queue cannot be consumed"),
            }
            retry.wait().wait().await;
        }
    }

    async fn hand_out(&self, session: &mut Session) -> String {
        loop {
            match session.next().await {
                Incident::Message(_, delivery) => {
                    self.answer(&delivery);
                    if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
                        return error.to_string();
                    }
                }
                Incident::Cancelled(index) => {
                    if let Err(error) = session.repair(index).await {
                        return error.to_string();
                    }
                }
                Incident::Gone(reason) => return reason,
            }
        }
    }

    fn answer(&self, delivery: &Delivery) {
        metrics::counter!("scoria_rpc_messages_total", "direction" => "in").increment(1);
        match plain_body(delivery).and_then(|body| decode_reply(&body)) {
            // We ask for no signs of life (`_timeout` is null), and wait no longer for them.
            Ok(reply) if !reply.ending => {}
            Ok(reply) => {
                let waiter = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.msg_id);
                match waiter {
                    // The caller may have given up in this moment.
                    Some(waiter) => drop(waiter.send(reply)),
                    None => tracing::info!(msg_id = reply.msg_id, "answer to a call that nobody waits for any more"),
                }
            }
            Err(error) => tracing::warn!(%error, "unreadable reply dropped"),
        }
    }
}
