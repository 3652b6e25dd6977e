//! Locks for which contenders queue up under a session: ZooKeeper, etcd.
//!
//! [`QueuedProvider`] does the waiting, and finds out what happened when an answer did not come; a [`QueueStore`] is one lock
//! service. A lock is held from the listing that shows nobody in the way, or from the removal of the only one that a listing has
//! shown there, for as long as the session is confirmed.

mod held;
mod place;
mod provider;
mod store;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;

pub(crate) use provider::QueuedProvider;
pub(crate) use store::{Contender, Entered, Gone, QueueStore, Session, Ticket};

use crate::Mode;

/// Those before `own` that it cannot be beside. Readers go beside readers, but not past a writer that waits.
fn before<'a>(queue: &'a [Contender], own: &'a Contender) -> impl Iterator<Item = &'a Contender> {
    queue
        .iter()
        .filter(|other| other.order < own.order)
        .filter(|other| own.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
}

/// Whom `own` has to wait for: the nearest one of those before it.
fn in_the_way<'a>(queue: &'a [Contender], own: &'a Contender) -> Option<&'a Contender> {
    before(queue, own).max_by_key(|other| other.order)
}

/// Those of a queue who have the lock.
pub(crate) fn have_it(queue: &[Contender]) -> impl Iterator<Item = &Contender> {
    queue.iter().filter(|contender| in_the_way(queue, contender).is_none())
}
