//! Noticing messages that come twice.
//!
//! A broker hands a message out again when it cannot know whether it was done; a client that did not see its confirm
//! publishes it again. Both carry the same `_unique_id`. The first must be done again unless it is still being done, the
//! second must not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scoria_model::MessageId;
use tokio::time::Instant;

/// How many finished messages are remembered.
const LIMIT: usize = 4096;
/// How long they are remembered. A publisher that did not see its confirm tries again much sooner.
const MEMORY: Duration = Duration::from_secs(600);

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Never seen, or given up before: do it. It counts as in progress from now on.
    Fresh,
    /// It is being done in this moment.
    InProgress,
    /// It was done: the message has nothing more to tell.
    Done,
}

/// The last 4096 messages finished within ten minutes, and those in progress.
#[derive(Debug, Default)]
pub struct Duplicates {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` while in progress; those are few, as the prefetch bounds them, and are never forgotten.
    known: HashMap<MessageId, Option<Instant>>,
    /// Finished ones, oldest first.
    done: VecDeque<MessageId>,
}

impl Duplicates {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to do the message with this id. Whoever hears [`Begin::Fresh`] owes a [`Duplicates::finish`] or a
    /// [`Duplicates::abandon`].
    pub fn begin(&self, id: &MessageId) -> Begin {
        let mut state = self.state();
        state.forget_old();
        match state.known.get(id) {
            Some(Some(_)) => Begin::Done,
            Some(None) => Begin::InProgress,
            None => {
                state.known.insert(id.clone(), None);
                Begin::Fresh
            }
        }
    }

    /// It was done, for good or ill, and its outcome is durable.
    pub fn finish(&self, id: &MessageId) {
        let mut state = self.state();
        if let Some(at) = state.known.get_mut(id).filter(|at| at.is_none()) {
            *at = Some(Instant::now());
            state.done.push_back(id.clone());
        }
        if state.done.len() > LIMIT {
            state.forget_oldest();
        }
    }

    /// It was not done: when it comes again it is fresh.
    pub fn abandon(&self, id: &MessageId) {
        let mut state = self.state();
        if state.known.get(id) == Some(&None) {
            state.known.remove(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.done.pop_front() {
            self.known.remove(&oldest);
        }
    }

    fn forget_old(&mut self) {
        let is_old = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() >= MEMORY);
        while self.done.front().and_then(|id| self.known.get(id)).is_some_and(is_old) {
            self.forget_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_redelivery_of_unfinished_work_is_no_duplicate() {
        let (duplicates, id) = (Duplicates::new(), MessageId::random_hex());
        assert_eq!(duplicates.begin(&id), Begin::Fresh);
        assert_eq!(duplicates.begin(&id), Begin::InProgress);
        duplicates.abandon(&id);
        assert_eq!(duplicates.begin(&id), Begin::Fresh);
        duplicates.finish(&id);
        assert_eq!(duplicates.begin(&id), Begin::Done);
        // What is done cannot be undone by a late abandon.
        duplicates.abandon(&id);
        assert_eq!(duplicates.begin(&id), Begin::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn finished_messages_are_forgotten_in_time_those_in_progress_never() {
        let duplicates = Duplicates::new();
        let (done, busy) = (MessageId::random_hex(), MessageId::random_hex());
        duplicates.begin(&done);
        duplicates.begin(&busy);
        duplicates.finish(&done);
        tokio::time::advance(MEMORY).await;
        assert_eq!(duplicates.begin(&done), Begin::Fresh);
        assert_eq!(duplicates.begin(&busy), Begin::InProgress);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let duplicates = Duplicates::new();
        let ids: Vec<MessageId> = (0..=LIMIT).map(|_| MessageId::random_hex()).collect();
        for id in &ids {
            duplicates.begin(id);
            duplicates.finish(id);
            duplicates.finish(id);
        }
        assert_eq!(duplicates.state().known.len(), LIMIT);
        assert_eq!(duplicates.begin(&ids[1]), Begin::Done);
        assert_eq!(duplicates.begin(&ids[0]), Begin::Fresh);
    }
}
