//! File calls that may block for good go through a small pool of their own.

/// Every thread of the pool is stuck in an earlier call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} does not respond: {stuck} calls are stuck")]
pub struct Unresponsive {
    /// The pool's name, e.g. the share.
    pub name: String,
    /// How many calls are stuck.
    pub stuck: usize,
}

/// A bounded pool of threads for blocking calls on one share.
#[derive(Debug, Clone)]
pub struct BlockingPool;
