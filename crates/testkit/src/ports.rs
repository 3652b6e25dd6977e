//! Free TCP ports on the loopback address.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rand::Rng;

/// Drawn from below Linux' range for outgoing connections (32768 and up), so that no client socket takes the port
/// between the look and the server's start.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// Locks on the ports that this process has drawn, until it ends.
static DRAWN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on right now, and that no other test draws while this process lives: some servers take
/// seconds until they listen.
///
/// # Errors
/// No free port in a hundred tries, or the directory for temporary files cannot be used.
pub fn free_port() -> Result<u16> {
    let directory = drawn_ports();
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for _ in 0..100 {
        let port = rand::rng().random_range(RANGE);
        let path = directory.join(port.to_string());
        let file = File::options().append(true).create(true).open(&path).with_context(|| path.display().to_string())?;
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            DRAWN.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return Ok(port);
        }
    }
    anyhow::bail!("no free TCP port on 127.0.0.1 in a hundred tries")
}

/// Where every process that runs as this user locks one file per port it has drawn.
fn drawn_ports() -> PathBuf {
    std::env::temp_dir().join(format!("scoria-test-ports-{}", nix::unistd::getuid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_drawn_once() {
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(drawn.len(), 200);
        let port = drawn.first().unwrap().to_string();
        let anybody_else = File::options().append(true).open(drawn_ports().join(port)).unwrap();
        assert!(anybody_else.try_lock().is_err());
    }
}
