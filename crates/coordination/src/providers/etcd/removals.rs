//! One stream for the removals of all keys of ours and of others, however many are waited for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::endpoints::{Endpoints, Failure, Watch};
use super::wire::Watched;
use crate::metrics;

/// How many past removals are remembered, for those who ask a little late.
const REMEMBERED: usize = 1024;
/// How long a stream that broke is left alone.
const PAUSE: Duration = Duration::from_millis(100);
/// After how much silence the stream is opened anew: it may have been cut without a word.
const SILENCE: Duration = Duration::from_secs(20);
/// How long etcd may take to say that it has begun.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Knows which keys were removed, and wakes those who wait for one.
///
/// A watch for each waiter would cost etcd one for each, and a request before each wait.
#[derive(Debug)]
pub(super) struct Removals {
    prefix: String,
    state: Mutex<State>,
    /// Something that is ours was removed, or may have been.
    alarm: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Every removal after this revision is remembered or yet to come.
    complete_after: u64,
    /// The last revision seen.
    seen: u64,
    order: VecDeque<(u64, String)>,
    removed: HashSet<String>,
    waiting: HashMap<String, watch::Sender<()>>,
    /// Keys that nobody else is to remove, and when they were made.
    ours: HashMap<String, u64>,
    /// When to look for keys that nobody waits for any more.
    crowded: usize,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was removed.
    Removed,
    /// It is there, and its removal will be noticed.
    There,
    /// It was made before we looked: only a look at etcd tells.
    Unknown,
}

impl Removals {
    /// Of keys that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), state: Mutex::default(), alarm: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when the key is removed, or may have been. The sender stays while there is a receiver.
    pub(super) fn of(&self, key: &str) -> watch::Receiver<()> {
        let mut state = self.state();
        if state.waiting.len() > state.crowded {
            state.waiting.retain(|_, waiting| waiting.receiver_count() > 0);
            state.crowded = (state.waiting.len() * 2).max(64);
        }
        state.waiting.entry(key.to_owned()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// What is known of a key that was made at a revision and is never made again.
    pub(super) fn known(&self, key: &str, made_at: u64) -> Known {
        let state = self.state();
        if state.removed.contains(key) {
            Known::Removed
        } else if made_at > 0 && made_at >= state.complete_after {
            Known::There
        } else {
            Known::Unknown
        }
    }

    /// Minds a key that we have made: its removal is an alarm.
    pub(super) fn mind(&self, key: &str, made_at: u64) {
        self.state().ours.insert(key.to_owned(), made_at);
    }

    /// We are about to remove it ourselves.
    pub(super) fn forget(&self, key: &str) {
        self.state().ours.remove(key);
    }

    /// Resolves when a key of ours was removed by somebody else, or may have been.
    pub(super) async fn alarm(&self) {
        self.alarm.notified().await;
    }

    /// Wakes everybody: something may have been missed.
    pub(super) fn wake_all(&self) {
        self.alarm.notify_one();
        for waiting in self.state().waiting.values() {
            waiting.send_replace(());
        }
    }

    /// Starts to follow, from now on.
    pub(super) async fn begin(&self, endpoints: &Endpoints) -> Result<Watch, Failure> {
        let mut stream = endpoints.watch(&self.prefix, 0).await?;
        let first = tokio::time::timeout(FIRST_WORD, stream.next()).await;
        let first = first.unwrap_or_else(|_| Err("the stream does not begin".to_owned())).map_err(Failure::NotDone)?;
        if !first.created || first.canceled {
            return Err(Failure::NotDone(format!("etcd refuses to be watched: {}", first.cancel_reason)));
        }
        self.start_over(first.header.map_or(0, |header| header.revision));
        Ok(stream)
    }

    fn start_over(&self, revision: u64) {
        let mut state = self.state();
        state.complete_after = revision;
        state.seen = revision;
        state.order.clear();
        state.removed.clear();
        drop(state);
        self.wake_all();
    }

    /// Follows for ever, by way of whichever endpoint is current. A stream that broke, or moved, was on a connection that was lost.
    pub(super) async fn follow(&self, kind: &'static str, endpoints: &Endpoints, mut stream: Watch) {
        let mut changes = endpoints.changes();
        loop {
            let (why, reconnects) = loop {
                tokio::select! {
                    biased;
                    _ = changes.changed() => break ("another endpoint or connection".to_owned(), true),
                    message = tokio::time::timeout(SILENCE, stream.next()) => match message {
                        Err(_) => break ("it was silent for long".to_owned(), false),
                        Ok(Ok(message)) if message.canceled => break (self.canceled(&message), false),
                        Ok(Ok(message)) => self.note(message),
                        Ok(Err(why)) => break (why, true),
                    },
                }
            };
            tracing::debug!(reason = why, "following etcd anew");
            stream = loop {
                let from = self.state().seen;
                // Where nothing was lost it goes on from where it was.
                let opened =
                    if from == 0 { self.begin(endpoints).await } else { endpoints.watch(&self.prefix, from + 1).await };
                match opened {
                    Ok(stream) => break stream,
                    Err(failure) => {
                        tracing::debug!(%failure, "etcd cannot be followed");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            if reconnects {
                metrics::reconnected(kind);
            }
        }
    }

    /// The revision to go on from may have been compacted away: what happened since is not to be had.
    fn canceled(&self, message: &Watched) -> String {
        if message.compact_revision > 0 {
            self.state().seen = 0;
        }
        format!("etcd ended the stream ({}, compacted at {})", message.cancel_reason, message.compact_revision)
    }

    fn note(&self, message: Watched) {
        let mut state = self.state();
        for kv in message.events.into_iter().filter_map(|event| event.kv) {
            let revision = kv.mod_revision;
            state.seen = state.seen.max(revision);
            let Ok(key) = String::from_utf8(kv.key) else { continue };
            if let Some(waiting) = state.waiting.get(&key) {
                waiting.send_replace(());
            }
            if state.ours.get(&key).is_some_and(|made_at| *made_at < revision) {
                self.alarm.notify_one();
            }
            if state.removed.insert(key.clone()) {
                state.order.push_back((revision, key));
            }
            if state.order.len() > REMEMBERED
                && let Some((forgotten, key)) = state.order.pop_front()
            {
                state.removed.remove(&key);
                state.complete_after = state.complete_after.max(forgotten);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::etcd::wire::{Event, KeyValue};

    fn removal(key: &str, revision: u64) -> Watched {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..KeyValue::default() };
        Watched { events: vec![Event { kv: Some(kv) }], ..Watched::default() }
    }

    #[test]
    fn a_key_made_since_we_look_is_known_and_an_older_one_is_not() {
        let removals = Removals::new("/a/");
        removals.start_over(10);
        assert_eq!(removals.known("/a/old", 9), Known::Unknown);
        assert_eq!(removals.known("/a/new", 11), Known::There);
        let mut waiting = removals.of("/a/new");
        removals.note(removal("/a/new", 12));
        assert!(waiting.has_changed().unwrap());
        waiting.mark_unchanged();
        assert_eq!(removals.known("/a/new", 11), Known::Removed);
        removals.wake_all();
        assert!(waiting.has_changed().unwrap());
    }

    #[test]
    fn what_was_forgotten_is_unknown() {
        let removals = Removals::new("/a/");
        removals.start_over(1);
        for revision in 0..=REMEMBERED as u64 {
            removals.note(removal(&format!("/a/{revision}"), revision + 2));
        }
        assert_eq!(removals.known("/a/0", 1), Known::Unknown);
        assert_eq!(removals.known("/a/1", 2), Known::Removed);
        assert_eq!(removals.state().removed.len(), REMEMBERED);
    }

    #[test]
    fn keys_nobody_waits_for_are_dropped() {
        let removals = Removals::new("/a/");
        let kept = removals.of("/a/kept");
        for n in 0..1000 {
            removals.of(&format!("/a/{n}"));
        }
        assert!(removals.state().waiting.len() <= 66);
        removals.note(removal("/a/kept", 5));
        assert!(kept.has_changed().unwrap());
    }
}
