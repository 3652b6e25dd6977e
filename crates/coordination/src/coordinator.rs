//! The coordinator: sorted sets of locks on one lock service, and the list of who holds what.

use std::sync::Arc;
use std::time::Duration;

use scoria_runtime::{CancellationToken, Tasks};

use crate::registry::Registry;
use crate::{Error, Features, Health, Holder, LockRequest, LockSet, Mode, Options, Order, Provider, Scope, WaitPolicy};
use crate::{name, providers};

/// How long a failed wait may still ask who was in the way.
const ASK_WHO: Duration = Duration::from_secs(1);

/// Takes sets of locks on one lock service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Coordinator {
    provider: Arc<dyn Provider>,
    registry: Arc<Registry>,
    tasks: Tasks,
    closed: CancellationToken,
    warn_held_after: Duration,
}

impl Coordinator {
    /// A coordinator on a lock service.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self {
            registry: Registry::new(provider.kind(), provider.instance()),
            provider,
            tasks: Tasks::new(),
            closed: CancellationToken::new(),
            warn_held_after: Options::default().warn_held_after,
        }
    }

    /// The lock service that `[coordination] backend_url` names.
    ///
    /// # Errors
    /// [`Error::Config`] when the URL or an option of it is wrong or no such service is known, [`Error::Unavailable`] when
    /// it cannot work.
    pub async fn open(backend_url: &str, options: &Options) -> Result<Self, Error> {
        let provider = providers::open(backend_url, options).await?;
        Ok(Self { warn_held_after: options.warn_held_after, ..Self::new(provider) })
    }

    /// What the lock service is and can do, as a line for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        let Features { token, order, shared, .. } = self.features();
        let reach = match self.scope() {
            Scope::Node => "this machine only",
            Scope::Cluster => "the cluster",
        };
        let with = |has: bool, what| format!("{} {what}", if has { "with" } else { "without" });
        let (token, shared) = (with(token, "fencing tokens"), with(shared, "shared mode"));
        let order = match order {
            Order::Own => "waiters of each instance in order",
            Order::All => "waiters of all instances in order",
        };
        format!("lock service {}: {reach}, {shared}, {order}, {token}", self.provider.kind())
    }

    /// How far its locks reach.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.provider.scope()
    }

    /// What the lock service can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.provider.features()
    }

    /// How the connection to the lock service is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.provider.health()
    }

    /// Takes all names of the request in sorted order, or none. Dropping the future gives back what was taken.
    ///
    /// Where the service has no shared mode, shared names are held alone: slower, never less safe
    /// (`cinder/coordination.py: synchronized` knows nothing else).
    ///
    /// # Errors
    /// As [`Provider::acquire`], [`Error::Name`] for a name that cannot be one, [`Error::Lost`] when a lock was lost while
    /// waiting for a later one; what was taken before the error is given back.
    pub async fn acquire(&self, request: LockRequest) -> Result<LockSet, Error> {
        let LockRequest { names, owner, wait } = request;
        let names = names
            .into_iter()
            .map(|(name, mode)| name::complete(&name).map(|complete| (name, complete, mode)))
            .collect::<Result<Vec<_>, _>>()?;
        let owner = Arc::new(owner);
        let shared = self.provider.features().shared;
        let mut set = LockSet::empty();
        for (name, complete, mode) in names {
            let mode = if shared { mode } else { Mode::Exclusive };
            let entry = self.registry.enter(&name, mode, &owner);
            let outcome = tokio::select! {
                biased;
                () = self.closed.cancelled() => Err(Error::Closed),
                lost = set.first_lost() => {
                    Err(Error::Lost { name: lost.to_owned(), reason: format!("while waiting for '{name}'") })
                }
                outcome = self.provider.acquire(&complete, mode, &owner, wait) => outcome,
            };
            match outcome {
                Ok(lock) => {
                    entry.granted(lock.token());
                    set.push(name, lock, entry);
                }
                Err(error) => {
                    drop(entry);
                    if let Err(error) = set.release().await {
                        tracing::warn!(%error, "could not give back a lock after a later one was refused");
                    }
                    return Err(self.name_the_holder(error, wait).await);
                }
            }
        }
        Ok(set.watched(&self.tasks, &self.registry, owner, self.warn_held_after))
    }

    /// Says in a [`Error::Busy`] who was in the way, when that can be found out quickly. Whoever tried only once gets
    /// what this process knows.
    async fn name_the_holder(&self, error: Error, wait: WaitPolicy) -> Error {
        let name = match error {
            Error::Busy { name, by } if by.is_empty() => name,
            other => return other,
        };
        let of = |holders: Vec<Holder>| holders.into_iter().find(|holder| holder.held && holder.name == name);
        let holder = match of(self.registry.holders()) {
            None if wait != WaitPolicy::No => {
                tokio::time::timeout(ASK_WHO, self.holders()).await.ok().and_then(Result::ok).and_then(of)
            }
            known => known,
        };
        let by = holder.map(|holder| holder.describe()).unwrap_or_default();
        Error::Busy { name, by }
    }

    /// Who holds and who waits: ourselves, and others as far as the service tells.
    ///
    /// # Errors
    /// When the lock service cannot be reached.
    pub async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let told = self.provider.holders().await?;
        let mut all = self.registry.holders();
        let ours = all.len();
        for holder in told {
            // Our own list knows more of our own locks than the service does.
            let known = holder.instance == self.provider.instance()
                && all[..ours].iter().any(|own| own.name == holder.name && own.owner == holder.owner);
            if !known {
                all.push(holder);
            }
        }
        all.sort_by(|a, b| (&a.name, !a.held).cmp(&(&b.name, !b.held)));
        Ok(all)
    }

    /// Takes a lock (named without the prefix) away from whoever holds it: for an operator who knows that the holder is gone
    /// or has to be overruled. Logged, because it can do harm. False when nobody held it.
    ///
    /// # Errors
    /// As [`Provider::break_lock`].
    pub async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let broken = self.provider.break_lock(&name::complete(name)?).await?;
        if broken {
            tracing::warn!(lock = name, "lock was broken by an operator");
        }
        Ok(broken)
    }

    /// Gives back what is still held and ends the connection. Close it after the work that needs locks has ended.
    pub async fn close(&self) {
        self.closed.cancel();
        self.provider.close().await;
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
