//! A message in hand.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt;
use lapin::{Acker, Channel};

use lapin::options::{BasicAckOptions, BasicNackOptions};
use scoria_model::Fault;
use scoria_runtime::CancellationToken;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::DropGuard;

use super::compression::plain_body;
use super::link::Live;
use super::reply::Replier;
use super::session::header_number;
use crate::{Call, DecodeError, Delivery, Error, Request, decode, encode_reply};

/// A delivery of one generation of the connection.
pub(super) struct AmqpDelivery {
    request: Result<Request, DecodeError>,
    redelivered: bool,
    delivery_count: Option<u64>,
    acker: Acker,
    live: Arc<Live>,
    replier: Arc<Replier>,
    /// The slot; free again as soon as the message is settled.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Ends the signs of life.
    monitor: Mutex<Option<DropGuard>>,
    /// Keeps the channel open until the last of its messages is settled.
    _channel: Channel,
}

impl AmqpDelivery {
    pub(super) fn new(
        delivery: lapin::message::Delivery,
        live: Arc<Live>,
        channel: Channel,
        replier: Arc<Replier>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        metrics::counter!("scoria_rpc_messages_total", "direction" => "in").increment(1);
        Self {
            request: read(&delivery),
            redelivered: delivery.redelivered,
            delivery_count: header_number(&delivery, "x-delivery-count").and_then(|count| u64::try_from(count).ok()),
            acker: delivery.acker,
            live,
            replier,
            permit: Mutex::new(Some(permit)),
            monitor: Mutex::new(None),
            _channel: channel,
        }
    }

    /// Who waits for an answer.
    pub(super) fn call(&self) -> Option<&Call> {
        match &self.request {
            Ok(request) => request.call.as_ref(),
            Err(error) => error.call.as_ref(),
        }
    }

    /// What ends the signs of life: answer or drop.
    pub(super) fn monitored(&self) -> CancellationToken {
        let done = CancellationToken::new();
        *self.monitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(done.clone().drop_guard());
        done
    }

    fn free_slot(&self) {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    async fn nack(&self, requeue: bool) {
        // On a dead connection the broker takes it back by itself.
        let _ = self.acker.nack(BasicNackOptions { multiple: false, requeue }).await;
        self.free_slot();
    }
}

/// The request, or why it is none.
fn read(delivery: &lapin::message::Delivery) -> Result<Request, DecodeError> {
    decode(&plain_body(delivery)?)
}

#[async_trait]
impl Delivery for AmqpDelivery {
    fn request(&self) -> Result<&Request, &DecodeError> {
        self.request.as_ref()
    }

    fn redelivered(&self) -> bool {
        self.redelivered
    }

    fn delivery_count(&self) -> Option<u64> {
        self.delivery_count
    }

    fn is_live(&self) -> bool {
        !self.live.lost.is_cancelled() && !self.acker.poisoned()
    }

    async fn reply(&self, outcome: Result<Value, Fault>) -> Result<(), Error> {
        let Some(call) = self.call() else {
            return Ok(());
        };
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.replier.answer(call, encode_reply(&call.msg_id, &outcome)).await
    }

    async fn ack(&self) -> bool {
        let settled = !self.live.lost.is_cancelled()
            && matches!(self.acker.ack(BasicAckOptions { multiple: false }).await, Ok(true));
        self.free_slot();
        settled
    }

    async fn requeue(&self) {
        self.nack(true).await;
    }

    async fn reject(&self) {
        self.nack(false).await;
    }
}

impl Drop for AmqpDelivery {
    fn drop(&mut self) {
        if self.acker.usable() {
            // The first poll hands the frame to lapin, which needs nobody to wait for it to be written.
            let _ = self.acker.nack(BasicNackOptions { multiple: false, requeue: true }).now_or_never();
        }
    }
}
