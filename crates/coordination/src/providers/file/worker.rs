//! Where the lock directory is touched: on a thread of its own, so that a dead file system stops that thread, not the
//! service.
//!
//! On a local file system, whose calls take a microsecond and do not hang on a server, a job runs at once where it was
//! asked for, if nothing else is under way: two changes of thread would cost several times the work itself. Should a
//! local disk hang all the same, it takes one caller with it; all others find the table taken and use the thread.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::lock_file;
use super::table::Table;
use crate::{Error, Mode};

/// How long an answer may take before the directory counts as unavailable. What was asked may still happen; whoever
/// asked undoes it through the same queue.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is said when the thread has ended by a panic.
pub(super) const ENDED: &str = "the thread of the lock files has ended";

type Job = Box<dyn FnOnce(&mut Table) + Send>;

/// Runs jobs one at a time. Who hands in two, one after the other, has them run in that order. The thread ends when this
/// is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    directory: PathBuf,
    table: Arc<Mutex<Table>>,
    jobs: mpsc::Sender<Job>,
    /// Jobs handed to the thread and not yet done.
    queued: Arc<AtomicUsize>,
    local: AtomicBool,
}

impl Worker {
    pub(super) fn start(directory: PathBuf, table: Table) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let table = Arc::new(Mutex::new(table));
        let queued = Arc::new(AtomicUsize::new(0));
        let (threads_table, threads_queued) = (table.clone(), queued.clone());
        start_thread("lock-files", move || {
            for job in queue {
                // A job that panicked has left a table that nobody can trust.
                let Ok(mut table) = threads_table.lock() else { return };
                job(&mut table);
                drop(table);
                threads_queued.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { directory, table, jobs, queued, local: AtomicBool::new(false) })
    }

    /// From now on the directory counts as local.
    pub(super) fn set_local(&self) {
        self.local.store(true, Ordering::Relaxed);
    }

    /// The table, if a job may run at once: it must not overtake one that is queued.
    fn at_once(&self) -> Option<MutexGuard<'_, Table>> {
        let may = self.local.load(Ordering::Relaxed) && self.queued.load(Ordering::Acquire) == 0;
        may.then(|| self.table.try_lock().ok()).flatten()
    }

    fn enqueue(&self, job: impl FnOnce(&mut Table) + Send + 'static) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        // The thread lives as long as this sender, unless a job panicked: then everybody has been told that all is lost.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Opens a lock file. Where that can hang it has a thread of its own: an NFS server may first have to take back what it has
    /// granted to a dead host, and meanwhile everything that is held has to be looked at.
    pub(super) fn open(&self, path: PathBuf, mode: Mode) -> Result<oneshot::Receiver<io::Result<File>>, Error> {
        let (answer, opened) = oneshot::channel();
        let open = move || drop(answer.send(lock_file::open(&path, mode)));
        match self.at_once() {
            Some(_table) => open(),
            None => start_thread("lock-open", open)?,
        }
        Ok(opened)
    }

    /// Runs a job without waiting for it.
    pub(super) fn submit(&self, job: impl FnOnce(&mut Table) + Send + 'static) {
        match self.at_once() {
            Some(mut table) => job(&mut table),
            None => self.enqueue(job),
        }
    }

    /// Runs a short job and waits for its result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Table) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(mut table) = self.at_once() {
            return Ok(job(&mut table));
        }
        self.run_aside(job).await
    }

    /// Runs a job that may take a while, on the thread, and waits for its result.
    pub(super) async fn run_aside<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Table) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(move |table| drop(answer.send(job(table))));
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Error::Unavailable(ENDED.to_owned())),
            Err(_) => Err(Error::Unavailable(self.silent(ANSWER_WITHIN))),
        }
    }

    /// What is said of a directory that does not answer.
    pub(super) fn silent(&self, since: Duration) -> String {
        format!("lock directory '{}' has not answered for {} s", self.directory.display(), since.as_secs())
    }
}

/// Nobody waits for its end.
pub(super) fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Error::Unavailable(format!("thread '{name}' of the lock files: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        let directory = PathBuf::from("/nowhere");
        Worker::start(directory.clone(), Table::new(directory, String::new(), false)).unwrap()
    }

    #[tokio::test]
    async fn a_job_never_overtakes_one_that_was_handed_in_before() {
        let worker = worker();
        worker.set_local();
        let order = Arc::new(Mutex::new(Vec::new()));
        for round in 0..200 {
            let add = |what: u8| {
                let order = order.clone();
                move |_: &mut Table| order.lock().unwrap().push(what)
            };
            if round % 2 == 0 {
                worker.enqueue(add(1));
            } else {
                worker.submit(add(1));
            }
            worker.submit(add(2));
            worker.run(add(3)).await.unwrap();
            assert_eq!(std::mem::take(&mut *order.lock().unwrap()), [1, 2, 3]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_does_not_answer_is_unavailable_and_nobody_blocks() {
        let worker = worker();
        worker.set_local();
        let (go_on, stuck) = mpsc::channel::<()>();
        worker.enqueue(move |_| stuck.recv().unwrap_or_default());
        let error = worker.run(|_| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "lock service unavailable: lock directory '/nowhere' has not answered for 10 s");
        drop(go_on);
    }
}
