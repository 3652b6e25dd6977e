//! Our own waiters, by claim: whom a message of the server wakes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{FromRedisValue, PushInfo, PushKind};
use tokio::sync::watch;

/// Waiters that are to be woken.
#[derive(Debug, Default)]
pub(super) struct Wakes(Mutex<HashMap<String, watch::Sender<()>>>);

impl Wakes {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the claim waits.
    pub(super) fn wait(&self, claim: &str) -> watch::Receiver<()> {
        self.waiting().entry(claim.to_owned()).or_default().subscribe()
    }

    /// Whether it waits.
    pub(super) fn waits(&self, claim: &str) -> bool {
        self.waiting().contains_key(claim)
    }

    /// It waits no longer.
    pub(super) fn forget(&self, claim: &str) {
        self.waiting().remove(claim);
    }

    /// Wakes everybody: messages may have been missed.
    pub(super) fn all(&self) {
        for waiter in self.waiting().values() {
            waiter.send_replace(());
        }
    }

    /// A message of the server: its payload is the claim whose turn it is.
    pub(super) fn told(&self, push: &PushInfo) {
        let (PushKind::Message, [_channel, payload]) = (&push.kind, push.data.as_slice()) else { return };
        let Ok(claim) = String::from_redis_value(payload.clone()) else { return };
        if let Some(waiter) = self.waiting().get(&claim) {
            waiter.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn a_message_wakes_whom_it_names() {
        let wakes = Wakes::default();
        let (one, two) = (wakes.wait("one"), wakes.wait("two"));
        let data = ["channel", "two"].map(|text| Value::BulkString(text.into())).to_vec();
        wakes.told(&PushInfo { kind: PushKind::Message, data });
        assert!(!one.has_changed().unwrap() && two.has_changed().unwrap());
        wakes.all();
        assert!(one.has_changed().unwrap());
        wakes.forget("one");
        assert!(!wakes.waits("one") && one.has_changed().is_err());
    }
}
