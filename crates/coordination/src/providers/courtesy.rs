//! Room for others, where the lock service does not keep order itself.
//!
//! An instance whose own waiters take a lock turn after turn would keep out the waiters of other instances, whose requests come
//! later than its own, and for ever those who only look now and then: Python peers. So it stands back:
//!
//! * after some turns in a row, for as long as others need to come in after a wake-up. How many: one when others were seen
//!   lately, then more and more when nobody uses the room, up to [`MOST_TURNS`] or as many as take [`LONG`] times the room. Others
//!   who are not woken but look may come and go in it without being seen: where they do, having been seen counts for [`RUN`], and
//!   fencing tokens, where they count the holders of a lock, tell of those who came between two turns of ours;
//! * after a run of turns of [`RUN`] or 20 looks of a polling peer, for a little longer than one look.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scoria_runtime::Deadline;
use tokio::time::Instant;

/// How long a waiter that is woken needs to come in.
const WAKE_UP: Duration = Duration::from_millis(5);

/// The shortest run of turns after which polling peers get room.
const RUN: Duration = Duration::from_secs(2);

/// The most turns in a row before others get room to come in.
const MOST_TURNS: u32 = 1024;

/// Turns that take so many times the room are many, however few they are.
const LONG: u32 = 20;

/// How many names are kept at least before those that are out of use are forgotten.
const NAMES: usize = 256;

/// What this instance owes to others, by name.
#[derive(Debug)]
pub(crate) struct Courtesy {
    /// `None`: the service keeps order.
    room: Option<Duration>,
    /// How long others count that were seen.
    remembered: Duration,
    /// Room for polling peers, and after how long a run.
    peers: Option<(Duration, Duration)>,
    names: Mutex<Names>,
}

/// Runs by name. Those out of use are forgotten when there are more than `most`.
#[derive(Debug)]
struct Names {
    runs: HashMap<String, Run>,
    most: usize,
}

/// Turns in a row.
#[derive(Debug)]
struct Run {
    since: Instant,
    last: Instant,
    turns: u32,
    /// After how many turns we stand back.
    allowed: u32,
    /// Since when they count.
    counted: Instant,
    /// When somebody else was last seen to have it.
    others: Option<Instant>,
    /// Which of all its holders one of us was, where that is known.
    holder: Option<u64>,
}

impl Courtesy {
    /// Towards waiters of other instances, who are woken within `wakes_within`, and Python peers, who look every `peers_poll`, where
    /// there can be any.
    pub(crate) fn new(wakes_within: Duration, peers_poll: Option<Duration>) -> Self {
        let names = Mutex::new(Names { runs: HashMap::new(), most: NAMES });
        let peers = peers_poll.map(|poll| (poll + poll / 4, RUN.max(poll * 20)));
        let remembered = if wakes_within.is_zero() { Duration::ZERO } else { RUN };
        Self { room: Some(wakes_within + WAKE_UP), remembered, peers, names }
    }

    /// Towards nobody: the service keeps order.
    pub(crate) fn none() -> Self {
        Self { room: None, ..Self::new(Duration::ZERO, None) }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of us had it until now.
    pub(crate) fn released(&self, name: &str) {
        if self.room.is_none() {
            return;
        }
        let now = Instant::now();
        let mut names = self.names();
        if let Some(run) = names.runs.get_mut(name) {
            run.turns += 1;
            run.last = now;
            return;
        }
        if names.runs.len() >= names.most {
            names.runs.retain(|_, run| now - run.last < RUN);
            // Not again for the next name: the cost of one look at all is spread over as many new ones.
            names.most = NAMES.max(names.runs.len() * 2);
        }
        names.runs.insert(
            name.to_owned(),
            Run { since: now, last: now, turns: 1, allowed: 1, counted: now, others: None, holder: None },
        );
    }

    /// Somebody else has it.
    pub(crate) fn seen_others(&self, name: &str) {
        if let Some(run) = self.names().runs.get_mut(name) {
            run.see_others();
        }
    }

    /// One of us has it, as the so-manieth of all its holders: others may have come and gone since the last one of us.
    pub(crate) fn granted(&self, name: &str, holder: u64) {
        if let Some(run) = self.names().runs.get_mut(name)
            && run.holder.replace(holder).is_some_and(|last| last + 1 != holder)
        {
            run.see_others();
        }
    }

    /// Before one of us tries: leaves others the room that we owe them, all of it. Whoever came back as soon as one of them has
    /// the lock would go from hand to hand with that one, and a third one, who looks now and then, would find it taken each time.
    /// Whether any wait is asked whenever there is room to be left.
    pub(crate) async fn stand_back(&self, name: &str, deadline: Deadline, others_wait: impl Future<Output = bool>) {
        let Some(until) = self.owed(name) else { return };
        if others_wait.await {
            self.seen_others(name);
        }
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
        let run = names.runs.get_mut(name)?;
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
            (run.turns, run.counted) = (0, now);
        } else if run.turns >= run.allowed || now - run.counted > room * LONG {
            (run.turns, run.counted) = (0, now + room);
            let beside_others = run.beside_others(now, self.remembered);
            run.allowed = if beside_others { 1 } else { (run.allowed * 2).min(MOST_TURNS) };
            return Some(run.last + room);
        }
        None
    }
}

impl Run {
    fn see_others(&mut self) {
        (self.turns, self.allowed, self.others) = (0, 1, Some(Instant::now()));
    }

    /// Whether somebody else was seen so lately.
    fn beside_others(&self, now: Instant, lately: Duration) -> bool {
        self.others.is_some_and(|seen| now - seen < lately)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    /// How long it stands back.
    async fn room(courtesy: &Courtesy, others_wait: impl Future<Output = bool>) -> Duration {
        let began = Instant::now();
        courtesy.stand_back("a", Deadline::NEVER, others_wait).await;
        began.elapsed()
    }

    const LOOKS: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn room_is_left_after_a_turn() {
        let courtesy = Courtesy::new(LOOKS, None);
        let unasked = async { panic!("that would be a request too many") };
        assert_eq!(room(&courtesy, unasked).await, Duration::ZERO, "nothing is owed yet");
        for others_wait in [false, true, false] {
            courtesy.released("a");
            assert_eq!(room(&courtesy, ready(others_wait)).await, LOOKS + WAKE_UP);
            courtesy.seen_others("a");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_alone_stands_back_less_and_less_and_beside_others_after_each_turn() {
        let courtesy = Courtesy::new(LOOKS, None);
        let after = async |turns: u32| {
            let mut owed = Vec::new();
            for _ in 0..turns {
                courtesy.released("a");
                owed.push(room(&courtesy, ready(false)).await > Duration::ZERO);
            }
            owed
        };
        assert_eq!(after(7).await, [true, false, true, false, false, false, true]);
        courtesy.seen_others("a");
        assert_eq!(after(4).await, [true; 4]);
        tokio::time::advance(RUN * 2).await;
        courtesy.released("a");
        assert!(room(&courtesy, ready(false)).await > Duration::ZERO);
        assert_eq!(after(2).await, [false, true], "they were seen long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_found_waiting_counts_as_seen() {
        let courtesy = Courtesy::new(LOOKS, None);
        for _ in 0..10 {
            courtesy.released("a");
            assert_eq!(room(&courtesy, ready(true)).await, LOOKS + WAKE_UP);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_and_went_between_two_turns_of_ours_counts_as_seen() {
        let courtesy = Courtesy::new(LOOKS, None);
        let after = async |holders: &[u64]| {
            let mut owed = Vec::new();
            for holder in holders {
                courtesy.granted("a", *holder);
                courtesy.released("a");
                owed.push(room(&courtesy, ready(false)).await > Duration::ZERO);
            }
            owed
        };
        assert_eq!(after(&[1, 2, 3, 4]).await, [true, false, true, false]);
        assert_eq!(after(&[6, 7, 9]).await, [true; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_long_turns_are_many() {
        let courtesy = Courtesy::new(LOOKS, None);
        let turn = async || {
            tokio::time::advance((LOOKS + WAKE_UP) * LONG * 2).await;
            courtesy.released("a");
            room(&courtesy, ready(false)).await
        };
        for _ in 0..10 {
            assert_eq!(turn().await, LOOKS + WAKE_UP);
        }
    }
}
