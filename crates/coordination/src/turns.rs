//! A fair queue per name inside one process: alone or beside other readers, in order of arrival.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Mode, WaitPolicy};

/// How many readers fit beside each other; whoever is alone takes all the places.
const PLACES: u32 = 1 << 16;

/// Hands out turns. Names nobody holds or waits for are forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, Weak<Semaphore>>>>);

/// A turn; passing it on is dropping it.
#[derive(Debug)]
pub(crate) struct Turn {
    // Goes before the place, so that the place can see that it was the last.
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// Interest in a name, holding or waiting.
#[derive(Debug)]
struct Place {
    turns: Turns,
    name: String,
    queue: Option<Arc<Semaphore>>,
}

impl Turns {
    fn queues(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, name: &str) -> (Place, Arc<Semaphore>) {
        let mut queues = self.queues();
        let queue = queues.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let queue = Arc::new(Semaphore::new(PLACES as usize));
            queues.insert(name.to_owned(), Arc::downgrade(&queue));
            queue
        });
        (Place { turns: self.clone(), name: name.to_owned(), queue: Some(queue.clone()) }, queue)
    }

    /// Takes a turn if nobody is in the way and nobody waits.
    pub(crate) fn try_take(&self, name: &str, mode: Mode) -> Option<Turn> {
        let (place, queue) = self.place(name);
        let permit = queue.try_acquire_many_owned(places(mode)).ok()?;
        Some(Turn { _permit: permit, _place: place })
    }

    /// Waits for a turn. Dropping the future gives up the place in the queue.
    pub(crate) async fn take(&self, name: &str, mode: Mode) -> Turn {
        let (place, queue) = self.place(name);
        let permit = queue.acquire_many_owned(places(mode)).await.expect("nobody closes the queue");
        Turn { _permit: permit, _place: place }
    }

    /// Takes a turn as soon as the policy allows; `None` when it allows no (more) waiting.
    pub(crate) async fn take_within(&self, name: &str, mode: Mode, wait: WaitPolicy) -> Option<Turn> {
        match (self.try_take(name, mode), wait) {
            (Some(turn), _) => Some(turn),
            (None, WaitPolicy::No) => None,
            (None, WaitPolicy::Until(deadline)) => tokio::select! {
                biased;
                turn = self.take(name, mode) => Some(turn),
                () = deadline.wait() => None,
            },
        }
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.queues().len()
    }
}

fn places(mode: Mode) -> u32 {
    match mode {
        Mode::Shared => 1,
        Mode::Exclusive => PLACES,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.take();
        let mut queues = self.turns.queues();
        if queues.get(&self.name).is_some_and(|queue| queue.strong_count() == 0) {
            queues.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits(turns: &Turns, mode: Mode) -> bool {
        tokio::time::timeout(Duration::from_millis(10), turns.take("a", mode)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn readers_go_beside_each_other_and_nobody_overtakes_a_writer() {
        let turns = Turns::default();
        let reader = turns.take("a", Mode::Shared).await;
        let other = turns.take("a", Mode::Shared).await;
        assert!(waits(&turns, Mode::Exclusive).await);
        let writer = turns.take("a", Mode::Exclusive);
        tokio::pin!(writer);
        assert!(futures_util::poll!(writer.as_mut()).is_pending());
        assert!(waits(&turns, Mode::Shared).await, "a later reader overtook the waiting writer");
        assert!(turns.try_take("a", Mode::Shared).is_none());
        drop((reader, other));
        let writer = writer.await;
        assert!(turns.try_take("a", Mode::Exclusive).is_none());
        drop(writer);
        assert_eq!(turns.known(), 0, "names nobody wants are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_leaves_nothing() {
        let turns = Turns::default();
        let holder = turns.take("a", Mode::Exclusive).await;
        assert!(waits(&turns, Mode::Shared).await);
        drop(holder);
        assert_eq!(turns.known(), 0);
        assert!(turns.try_take("a", Mode::Exclusive).is_some());
    }
}
