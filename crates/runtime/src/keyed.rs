//! One at a time per key, in order of arrival.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Hands out turns: for each key one holder, the others wait in order. Keys nobody wants are forgotten.
#[derive(Debug, Clone, Default)]
pub struct KeyedTurns(Arc<Mutex<HashMap<String, Weak<Turn<()>>>>>);

/// A turn; passing it on is dropping it.
#[derive(Debug)]
pub struct KeyGuard {
    turns: KeyedTurns,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyedTurns {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for the turn on `key`. Dropping the future gives up the place in the queue.
    pub async fn take(&self, key: &str) -> KeyGuard {
        let turn = {
            let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match keys.get(key).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(Turn::new(()));
                    keys.insert(key.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        let guard = turn.lock_owned().await;
        KeyGuard { turns: self.clone(), key: key.to_owned(), guard: Some(guard) }
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.guard.take();
        let mut keys = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.get(&self.key).is_some_and(|turn| turn.strong_count() == 0) {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn turns_on_one_key_exclude_and_other_keys_do_not_wait() {
        let turns = KeyedTurns::new();
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let second = tokio::time::timeout(Duration::from_millis(20), turns.take("a")).await;
        assert!(second.is_err(), "the second taker of one key must wait");
        drop(first);
        drop(turns.take("a").await);
        assert_eq!(turns.known(), 1, "only the key still held is remembered");
    }
}
