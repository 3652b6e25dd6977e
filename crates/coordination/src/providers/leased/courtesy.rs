//! Room for others, where the lock service does not keep order itself.
//!
//! An instance whose own waiters take a lock turn after turn would keep out the waiters of other instances, whose requests come
//! later than its own, and for ever those who only look now and then: Python peers. So it stands back:
//!
//! * after some turns in a row, for as long as others need to come in after a wake-up. How many: one when others were seen
//!   lately, up to [`MOST_TURNS`] when nobody uses the room;
//! * after a run of turns of [`RUN`] or 20 looks of a polling peer, for a little longer than one look.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scoria_runtime::Deadline;
use tokio::time::Instant;

use super::LeaseStore;

/// How long a waiter that is woken needs to come in.
const WAKE_UP: Duration = Duration::from_millis(5);

/// The shortest run of turns after which polling peers get room.
const RUN: Duration = Duration::from_secs(2);

/// The most turns in a row before others get room to come in.
const MOST_TURNS: u32 = 1024;

/// How many names are kept before those that are out of use are forgotten.
const NAMES: usize = 256;

/// What this instance owes to others, by name.
#[derive(Debug)]
pub(super) struct Courtesy {
    /// `None`: the service keeps order.
    room: Option<Duration>,
    /// Room for polling peers, and after how long a run.
    peers: Option<(Duration, Duration)>,
    names: Mutex<HashMap<String, Run>>,
}

/// Turns in a row.
#[derive(Debug)]
struct Run {
    since: Instant,
    last: Instant,
    turns: u32,
    /// After how many turns we stand back.
    allowed: u32,
}

impl Courtesy {
    pub(super) fn towards(store: &dyn LeaseStore) -> Self {
        let room = store.wakes_within() + WAKE_UP;
        let peers = store.peers_poll().map(|poll| (poll + poll / 4, RUN.max(poll * 20)));
        let keeps_order = store.keeps_order();
        Self {
            room: Some(room).filter(|_| !keeps_order),
            peers: peers.filter(|_| !keeps_order),
            names: Mutex::default(),
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Run>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of us had it until now.
    pub(super) fn released(&self, name: &str) {
        if self.room.is_none() {
            return;
        }
        let now = Instant::now();
        let mut names = self.names();
        if names.len() >= NAMES && !names.contains_key(name) {
            names.retain(|_, run| now - run.last < RUN);
        }
        let fresh = || Run { since: now, last: now, turns: 0, allowed: 1 };
        let run = names.entry(name.to_owned()).or_insert_with(fresh);
        run.turns += 1;
        run.last = now;
    }

    /// Somebody else has it.
    pub(super) fn seen_others(&self, name: &str) {
        if let Some(run) = self.names().get_mut(name) {
            (run.turns, run.allowed) = (0, 1);
        }
    }

    /// Before one of us tries: leaves others the room that we owe them.
    pub(super) async fn stand_back(&self, name: &str, deadline: Deadline) {
        let Some(until) = self.owed(name) else { return };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => {}
            () = deadline.wait() => {}
        }
    }

    /// Until when the lock is to be left to others.
    fn owed(&self, name: &str) -> Option<Instant> {
        let room = self.room?;
        let now = Instant::now();
        let mut names = self.names();
        let run = names.get_mut(name)?;
        let idle = now - run.last;
        if let Some((room, longest)) = self.peers {
            if idle > room {
                run.since = now;
            } else if now - run.since > longest {
                run.since = now + room;
                return Some(run.last + room);
            }
        }
        if idle > room {
            run.turns = 0;
        } else if run.turns >= run.allowed {
            run.turns = 0;
            run.allowed = (run.allowed * 2).min(MOST_TURNS);
            return Some(run.last + room);
        }
        None
    }
}
