//! Messages between the services of a cloud: the oslo.messaging envelope, targets, replies and failures, over AMQP and in
//! process.
//!
//! [`Transport`] is what the service sees; `providers::amqp` speaks to RabbitMQ, `providers::memory` stays in the process.
//! What it is not: it knows no volume; methods and their arguments belong to those who serve them.

mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod duplicates;
mod envelope;
mod error;
mod message;
mod notification;
pub mod providers;
mod reply;
mod target;
#[cfg(test)]
mod testing;
mod transport;

pub use client::Client;
pub use duplicates::{Begin, Duplicates};
pub use envelope::{DecodeError, MAX_BODY_BYTES, decode, encode, open};
pub use error::Error;
pub use message::{Call, Notification, Request};
pub use notification::encode_notification;
pub use reply::{Reply, decode_reply, encode_heartbeat, encode_reply};
pub use target::{Destination, Target};
pub use transport::{Delivery, Health, Listener, Transport};

/// `[DEFAULT] rpc_response_timeout`: seconds a caller waits by default.
pub const RESPONSE_TIMEOUT_SECONDS: u64 = 60;
