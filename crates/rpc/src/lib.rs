//! Messages between the services of a cloud: the oslo.messaging envelope, targets, replies and failures, over AMQP and in
//! process.
//!
//! [`Transport`] is what the service sees; `providers::amqp` speaks to RabbitMQ, `providers::memory` stays in the process.
//! What it is not: it knows no volume; methods and their arguments belong to those who serve them.

mod envelope;
mod error;
mod message;
pub mod providers;
mod target;
mod transport;

pub use envelope::{DecodeError, Reply, decode, encode, encode_reply};
pub use error::Error;
pub use message::{Call, Notification, Request};
pub use target::{Destination, Target};
pub use transport::{Delivery, Health, Listener, Transport};

/// `[DEFAULT] rpc_response_timeout`: seconds a caller waits by default.
pub const RESPONSE_TIMEOUT_SECONDS: u64 = 60;
