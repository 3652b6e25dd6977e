//! File calls that may block for good go through a small pool of their own.
//!
//! A dead NFS server blocks `stat` in the kernel until it comes back; nothing in the process can end such a call. So each
//! share gets a few threads: a call that is not back in time is given up (its thread stays lost until the kernel lets it
//! go), and once every thread is lost new calls fail at once instead of piling up.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::Deadline;

/// How long one call may take unless the pool says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A call did not come back in time, or every thread of the pool is stuck in an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} does not respond: {stuck} calls are stuck")]
pub struct Unresponsive {
    /// The pool's name, e.g. the share.
    pub name: String,
    /// How many calls are stuck.
    pub stuck: usize,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// When each call that runs now began.
    running: BTreeMap<u64, Instant>,
    next: u64,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Shared {
    name: String,
    limit: usize,
    timeout: Duration,
    state: Mutex<State>,
    wake: Condvar,
}

/// Ends the threads when the last handle of the pool goes.
struct Owner(Arc<Shared>);

/// A bounded pool of threads for blocking calls on one share.
#[derive(Clone)]
pub struct BlockingPool(Arc<Owner>);

impl std::fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockingPool").field("name", &self.shared().name).finish_non_exhaustive()
    }
}

impl BlockingPool {
    /// A pool of at most `threads` threads (at least one), started as they are needed; each call may take 30 s.
    #[must_use]
    pub fn new(name: impl Into<String>, threads: usize) -> Self {
        Self::with_timeout(name, threads, CALL_TIMEOUT)
    }

    /// A pool whose calls may each take `timeout`, waiting for a free thread included.
    #[must_use]
    pub fn with_timeout(name: impl Into<String>, threads: usize, timeout: Duration) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Owner(Arc::new(Shared { name: name.into(), limit: threads.max(1), timeout, state, wake }))))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Runs `call` on a thread of the pool, within the pool's time for one call.
    ///
    /// # Errors
    /// [`Unresponsive`], see [`BlockingPool::run_until`].
    pub async fn run<T, F>(&self, call: F) -> Result<T, Unresponsive>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run_until(Deadline::after(self.shared().timeout), call).await
    }

    /// Runs `call` on a thread of the pool. A call that has begun runs to its end even when nobody waits any more, so it
    /// must own whatever keeps its late effect harmless (a lock's descriptor); one that has not begun is forgotten.
    ///
    /// # Errors
    /// [`Unresponsive`] at once when every thread is stuck, or when `deadline` passes first.
    pub async fn run_until<T, F>(&self, deadline: Deadline, call: F) -> Result<T, Unresponsive>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let shared = self.shared();
        let answer = {
            let mut state = shared.state();
            let stuck = shared.stuck(&state);
            if stuck >= shared.limit {
                return Err(Unresponsive { name: shared.name.clone(), stuck });
            }
            let (sender, receiver) = oneshot::channel();
            state.queue.push_back(Box::new(move || {
                if !sender.is_closed() {
                    // Nobody listening any more is fine: the caller gave up.
                    drop(sender.send(catch_unwind(AssertUnwindSafe(call))));
                }
            }));
            Shared::start_thread(shared, &mut state);
            shared.wake.notify_one();
            receiver
        };
        tokio::select! {
            answer = answer => match answer {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(panic)) => resume_unwind(panic as Box<dyn Any + Send>),
                Err(_) => Err(shared.unresponsive()),
            },
            () = deadline.wait() => Err(shared.unresponsive()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self, state: &State) -> usize {
        state.running.values().filter(|since| since.elapsed() >= self.timeout).count()
    }

    fn unresponsive(&self) -> Unresponsive {
        let state = self.state();
        Unresponsive { name: self.name.clone(), stuck: self.stuck(&state).max(1) }
    }

    fn start_thread(shared: &Arc<Self>, state: &mut State) {
        if state.threads >= shared.limit || state.idle >= state.queue.len() {
            return;
        }
        let worker = Arc::clone(shared);
        let name = format!("share-{}", state.threads);
        // Out of threads: the call waits in the queue for one of those there are, or for its deadline.
        if std::thread::Builder::new().name(name).spawn(move || worker.work()).is_ok() {
            state.threads += 1;
        }
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.next += 1;
                let id = state.next;
                state.running.insert(id, Instant::now());
                drop(state);
                job();
                state = self.state();
                state.running.remove(&id);
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn more_calls_than_threads_wait_their_turn() {
        let pool = BlockingPool::new("share", 2);
        let highest = Arc::new(AtomicUsize::new(0));
        let now = Arc::new(AtomicUsize::new(0));
        let calls = (0..8).map(|n| {
            let (pool, highest, now) = (pool.clone(), highest.clone(), now.clone());
            async move {
                let call = move || {
                    highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                    n
                };
                pool.run(call).await.unwrap()
            }
        });
        assert_eq!(futures_util::future::join_all(calls).await, (0..8).collect::<Vec<_>>());
        assert!(highest.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn when_every_thread_is_stuck_calls_fail_at_once_and_work_again_afterwards() {
        let pool = BlockingPool::with_timeout("dead:/share", 2, Duration::from_millis(50));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let stuck = |held: Arc<Mutex<mpsc::Receiver<()>>>| move || held.lock().unwrap().recv().is_ok();
        let (a, b) = tokio::join!(pool.run(stuck(held.clone())), pool.run(stuck(held.clone())));
        assert!(a.is_err() && b.is_err());
        let error = pool.run(|| ()).now_or_never().expect("must not wait").unwrap_err();
        assert_eq!(error.to_string(), "dead:/share does not respond: 2 calls are stuck");
        drop(release);
        while pool.shared().stuck(&pool.shared().state()) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pool.run_until(Deadline::NEVER, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_call_given_up_before_it_began_never_runs() {
        let pool = BlockingPool::with_timeout("share", 1, Duration::from_millis(30));
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = ran.clone();
        let (first, second) = tokio::join!(
            pool.run(|| std::thread::sleep(Duration::from_millis(80))),
            pool.run(move || counter.fetch_add(1, Ordering::SeqCst))
        );
        assert!(first.is_err() && second.is_err());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(pool.run_until(Deadline::NEVER, || 1).await.unwrap(), 1);
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    #[should_panic(expected = "the call's own panic")]
    async fn a_panic_comes_back_to_the_caller() {
        let pool = BlockingPool::new("share", 1);
        drop(pool.run(|| panic!("the call's own panic")).await);
    }
}
