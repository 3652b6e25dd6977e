//! A gate that work enters and that can be closed: the drain primitive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Deadline;

/// The gate is closed: the process is draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shutting down")]
pub struct GateClosed;

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    inside: BTreeMap<u64, (String, Instant)>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    left: Notify,
}

/// Whoever is inside keeps the gate from being fully closed, and is known by name.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Shared>);

/// A place inside the gate; leaving is dropping it.
#[derive(Debug)]
pub struct GateGuard {
    gate: Gate,
    id: u64,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes in under a name.
    ///
    /// # Errors
    /// [`GateClosed`] once closing has begun.
    pub fn enter(&self, name: impl Into<String>) -> Result<GateGuard, GateClosed> {
        let mut state = self.state();
        if state.closed {
            return Err(GateClosed);
        }
        state.next += 1;
        let id = state.next;
        state.inside.insert(id, (name.into(), Instant::now()));
        Ok(GateGuard { gate: self.clone(), id })
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.0.left.notify_waiters();
    }

    /// Whether closing has begun.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// How many are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.state().inside.len()
    }

    /// Who is inside, longest first, with the time they have been there.
    #[must_use]
    pub fn names(&self) -> Vec<(String, std::time::Duration)> {
        self.state().inside.values().map(|(name, since)| (name.clone(), since.elapsed())).collect()
    }

    /// Waits until everybody has left.
    ///
    /// # Errors
    /// The names of those still inside when `deadline` passes.
    pub async fn emptied(&self, deadline: Deadline) -> Result<(), Vec<String>> {
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.inside() == 0 {
                return Ok(());
            }
            tokio::select! {
                () = left => {}
                () = deadline.wait() => return Err(self.names().into_iter().map(|(name, _)| name).collect()),
            }
        }
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        self.gate.state().inside.remove(&self.id);
        self.gate.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_closing_gate_waits_for_those_inside_and_names_them() {
        let gate = Gate::new();
        let guard = gate.enter("delete_volume 42").unwrap();
        gate.close();
        assert_eq!(gate.enter("late").unwrap_err(), GateClosed);
        let stuck = gate.emptied(Deadline::after(Duration::from_secs(1))).await.unwrap_err();
        assert_eq!(stuck, ["delete_volume 42"]);
        drop(guard);
        gate.emptied(Deadline::NEVER).await.unwrap();
    }
}
