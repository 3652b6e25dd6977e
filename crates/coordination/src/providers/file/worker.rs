//! The one thread that touches the lock directory: a dead file system stops it, not the service.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use super::table::Table;
use crate::Error;

/// How long an answer may take before the directory counts as unavailable. What was asked may still happen; whoever
/// asked undoes it through the same queue.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is said when the thread has ended by a panic.
pub(super) const ENDED: &str = "the thread of the lock files has ended";

type Job = Box<dyn FnOnce(&mut Table) + Send>;

/// Hands work to the thread; it runs in the order of handing in. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    directory: PathBuf,
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    pub(super) fn start(directory: PathBuf, mut table: Table) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("lock-files".to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut table);
                }
            })
            .map_err(|error| Error::Unavailable(format!("no thread for the lock files: {error}")))?;
        Ok(Self { directory, jobs })
    }

    /// Runs a job without waiting for it.
    pub(super) fn submit(&self, job: impl FnOnce(&mut Table) + Send + 'static) {
        // The thread lives as long as this sender, unless it panicked: then everything it held is free already.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Runs a job and waits for its result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Table) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.submit(move |table| drop(answer.send(job(table))));
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
