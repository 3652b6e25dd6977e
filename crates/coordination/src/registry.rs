//! What this process itself holds and waits for: the list for operators, the metrics, the warnings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::{Error, Holder, Mode, Owner, metrics as names};

/// Our own holders and waiters.
#[derive(Debug)]
pub(crate) struct Registry {
    backend: &'static str,
    instance: String,
    host: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    mode: Mode,
    owner: Arc<Owner>,
    since: Instant,
    held: bool,
    lost: bool,
    token: Option<u64>,
}

/// A line of the list, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    pub(crate) fn new(backend: &'static str, instance: &str) -> Arc<Self> {
        Arc::new(Self {
            backend,
            instance: instance.to_owned(),
            host: nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody begins to wait.
    pub(crate) fn enter(self: &Arc<Self>, name: &str, mode: Mode, owner: &Arc<Owner>) -> Registered {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let entry = Entry {
            name: name.to_owned(),
            mode,
            owner: owner.clone(),
            since: Instant::now(),
            held: false,
            lost: false,
            token: None,
        };
        state.entries.insert(id, entry);
        Registered { registry: self.clone(), id }
    }

    /// Notes that a lock was lost: counted and logged the first time only.
    pub(crate) fn lost(&self, id: u64, why: Option<&Error>) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.held && !entry.lost) else { return };
        entry.lost = true;
        ::metrics::counter!(names::LOST_TOTAL, &names::labels(self.backend, entry.mode)).increment(1);
        tracing::error!(
            lock = entry.name,
            operation = entry.owner.operation,
            request_id = entry.owner.request_id,
            resource = entry.owner.resource,
            held_seconds = entry.since.elapsed().as_secs_f64(),
            reason = why.map(tracing::field::display),
            "lock lost while it was held"
        );
    }

    /// Everything in the list.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let state = self.state();
        state.entries.values().map(|entry| self.holder(entry)).collect()
    }

    fn holder(&self, entry: &Entry) -> Holder {
        Holder {
            name: entry.name.clone(),
            mode: entry.mode,
            held: entry.held,
            instance: self.instance.clone(),
            host: self.host.clone(),
            owner: (*entry.owner).clone(),
            since: Some(entry.since.elapsed()),
            token: entry.token,
        }
    }
}

impl Registered {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Notes that the wait is over and the lock is held.
    pub(crate) fn granted(&self, token: Option<u64>) {
        let mut state = self.registry.state();
        let Some(entry) = state.entries.get_mut(&self.id) else { return };
        let labels = names::labels(self.registry.backend, entry.mode);
        ::metrics::histogram!(names::WAIT_SECONDS, &labels).record(entry.since.elapsed());
        ::metrics::gauge!(names::HELD, &labels).increment(1);
        entry.held = true;
        entry.token = token;
        entry.since = Instant::now();
    }

    /// Notes that the lock was lost.
    pub(crate) fn lost(&self, why: &Error) {
        self.registry.lost(self.id, Some(why));
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(entry) = self.registry.state().entries.remove(&self.id) else { return };
        if entry.held {
            let labels = names::labels(self.registry.backend, entry.mode);
            ::metrics::histogram!(names::HELD_SECONDS, &labels).record(entry.since.elapsed());
            ::metrics::gauge!(names::HELD, &labels).decrement(1);
        }
    }
}
