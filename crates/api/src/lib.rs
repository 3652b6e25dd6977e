//! HTTP: how the service is ([`admin`]), and the front door of stand-alone mode ([`volume`]).
//!
//! [`admin::router`] answers health, metrics, what is running and who holds which lock.
//! [`volume::router`] speaks the block-storage v3 API to unmodified clients. It does what cinder-api does for volumes,
//! snapshots and attachments: it checks the request, reserves quota, writes the row, and sends the message that the
//! volume service works on.
//!
//! What it is not: it never calls a driver and never does the volume service's work, it does not authenticate against
//! Keystone, and it opens no socket: `service` does that.

pub mod admin;
pub mod volume;
