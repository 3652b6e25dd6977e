//! The brokers.

pub mod amqp;
pub mod memory;
