//! The transport: what the service sees of the broker.

use std::time::Duration;

use async_trait::async_trait;
use scoria_model::Fault;
use serde_json::Value;

use crate::{DecodeError, Destination, Error, Notification, Request, Target};

/// How the connection to the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Messages come and go.
    Up,
    /// They do not; why, for an operator.
    Down(String),
}

/// A broker.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Listens on the targets. At most `prefetch` deliveries are unsettled at a time. Reconnects by itself, for ever.
    ///
    /// # Errors
    /// [`Error::Closed`]; an unreachable broker is waited for, not reported.
    async fn listen(&self, targets: Vec<Target>, prefetch: u16) -> Result<Box<dyn Listener>, Error>;

    /// Sends without waiting for an answer; returns when the broker has confirmed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it could not be confirmed in time.
    async fn cast(&self, to: &Destination, request: Request) -> Result<(), Error>;

    /// Sends and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Timeout`], or what the peer raised.
    async fn call(&self, to: &Destination, request: Request, timeout: Duration) -> Result<Value, Error>;

    /// Sends a notification, where any are configured.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn notify(&self, notification: Notification) -> Result<(), Error>;

    /// How the connection is.
    fn health(&self) -> Health;

    /// Ends all connections.
    async fn close(&self);
}

/// A stream of deliveries.
#[async_trait]
pub trait Listener: Send {
    /// The next delivery; `None` once stopped.
    async fn next(&mut self) -> Option<Box<dyn Delivery>>;
    /// Stops consuming; deliveries already handed out can still be settled, those not yet handed out go back to the queue.
    async fn stop(&mut self);
}

/// One message to be settled: exactly one of [`Delivery::ack`], [`Delivery::requeue`], [`Delivery::reject`].
/// A delivery that is dropped unsettled is requeued.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// The request, or why it is none.
    fn request(&self) -> Result<&Request, &DecodeError>;
    /// Whether the broker has handed it out before.
    fn redelivered(&self) -> bool;
    /// How often it was handed out before, where the broker counts (`x-delivery-count`).
    fn delivery_count(&self) -> Option<u64>;
    /// Whether the connection it came by still stands: a dead delivery comes again and must not be begun.
    fn is_live(&self) -> bool;
    /// Answers a call; without effect on a cast. May be given before or after settling.
    async fn reply(&self, outcome: Result<Value, Fault>) -> Result<(), Error>;
    /// Settled: the outcome is durable. Returns false when the connection is gone and the message will come again.
    async fn ack(&self) -> bool;
    /// Hands it back to be delivered again, to anyone.
    async fn requeue(&self);
    /// Gives it up.
    async fn reject(&self);
}
