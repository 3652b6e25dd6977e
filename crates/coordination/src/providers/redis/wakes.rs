//! Our own waiters, by claim, and what the server tells of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, PushInfo, PushKind};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::providers::leased::{Looks, Taken};

/// Waiters that are to be woken.
#[derive(Debug)]
pub(super) struct Wakes {
    waiting: Mutex<HashMap<String, Waiter>>,
    /// A record of ours was taken away, nobody says which.
    pub(super) gone: Notify,
    lock_timeout: Duration,
}

#[derive(Debug, Default)]
struct Waiter {
    wake: watch::Sender<()>,
    looks: Looks,
}

impl Wakes {
    /// Whoever is given a lock has it for `lock_timeout`.
    pub(super) fn new(lock_timeout: Duration) -> Self {
        Self { waiting: Mutex::default(), gone: Notify::new(), lock_timeout }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the claim waits.
    pub(super) fn wait(&self, claim: &str) -> watch::Receiver<()> {
        self.waiting().entry(claim.to_owned()).or_default().wake.subscribe()
    }

    /// The claim is about to look; whether it waits.
    pub(super) fn looks(&self, claim: &str, sent: Instant) -> bool {
        let mut waiting = self.waiting();
        let waiter = waiting.get_mut(claim);
        waiter.map(|waiter| waiter.looks.looks(sent)).is_some()
    }

    /// When it asked then, somebody else had the lock, and this was the highest token.
    pub(super) fn looked(&self, claim: &str, sent: Instant, token: u64) {
        if let Some(waiter) = self.waiting().get_mut(claim) {
            waiter.looks.looked(sent, token);
        }
    }

    /// The lock, if the claim was given it while it waited.
    pub(super) fn yours(&self, claim: &str) -> Option<Taken> {
        self.waiting().get(claim)?.looks.handed_on()
    }

    /// It waits no longer.
    pub(super) fn forget(&self, claim: &str) {
        self.waiting().remove(claim);
    }

    /// Wakes everybody: messages may have been missed.
    pub(super) fn all(&self) {
        for waiter in self.waiting().values() {
            waiter.wake.send_replace(());
        }
    }

    /// A message of the server, as `line.lua` writes it.
    pub(super) fn told(&self, push: &PushInfo) {
        let (PushKind::Message, [_channel, payload]) = (&push.kind, push.data.as_slice()) else { return };
        let Ok(message) = String::from_redis_value(payload.clone()) else { return };
        let words: Vec<_> = message.split(' ').collect();
        match words[..] {
            ["gone"] => self.gone.notify_one(),
            ["look", claim] => self.wake(claim, None),
            ["yours", claim, token] => self.wake(claim, token.parse().ok()),
            _ => tracing::debug!(message, "a message in a channel of the locks that means nothing"),
        }
    }

    fn wake(&self, claim: &str, token: Option<u64>) {
        if let Some(waiter) = self.waiting().get_mut(claim) {
            waiter.looks.told(token, self.lock_timeout);
            waiter.wake.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

    fn message(text: &str) -> PushInfo {
        let data = ["channel", text].map(|text| Value::BulkString(text.into())).to_vec();
        PushInfo { kind: PushKind::Message, data }
    }

    #[test]
    fn a_message_wakes_whom_it_names() {
        let wakes = Wakes::new(LOCK_TIMEOUT);
        let (one, two) = (wakes.wait("one"), wakes.wait("two"));
        wakes.told(&message("look two"));
        assert!(!one.has_changed().unwrap() && two.has_changed().unwrap());
        assert_eq!(wakes.yours("two"), None);
        wakes.all();
        assert!(one.has_changed().unwrap());
        wakes.forget("one");
        assert!(!wakes.looks("one", Instant::now()) && one.has_changed().is_err());
    }

    #[test]
    fn what_it_is_given_is_its_own_unless_that_is_long_over() {
        let wakes = Wakes::new(LOCK_TIMEOUT);
        let (one, began) = (wakes.wait("one"), Instant::now());
        assert!(wakes.looks("one", began));
        wakes.told(&message("yours one 7"));
        assert!(one.has_changed().unwrap());
        assert_eq!(wakes.yours("one"), Some(Taken { token: Some(7), deadline: began + LOCK_TIMEOUT }));
        wakes.looked("one", began, 9);
        wakes.told(&message("yours one 9"));
        assert_eq!(wakes.yours("one"), None);
    }

    #[tokio::test]
    async fn a_record_that_was_taken_away_puts_everything_in_doubt() {
        let wakes = Wakes::new(LOCK_TIMEOUT);
        wakes.told(&message("gone"));
        wakes.gone.notified().await;
    }
}
