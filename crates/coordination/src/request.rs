//! What is asked of the lock service, and what it tells about those who hold.

use std::time::Duration;

use scoria_runtime::Deadline;

/// How a name is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Beside other shared holders: for readers of a source.
    Shared,
    /// Alone.
    Exclusive,
}

impl Mode {
    /// As in lists and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        }
    }
}

/// Who asks, for the list of holders, the log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// Operation, e.g. `delete_volume`.
    pub operation: String,
    /// Request id, `req-…`.
    pub request_id: Option<String>,
    /// The resource the operation is about.
    pub resource: Option<String>,
}

/// Whether to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitPolicy {
    /// Try once.
    No,
    /// Wait until the deadline.
    Until(Deadline),
}

/// A set of names to take together. Names are without the `cinder-` prefix; the same name asked for twice is taken once,
/// in the stronger mode.
#[derive(Debug, Clone)]
pub struct LockRequest {
    pub(crate) names: std::collections::BTreeMap<String, Mode>,
    pub(crate) owner: Owner,
    pub(crate) wait: WaitPolicy,
}

impl LockRequest {
    /// An empty request that waits for ever.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { names: std::collections::BTreeMap::new(), owner, wait: WaitPolicy::Until(Deadline::NEVER) }
    }

    /// Adds a name held alone.
    #[must_use]
    pub fn exclusive(self, name: impl Into<String>) -> Self {
        self.name(name.into(), Mode::Exclusive)
    }

    /// Adds a name held beside other readers.
    #[must_use]
    pub fn shared(self, name: impl Into<String>) -> Self {
        self.name(name.into(), Mode::Shared)
    }

    fn name(mut self, name: String, mode: Mode) -> Self {
        let held = self.names.entry(name).or_insert(mode);
        *held = (*held).max(mode);
        self
    }

    /// Sets whether and how long to wait.
    #[must_use]
    pub fn wait(mut self, wait: WaitPolicy) -> Self {
        self.wait = wait;
        self
    }
}

/// One holder or waiter, as far as the lock service tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name, without the prefix.
    pub name: String,
    /// Mode; a peer's is taken for exclusive.
    pub mode: Mode,
    /// False while it waits.
    pub held: bool,
    /// Which instance; for a peer whatever the lock service knows (member id, process id).
    pub instance: String,
    /// Host, where known.
    pub host: Option<String>,
    /// Who asked; empty for a peer.
    pub owner: Owner,
    /// How long it has held or waited, where known.
    pub since: Option<Duration>,
    /// Fencing token, where the service has one.
    pub token: Option<u64>,
}

impl Holder {
    /// ` by <operation> of <request> in <instance> for <n> s`, for messages.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::from(" by ");
        if !self.owner.operation.is_empty() {
            text.push_str(&self.owner.operation);
            if let Some(request) = &self.owner.request_id {
                text.push_str(" of ");
                text.push_str(request);
            }
            text.push_str(" in ");
        }
        text.push_str(&self.instance);
        if let Some(since) = self.since {
            text.push_str(&format!(" for {:.1} s", since.as_secs_f64()));
        }
        text
    }
}
