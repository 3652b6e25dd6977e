//! The executor that the service runs on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// An executor with one thread for everything that waits: requests, locks, the database, the front door.
///
/// What takes time is done elsewhere: in the kernel (calls on files have pools of their own), in servers and in children; and what
/// must not be late, the beats of the locks, has a thread of its own. A second thread here would be woken for each answer that comes
/// in, find no work and go back to sleep: more system calls than the answer itself takes (docs/adr/0021).
///
/// # Errors
/// The system gives no thread, or no descriptor to wait with.
pub fn service_executor() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}
