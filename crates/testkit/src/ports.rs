//! Free TCP ports on the loopback address.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};
use rand::Rng;

/// Drawn from below Linux' range for outgoing connections (32768 and up), so that no client socket takes the port
/// between the look and the server's start.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1 that nobody listens on right now.
///
/// # Errors
/// No free port in a hundred tries.
pub fn free_port() -> Result<u16> {
    (0..100)
        .map(|_| rand::rng().random_range(RANGE))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free TCP port on 127.0.0.1 in a hundred tries")
}
