//! `file://directory`: the kernel's record locks on files of one directory, as tooz' file driver takes them.
//!
//! Contract: `tooz/drivers/file.py: FileDriver`, `fasteners/process_lock.py: InterProcessLock`.

use std::fs::File;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::CancellationToken;

use crate::name::bare;
use crate::providers::courtesy::Courtesy;
use crate::turns::{Turn, Turns};
use crate::url::BackendUrl;
use crate::{
    Error, Features, Health, HeldLock, Holder, Listing, Mode, Options, Order, Owner, Provider, Scope, WaitPolicy,
};

use table::{Table, Tried, Wanted};
use wake::Wakes;
use worker::{ANSWER_WITHIN, Worker};

mod lock_file;
mod mount;
mod peers;
mod register;
mod table;
mod wake;
mod watch;
mod worker;

/// Between two tries for a lock that another process holds: the first pause, what it grows by, and the longest, as in
/// `fasteners/process_lock.py: InterProcessLock.acquire`.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How often one try starts again because the file was replaced while it was being locked; then it counts as busy.
const REPLACED: usize = 64;
/// How long whoever is told that a lock was given back leaves it to those of other processes who have waited longer.
const HEAD_START: Duration = Duration::from_millis(2);

/// Record locks on the files of a directory.
///
/// A lock is the exclusive record lock on the whole of `<directory>/cinder-<name>`, an empty file. Python takes it with
/// `lockf`; we take it as an open-file-description lock, which excludes `lockf` both ways, excludes a second taker in our
/// own process too, and outlives other descriptors of the same file being closed. Shared mode is the kernel's read lock:
/// readers of ours go beside each other, and Python, which knows only the exclusive lock, stays out.
///
/// **Removal of lock files.** A file may be removed only by its exclusive holder, and only if everybody who waits for it
/// looks, once the lock is granted, whether the path still leads to the file that was locked. We look; Python does not:
/// a Python process that has the file open would go on with the lock of a file nobody else can find. Whether it has the
/// file open cannot be known: it polls, so it is in no list of waiters, and a file lease does not see an opener between
/// looking up the path and opening. So lock files are left where they are, as tooz leaves them, unless
/// [`crate::Options::exclusive_directory`] says that no Python process takes locks here; then they go with the release, and those
/// of killed holders at the next start.
///
/// Its reach is one machine, or the cluster when the directory is on a network file system whose locks the server keeps.
/// Within an instance waiters are served in order. What other processes give back the kernel tells on a local file system, while
/// on others it is looked for, as Python does everywhere; both are left room to come in.
#[derive(Debug)]
pub struct FileProvider {
    shared: Arc<Shared>,
    instance: String,
    directory: PathBuf,
    scope: Scope,
    turns: Turns,
    /// Who tells waiters that a lock file was closed, where there is somebody.
    wakes: Option<Wakes>,
    closed: CancellationToken,
    next: AtomicU64,
}

/// What locks and the watcher need of the provider.
#[derive(Debug)]
struct Shared {
    worker: Worker,
    /// Why the directory cannot be used, when it cannot.
    down: Mutex<Option<String>>,
    /// Parent of the loss tokens of everything held.
    all: Mutex<CancellationToken>,
    courtesy: Courtesy,
}

impl FileProvider {
    /// Opens the directory that a `file://` URL names; it is created if need be.
    pub(super) async fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Self, Error> {
        if !url.authority.is_empty() {
            tracing::warn!(
                "[coordination] backend_url: '{}' before the path is ignored, as tooz does; the directory is '{}'. For an \
                 absolute path write three slashes",
                url.authority,
                url.path
            );
        }
        if !url.path.starts_with('/') {
            let remedy = "file:// needs an absolute directory, for example file:///var/lib/cinder";
            return Err(Error::Config(format!("'{}': {remedy}", url.path)));
        }
        // Of tooz' driver, for groups.
        url.warn_of_unknown(&["timeout", "executor"]);
        if let Some(timeout) = url.option("timeout").filter(|timeout| timeout.parse::<u32>().is_err()) {
            return Err(Error::Config(format!("timeout={timeout} is no whole number of seconds")));
        }
        Self::in_directory(Path::new(url.path), options).await
    }

    /// Locks in a directory; it is created if need be.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory cannot be made, read or locked in, or does not answer.
    pub async fn in_directory(directory: &Path, options: &Options) -> Result<Self, Error> {
        Self::build(directory, options, true).await
    }

    /// `at_once`: jobs on a local file system may run where they are asked for.
    async fn build(directory: &Path, options: &Options, at_once: bool) -> Result<Self, Error> {
        let directory: PathBuf = directory.components().collect();
        let table = Table::new(directory.clone(), options.instance.clone(), options.exclusive_directory);
        let worker = Worker::start(directory.clone(), table)?;
        let file_system = worker.run_aside(Table::prepare).await??;
        if file_system.local && at_once {
            worker.set_local();
        }
        let scope = file_system.scope;
        let (wakes, wakes_within) =
            if file_system.local { (Some(Wakes::default()), Duration::ZERO) } else { (None, LONGEST_PAUSE) };
        let peers_poll = Some(LONGEST_PAUSE).filter(|_| !options.exclusive_directory);
        let courtesy = Courtesy::new(wakes_within, peers_poll);
        let shared = Arc::new(Shared { worker, down: Mutex::default(), all: Mutex::default(), courtesy });
        watch::start(&shared, scope, options.heartbeat)?;
        Ok(Self {
            shared,
            instance: options.instance.clone(),
            directory,
            scope,
            turns: Turns::default(),
            wakes,
            closed: CancellationToken::new(),
            next: AtomicU64::new(0),
        })
    }
}

impl FileProvider {
    /// Tries once. Returns what is cancelled when the lock is lost, or nothing when somebody is in the way.
    async fn try_once(&self, wanted: &Arc<Wanted>, wait: WaitPolicy) -> Result<Option<CancellationToken>, Error> {
        let mut opened = None;
        for _ in 0..REPLACED {
            // What is lost while we wait is none of ours.
            let lost = self.shared.all().child_token();
            let (tried, told) = (wanted.clone(), lost.clone());
            match self.shared.worker.run(move |table| table.try_lock(&tried, opened, told)).await?? {
                Tried::Held => return Ok(Some(lost)),
                Tried::Busy => return Ok(None),
                Tried::NotOpen => opened = Some(self.open_file(wanted, wait).await?),
            }
        }
        Ok(None)
    }

    /// Opens the lock file. Whoever may wait for the lock waits for that, too, as long as the directory answers otherwise.
    async fn open_file(&self, wanted: &Wanted, wait: WaitPolicy) -> Result<File, Error> {
        let mut opening = self.shared.worker.open(wanted.path.clone(), wanted.mode)?;
        loop {
            let answer = tokio::select! {
                answer = tokio::time::timeout(ANSWER_WITHIN, &mut opening) => answer,
                () = self.closed.cancelled() => return Err(Error::Closed),
            };
            let may_wait = matches!(wait, WaitPolicy::Until(deadline) if !deadline.has_passed());
            match answer {
                Ok(Ok(opened)) => return opened.map_err(|error| self.cannot_open(&wanted.name, &error.to_string())),
                Ok(Err(_)) => return Err(self.cannot_open(&wanted.name, worker::ENDED)),
                Err(_) if may_wait && self.health() == Health::Up => {}
                Err(_) => return Err(self.cannot_open(&wanted.name, "no answer; a host that is dead may have it open")),
            }
        }
    }

    fn cannot_open(&self, name: &str, reason: &str) -> Error {
        Error::Unavailable(format!(
            "lock directory '{}': '{name}' cannot be opened: {reason}",
            self.directory.display()
        ))
    }

    /// Whether waiters of other processes of ours are on the list. On a server that would take too long to find out.
    async fn others_wait(&self, name: &str) -> bool {
        let name = name.to_owned();
        self.wakes.is_some() && self.shared.worker.run(move |table| table.others_wait(&name)).await.unwrap_or(false)
    }
}

impl Shared {
    fn all(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who holds a lock that it can no longer be relied upon.
    fn lose_all(&self) {
        std::mem::take(&mut *self.all()).cancel();
    }

    fn set_down(&self, reason: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

#[async_trait]
impl Provider for FileProvider {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn features(&self) -> Features {
        Features { token: false, order: Order::Own, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        if self.closed.is_cancelled() {
            return Health::Down("closed".to_owned());
        }
        let down = self.shared.down.lock().unwrap_or_else(PoisonError::into_inner).clone();
        down.map_or(Health::Up, Health::Down)
    }

    async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        owner: &Owner,
        wait: WaitPolicy,
    ) -> Result<Box<dyn HeldLock>, Error> {
        let busy = || Error::Busy { name: bare(name).to_owned(), by: String::new() };
        let turn = self.turns.take_within(name, mode, wait).await.ok_or_else(busy)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let claim = Claim { shared: self.shared.clone(), id, given_back: false };
        if let WaitPolicy::Until(deadline) = wait {
            self.shared.courtesy.stand_back(name, deadline, self.others_wait(name)).await;
        }
        let (path, owner) = (self.directory.join(name), owner.clone());
        let wanted = Arc::new(Wanted { id, name: name.to_owned(), path, mode, owner });
        let mut pause = PAUSE;
        let mut wake = None;
        loop {
            if self.closed.is_cancelled() {
                return Err(Error::Closed);
            }
            if let Some(lost) = self.try_once(&wanted, wait).await? {
                return Ok(Box::new(FileLock { claim, turn, name: name.to_owned(), lost }));
            }
            self.shared.courtesy.seen_others(name);
            let deadline = match wait {
                WaitPolicy::Until(deadline) if !deadline.has_passed() => deadline,
                _ => return Err(busy()),
            };
            if wake.is_none()
                && let Some(wakes) = &self.wakes
            {
                match wakes.on(&wanted.path) {
                    // It may have been given back before anybody told us.
                    Ok(told) => {
                        wake = Some(told);
                        continue;
                    }
                    // It has been: its file is gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => {
                        tracing::debug!(%error, lock = bare(name), "looking for it instead of being told");
                    }
                }
            }
            let told = async {
                match &mut wake {
                    Some(wake) => wake.told().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                same_file = told => {
                    wake = wake.filter(|_| same_file);
                    if self.shared.worker.run(move |table| table.others_wait_longer(id)).await? {
                        tokio::time::sleep(HEAD_START).await;
                    }
                }
                () = tokio::time::sleep(pause) => pause = (pause + PAUSE).min(LONGEST_PAUSE),
                () = deadline.wait() => {}
            }
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        self.shared.worker.run_aside(|table| table.others()).await?
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let name = bare(name);
        Err(Error::Unsupported(format!(
            "the kernel keeps the locks of file:// for as long as their holder lives: end the process that holds '{name}' instead"
        )))
    }

    async fn close(&self) {
        self.closed.cancel();
        self.shared.lose_all();
        if let Err(error) = self.shared.worker.run_aside(Table::close).await {
            tracing::warn!(%error, "the lock directory could not be left in order; the kernel frees the locks when we end");
        }
    }
}

/// A try for a lock, successful or not. Whatever has become of it is undone when it is dropped: the thread of the
/// directory works in order, so the undoing comes after every try.
#[derive(Debug)]
struct Claim {
    shared: Arc<Shared>,
    id: u64,
    given_back: bool,
}

impl Claim {
    /// Gives back what there is; the inner error says why it was ours no longer.
    async fn give_back(mut self) -> Result<Result<(), String>, Error> {
        self.given_back = true;
        let id = self.id;
        self.shared.worker.run(move |table| table.release(id)).await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.given_back {
            let id = self.id;
            self.shared.worker.submit(move |table| drop(table.release(id)));
        }
    }
}

/// A lock that is held. The claim goes before the turn, so that the next in the queue finds the file free.
#[derive(Debug)]
struct FileLock {
    claim: Claim,
    turn: Turn,
    name: String,
    lost: CancellationToken,
}

/// Tells the holder, too.
fn lost_because(name: &str, lost: &CancellationToken, reason: &str) -> Error {
    lost.cancel();
    Error::Lost { name: bare(name).to_owned(), reason: reason.to_owned() }
}

#[async_trait]
impl HeldLock for FileLock {
    fn token(&self) -> Option<u64> {
        None
    }

    fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    async fn verify(&self) -> Result<(), Error> {
        if self.lost.is_cancelled() {
            return Err(lost_because(&self.name, &self.lost, "it was noticed before"));
        }
        let id = self.claim.id;
        let verified = self.claim.shared.worker.run(move |table| table.verify(id)).await?;
        verified.map_err(|reason| lost_because(&self.name, &self.lost, &reason))
    }

    async fn release(self: Box<Self>) -> Result<(), Error> {
        let Self { claim, turn, name, lost } = *self;
        let told = lost.is_cancelled();
        let shared = claim.shared.clone();
        let result = claim.give_back().await;
        shared.courtesy.released(&name);
        drop(turn);
        match result? {
            Ok(()) if told => Err(lost_because(&name, &lost, "the lock directory was closed, or silent for too long")),
            Ok(()) => Ok(()),
            Err(reason) => Err(lost_because(&name, &lost, &reason)),
        }
    }
}

/// The suite with every call on the directory's own thread, as on a network file system.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Subject;

    struct OnThread(tempfile::TempDir);

    #[async_trait]
    impl Subject for OnThread {
        async fn instance(&self, name: &str) -> Arc<dyn Provider> {
            let heartbeat = Duration::from_millis(50);
            let options =
                Options { instance: name.to_owned(), heartbeat, exclusive_directory: true, ..Options::default() };
            Arc::new(FileProvider::build(self.0.path(), &options, false).await.unwrap())
        }

        async fn lose(&self, name: &str) {
            std::fs::remove_file(self.0.path().join(format!("cinder-{name}"))).unwrap();
        }

        async fn leftovers(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != ".scoria-holders").collect()
        }
    }

    crate::conformance_suite!(OnThread(tempfile::tempdir().unwrap()));

    /// On NFS, when a dead host has it open. A pipe does the same that nobody reads.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_cannot_be_opened_yet_holds_up_nobody_else() {
        let directory = OnThread(tempfile::tempdir().unwrap());
        let (one, two) = (directory.instance("one").await, directory.instance("two").await);
        let once = async |name| one.acquire(name, Mode::Exclusive, &Owner::default(), WaitPolicy::No).await;
        let (pipe, away) = (directory.0.path().join("cinder-a"), directory.0.path().join("away"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let held = once("cinder-b").await.unwrap();
        let wait = WaitPolicy::Until(scoria_runtime::Deadline::NEVER);
        let owner = Owner::default();
        let waits = two.acquire("cinder-a", Mode::Exclusive, &owner, wait);
        let goes_on = async {
            let refused = once("cinder-a").await.unwrap_err();
            held.verify().await.unwrap();
            assert!(!held.is_lost() && one.health() == Health::Up);
            once("cinder-c").await.unwrap().release().await.unwrap();
            std::fs::rename(&pipe, &away).unwrap();
            File::open(&away).unwrap();
            refused
        };
        let (had, refused) = tokio::join!(waits, goes_on);
        had.unwrap().verify().await.unwrap();
        let expected = format!(
            "lock service unavailable: lock directory '{}': 'cinder-a' cannot be opened: no answer; a host that is dead may have it open",
            directory.0.path().display()
        );
        assert_eq!(refused.to_string(), expected);
    }

    /// Whoever has just given a lock back is always first where nobody leaves room: others got one turn in two hundred.
    #[tokio::test(flavor = "multi_thread")]
    async fn instances_that_want_the_same_lock_have_it_by_turns() {
        const INSTANCES: usize = 3;
        let directory = tempfile::tempdir().unwrap();
        let end = tokio::time::Instant::now() + Duration::from_secs(2);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..INSTANCES {
            let options = Options { instance: number.to_string(), ..Options::default() };
            let provider = FileProvider::in_directory(directory.path(), &options).await.unwrap();
            tasks.spawn(async move {
                let mut turns = 0;
                while tokio::time::Instant::now() < end {
                    let wait = WaitPolicy::Until(scoria_runtime::Deadline::NEVER);
                    let lock = provider.acquire("cinder-a", Mode::Exclusive, &Owner::default(), wait).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    lock.release().await.unwrap();
                    turns += 1;
                }
                turns
            });
        }
        let turns = tasks.join_all().await;
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        assert!(*least > 20 && most / least < 4, "{turns:?}");
    }
}
