//! What every part of the service runs on: the executor, tracked tasks, gates, keyed turns, deadlines, backoff, bounded blocking
//! pools, child processes, logging.
//!
//! What it is not: it knows no volume, no message, no lock service.

mod backoff;
mod blocking;
mod command;
mod deadline;
mod executor;
mod gate;
mod keyed;
pub mod logging;
mod tasks;

pub use backoff::Backoff;
pub use blocking::{BlockingPool, Unresponsive};
pub use command::{Command, CommandError, Executor, Output};
pub use deadline::Deadline;
pub use executor::service_executor;
pub use gate::{Gate, GateClosed, GateGuard};
pub use keyed::{KeyGuard, KeyedTurns};
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;
