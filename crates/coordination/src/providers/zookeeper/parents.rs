//! The parent nodes of locks: Python leaves one for every name ever used, we remove ours.
//!
//! kazoo looks whether the parent exists, makes it if not, and then makes its contender; when the parent goes between the two the
//! Python operation fails. A waiter keeps its parent, because that is not empty, but nothing shows that somebody is about to come.
//! So a parent is removed only when one of ours made it, it is empty, and nobody was in it for long
//! (`remove_idle_after`, by default ten minutes). Container nodes would be removed by the servers themselves, but at the next tick of a
//! clock of theirs, perhaps right after somebody left.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use zookeeper_client::{Client, Error as ZkError};

use super::connection::ZooKeeper;
use crate::link::Link;

/// What stands in the parents that we made. Python makes empty ones, and reads none.
pub(super) const MARK: &[u8] = b"scoria";
/// How many are looked at together.
const TOGETHER: usize = 16;

/// The parents that we know of: used lately, or found when a session began.
#[derive(Debug)]
pub(super) struct Parents {
    locks: String,
    idle: Duration,
    /// For each the transaction that changed its children last, as of the last look.
    known: Mutex<HashMap<String, Option<i64>>>,
}

/// What a look at a parent has shown.
enum Look {
    /// It stays as it is.
    Changed(i64),
    /// It is gone or not ours to remove.
    Done,
}

impl Parents {
    pub(super) fn new(locks: String, idle: Duration) -> Self {
        Self { locks, idle, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Option<i64>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the parent of this lock probably exists.
    pub(super) fn are_known(&self, name: &str) -> bool {
        self.known().contains_key(name)
    }

    /// Notes that it exists and is in use.
    pub(super) fn used(&self, name: &str) {
        let mut known = self.known();
        match known.get_mut(name) {
            Some(seen) => *seen = None,
            None => drop(known.insert(name.to_owned(), None)),
        }
    }

    /// Notes that it does not exist.
    pub(super) fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    /// Removes parents, for ever. In a new session everything there is looked at: killed instances leave theirs behind.
    pub(super) async fn keep_tidy(&self, link: &Link<ZooKeeper>) {
        let mut generation = 0;
        loop {
            tokio::time::sleep(self.idle).await;
            let Ok(session) = link.current() else { continue };
            if session.generation != generation && self.find_all(&session.client).await.is_ok() {
                generation = session.generation;
            }
            let ended = session.lease.lost();
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = self.sweep(&session.client) => {}
            }
        }
    }

    async fn find_all(&self, client: &Client) -> Result<(), ZkError> {
        let names = client.list_children(&self.locks).await?;
        let mut known = self.known();
        for name in names {
            known.entry(name).or_default();
        }
        Ok(())
    }

    async fn sweep(&self, client: &Client) {
        let names: Vec<_> = self.known().iter().map(|(name, seen)| (name.clone(), *seen)).collect();
        let looks = stream::iter(names).map(|(name, seen)| async move {
            let look = self.look_at(client, &name, seen).await;
            (name, seen, look)
        });
        let mut looks = looks.buffer_unordered(TOGETHER);
        while let Some((name, before, look)) = looks.next().await {
            let mut known = self.known();
            match look {
                // Whoever has used it since then has set what was seen back.
                Ok(Look::Changed(now)) => {
                    if let Some(seen) = known.get_mut(&name).filter(|seen| **seen == before) {
                        *seen = Some(now);
                    }
                }
                Ok(Look::Done) => drop(known.remove(&name)),
                Err(error) => tracing::debug!(name, %error, "parent of a lock not looked at"),
            }
        }
    }

    async fn look_at(&self, client: &Client, name: &str, seen: Option<i64>) -> Result<Look, ZkError> {
        let path = format!("{}/{name}", self.locks);
        let (data, stat) = match client.get_data(&path).await {
            Err(ZkError::NoNode | ZkError::NoAuth) => return Ok(Look::Done),
            found => found?,
        };
        if data != MARK {
            return Ok(Look::Done);
        }
        if stat.num_children > 0 || seen != Some(stat.pzxid) {
            return Ok(Look::Changed(stat.pzxid));
        }
        match client.delete(&path, None).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(Look::Done),
            Err(ZkError::NotEmpty) => Ok(Look::Changed(stat.pzxid)),
            Err(error) => Err(error),
        }
    }
}
