//! Publishing: every message is confirmed by the broker, one at a time per channel, over a small set of channels.
//!
//! One at a time, because a returned (mandatory, unroutable) message is matched to its confirmation by order only: pipelined,
//! lapin hands returns to the wrong ones.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use scoria_runtime::Deadline;
use tokio::sync::Semaphore;

use super::compression::{self, Compression};
use super::link::{Link, Live};
use super::topology::{Exchange, Queue};
use crate::{Error, Health};

/// Messages that can be on their way at a time.
const CHANNELS: usize = 4;
/// Pause after a refusal.
const PAUSE: Duration = Duration::from_millis(250);

/// A message to send.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// `None` for the default exchange.
    pub(super) exchange: Option<Exchange>,
    pub(super) routing_key: String,
    pub(super) body: Vec<u8>,
    /// Whether to hear of it when there is no queue for it.
    pub(super) mandatory: bool,
    /// When the broker may forget it.
    pub(super) expiration: Option<Duration>,
    /// A queue that is declared first, for messages that wait there for a reader to come.
    pub(super) queue: Option<Queue>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The broker has it (where a queue was bound for it, in the queue).
    Taken,
    /// Mandatory, and there is no queue for it.
    NoQueue,
}

/// Sends over one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link,
    compression: Option<Compression>,
    slots: Semaphore,
    idle: Mutex<Vec<Lane>>,
}

/// A channel with what is known to be declared.
#[derive(Debug)]
struct Lane {
    live: Arc<Live>,
    channel: Channel,
    declared: HashSet<String>,
}

impl Publisher {
    pub(super) fn new(link: Link, compression: Option<Compression>) -> Self {
        Self { link, compression, slots: Semaphore::new(CHANNELS), idle: Mutex::default() }
    }

    /// How the connection is.
    pub(super) fn health(&self) -> Health {
        self.link.health()
    }

    /// Sends until the broker has confirmed. The message may then be there twice, with the same `_unique_id`: a confirmation
    /// that was lost cannot be told from a message that was lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`] at the deadline, with what stood in the way; [`Error::Closed`].
    pub(super) async fn publish(&self, message: &Outgoing, deadline: Deadline) -> Result<Fate, Error> {
        let started = Instant::now();
        let mut last = None;
        loop {
            let refusal = tokio::select! {
                biased;
                sent = self.attempt(message) => match sent {
                    Ok(fate) => {
                        metrics::counter!("scoria_rpc_messages_total", "direction" => "out").increment(1);
                        metrics::histogram!("scoria_rpc_publish_seconds").record(started.elapsed().as_secs_f64());
                        return Ok(fate);
                    }
                    Err(Failure::Closed) => return Err(Error::Closed),
                    Err(Failure::Refused(reason)) => reason,
                },
                () = deadline.wait() => return Err(self.unavailable(last)),
            };
            tracing::debug!(routing_key = message.routing_key, refusal, "message not taken: trying again");
            last = Some(refusal);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = deadline.wait() => return Err(self.unavailable(last)),
            }
        }
    }

    fn unavailable(&self, last: Option<String>) -> Error {
        Error::Unavailable(match (self.link.health(), last) {
            (Health::Down(reason), _) | (Health::Up, Some(reason)) => reason,
            (Health::Up, None) => "the broker did not confirm in time".to_owned(),
        })
    }

    /// One try. Where it is given up, its channel goes too, so that a late confirmation cannot be taken for another's.
    async fn attempt(&self, message: &Outgoing) -> Result<Fate, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::Closed)?;
        let live = self.link.live().await.map_err(|_| Failure::Closed)?;
        live.unblocked().await;
        let mut lane = match self.take_idle(&live) {
            Some(lane) => lane,
            None => Lane::open(live).await?,
        };
        let fate = lane.send(message, self.compression).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        Ok(fate)
    }

    fn take_idle(&self, live: &Live) -> Option<Lane> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|lane| lane.live.generation == live.generation && lane.channel.status().connected());
        idle.pop()
    }
}

enum Failure {
    Closed,
    Refused(String),
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Lane {
    async fn open(live: Arc<Live>) -> Result<Self, lapin::Error> {
        let channel = live.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { live, channel, declared: HashSet::new() })
    }

    async fn send(&mut self, message: &Outgoing, compression: Option<Compression>) -> Result<Fate, Failure> {
        self.declare(message).await?;
        let exchange = message.exchange.as_ref().map_or("", |exchange| exchange.name.as_str());
        let key = ShortString::try_new(&*message.routing_key).map_err(|error| Failure::Refused(error.to_string()))?;
        let options = BasicPublishOptions { mandatory: message.mandatory, immediate: false };
        let body = match compression {
            Some(compression) => compression.compress(&message.body).into(),
            None => Cow::Borrowed(&*message.body),
        };
        let properties = properties(message, compression);
        let published = self.channel.basic_publish(exchange.into(), key, options, &body, properties);
        match published.await?.await? {
            Confirmation::Ack(None) => Ok(Fate::Taken),
            Confirmation::Ack(Some(_)) => Ok(Fate::NoQueue),
            Confirmation::Nack(_) => Err(Failure::Refused("the broker could not take the message (nack)".to_owned())),
            Confirmation::NotRequested => Err(Failure::Refused("publisher confirms are off".to_owned())),
        }
    }

    /// Once per channel; a channel that is closed, because an exchange was gone for example, forgets.
    async fn declare(&mut self, message: &Outgoing) -> Result<(), lapin::Error> {
        if let Some(queue) = &message.queue
            && !self.declared.contains(&queue.name)
        {
            queue.declare(&self.live.connection).await?;
            self.declared.insert(queue.name.clone());
        }
        if let Some(exchange) = &message.exchange
            && !self.declared.contains(&exchange.name)
        {
            exchange.declare(&self.live.connection).await?;
            self.declared.insert(exchange.name.clone());
        }
        Ok(())
    }
}

/// As kombu sets them, for casts into non-durable queues too.
fn properties(message: &Outgoing, compression: Option<Compression>) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(compression) = compression {
        headers.insert(compression::HEADER.into(), AMQPValue::LongString(compression.content_type().into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(0);
    match message.expiration {
        Some(after) => properties.with_expiration(after.as_millis().to_string().into()),
        None => properties,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_those_of_the_wire_samples() {
        let message = Outgoing {
            exchange: None,
            routing_key: "q".to_owned(),
            body: Vec::new(),
            mandatory: false,
            expiration: Some(Duration::from_secs(60)),
            queue: None,
        };
        let set = properties(&message, None);
        assert_eq!(set.content_type().as_ref().unwrap().as_str(), "application/json");
        assert_eq!(set.content_encoding().as_ref().unwrap().as_str(), "utf-8");
        assert_eq!((*set.delivery_mode(), *set.priority()), (Some(2), Some(0)));
        assert_eq!(set.expiration().as_ref().unwrap().as_str(), "60000");
        assert!(set.headers().as_ref().unwrap().inner().is_empty());
        assert!(set.correlation_id().is_none() && set.message_id().is_none() && set.reply_to().is_none());
        let set = properties(&Outgoing { expiration: None, ..message }, Some(Compression::Gzip));
        assert!(set.expiration().is_none());
        let compression = &set.headers().as_ref().unwrap().inner()["compression"];
        assert_eq!(*compression, AMQPValue::LongString("application/x-gzip".into()));
    }
}
