//! Answers to callers, and signs of life while their work goes on (`oslo_messaging/_drivers/amqpdriver.py:
//! AMQPIncomingMessage`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_runtime::{CancellationToken, Deadline};
use tokio::time::Instant;

use super::publish::{Fate, Outgoing, Publisher};
use crate::{Call, Error, encode_heartbeat};

/// Pause between two offers of a reply whose queue is missing.
const OFFER_INTERVAL: Duration = Duration::from_millis(250);
/// How long a queue counts as gone once an answer to it was given up, and how many such queues are remembered.
const GONE_FOR: Duration = Duration::from_secs(60);
const GONE_AT_MOST: usize = 200;

/// Sends to reply queues.
#[derive(Debug)]
pub(super) struct Replier {
    publisher: Arc<Publisher>,
    publish_timeout: Duration,
    /// `kombu_missing_consumer_retry_timeout`.
    offer_timeout: Duration,
    gone: Mutex<HashMap<String, Instant>>,
}

impl Replier {
    pub(super) fn new(publisher: Arc<Publisher>, publish_timeout: Duration, offer_timeout: Duration) -> Self {
        Self { publisher, publish_timeout, offer_timeout, gone: Mutex::default() }
    }

    /// Sends the answer. Where the caller's queue is missing, it is offered for a while, as the caller may be reconnecting,
    /// and then dropped: that is logged and counted and no error, since nobody waits for it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the broker did not take it in time.
    pub(super) async fn answer(&self, call: &Call, body: Vec<u8>) -> Result<(), Error> {
        if self.is_gone(&call.reply_q) || super::check_name(&call.reply_q).is_err() {
            tracing::warn!(msg_id = call.msg_id, reply_q = call.reply_q, "reply dropped: its queue is gone");
            metrics::counter!("scoria_rpc_replies_dropped_total").increment(1);
            return Ok(());
        }
        let message = outgoing(call, body);
        let offered_until = Deadline::after(self.offer_timeout);
        loop {
            match self.publisher.publish(&message, Deadline::after(self.publish_timeout)).await? {
                Fate::Taken => return Ok(()),
                Fate::NoQueue if offered_until.has_passed() => {
                    let seconds = self.offer_timeout.as_secs();
                    let (msg_id, reply_q) = (&call.msg_id, &call.reply_q);
                    tracing::error!(%msg_id, %reply_q, "reply dropped: its queue is missing for {seconds} s");
                    metrics::counter!("scoria_rpc_replies_dropped_total").increment(1);
                    self.remember_gone(&call.reply_q);
                    return Ok(());
                }
                Fate::NoQueue => tokio::time::sleep(OFFER_INTERVAL).await,
            }
        }
    }

    /// Sends signs of life, every half of the call's monitor timeout, until `done` or until nobody is there to see them.
    pub(super) async fn watch(self: Arc<Self>, call: Call, seconds: u64, done: CancellationToken) {
        let every = Duration::from_secs(seconds).div_f64(2.0).max(OFFER_INTERVAL);
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let message = outgoing(&call, encode_heartbeat(&call.msg_id));
            let sent = self.publisher.publish(&message, Deadline::after(every));
            match done.run_until_cancelled(sent).await {
                Some(Ok(Fate::NoQueue)) | None => return,
                Some(Ok(Fate::Taken)) => {}
                Some(Err(error)) => tracing::debug!(msg_id = call.msg_id, %error, "no sign of life could be sent"),
            }
        }
    }

    fn is_gone(&self, queue: &str) -> bool {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|_, since| since.elapsed() < GONE_FOR);
        gone.contains_key(queue)
    }

    fn remember_gone(&self, queue: &str) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() < GONE_AT_MOST {
            gone.insert(queue.to_owned(), Instant::now());
        }
    }
}

fn outgoing(call: &Call, body: Vec<u8>) -> Outgoing {
    Outgoing { exchange: None, routing_key: call.reply_q.clone(), body, mandatory: true, expiration: None, queue: None }
}
