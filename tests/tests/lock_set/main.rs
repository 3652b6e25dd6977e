//! Sets that several processes add to under locks, while everything goes wrong that can: nothing that was added may be missing in the
//! end, and nobody may act under a lock that somebody else holds.
//!
//! `SCORIA_SEED=S` has the same faults come in the same order as in the run that printed S.

mod storage;
mod trouble;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scoria_coordination::{Coordinator, LockRequest, LockSet, Options, Owner, WaitPolicy};
use scoria_db::{Database, DatabaseLocks};
use scoria_runtime::Deadline;
use scoria_testkit::{Etcd, MariaDb, Postgres, Redis, ZooKeeper};

use storage::{Judged, Notes, SETS, Storage, judge, now};
use trouble::{Server, Trouble};

/// URL and directory of a process that adds. After a blank the URL may be followed by that of the database.
const CHILD: &str = "SCORIA_LOCK_SET_CHILD";
const PROCESSES: usize = 4;
/// How long a lock lives without its holder.
const LIFE: Duration = Duration::from_secs(2);
/// How often each fault has to have been there, and how many elements have to have been added meanwhile.
const ROUNDS: usize = 2;
const ADDITIONS: usize = 2000;
/// How long that may take, on a machine that is busy with other things: half a minute is usual.
const CEILING: Duration = Duration::from_secs(200);
/// A file that tells the processes that it is enough.
const ENOUGH: &str = "enough";

/// What a process does that adds. Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (url, directory) = told.split_once('\n').expect("URL and directory");
    add_all(url, Path::new(directory)).await.unwrap();
}

async fn add_all(url: &str, directory: &Path) -> Result<()> {
    let mut options = Options {
        heartbeat: Duration::from_millis(300),
        max_reconnect_backoff: Duration::from_millis(500),
        ..Options::default()
    };
    let (url, database) = url.split_once(' ').unwrap_or((url, ""));
    if !database.is_empty() {
        options.lock_table = Some(Arc::new(DatabaseLocks::new(&scoria_db::Options::new(database))?));
    }
    let locks = Coordinator::open(url, &options).await?;
    let process = uuid::Uuid::new_v4().simple().to_string();
    let notes = Notes::new(directory, &process)?;
    let adder = |set| Adder { locks: &locks, notes: &notes, storage: Storage::of(directory, set), set };
    try_join_all((0..SETS).map(|set| adder(set).add_until_enough(directory, &process))).await?;
    locks.close().await;
    Ok(())
}

/// Adds to one set.
struct Adder<'a> {
    locks: &'a Coordinator,
    notes: &'a Notes,
    storage: Storage,
    set: usize,
}

impl Adder<'_> {
    async fn add_until_enough(self, directory: &Path, process: &str) -> Result<()> {
        let set = self.set;
        let mut number = 0;
        while !directory.join(ENOUGH).exists() {
            let element = format!("{process}-{number}");
            if self.add(&element).await? {
                self.notes.note(&format!("added {set} {element}"))?;
                number += 1;
            }
        }
        Ok(())
    }

    /// Tries once to add an element; false when the lock could not be had or was lost.
    async fn add(&self, element: &str) -> Result<bool> {
        let wait = WaitPolicy::Until(Deadline::after(Duration::from_secs(10)));
        let request = LockRequest::new(Owner { operation: "add".to_owned(), ..Owner::default() });
        let name = format!("set-{}", self.set);
        let Ok(held) = self.locks.acquire(request.exclusive(name).wait(wait)).await else { return Ok(false) };
        let token = held.token().context("the lock service has fencing tokens")?;
        let got = now();
        if held.is_lost() {
            return Ok(false);
        }
        self.notes.note(&format!("got {} {token} {got}", self.set))?;
        let added = self.add_under(&held, token, element).await;
        drop(held.release().await);
        added
    }

    async fn add_under(&self, held: &LockSet, token: u64, element: &str) -> Result<bool> {
        let Some(end) = self.storage.end(token)? else { return Ok(false) };
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            // First the time, then the question: whoever is stopped in between is told that it was lost.
            let had = now();
            if held.is_lost() {
                return Ok(false);
            }
            self.notes.note(&format!("had {} {token} {had}", self.set))?;
        }
        self.storage.add(token, end, element)
    }
}

/// Lets processes add while this server, they themselves and their links fail. `url` gives the server's URL with another port.
async fn nothing_is_lost<S: Server>(server: S, url: impl Fn(&S, u16) -> String) -> Result<()> {
    let seed = std::env::var("SCORIA_SEED").ok().map(|seed| seed.parse()).transpose()?;
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("SCORIA_SEED={seed}");
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let judged = under_trouble(server, url, path, StdRng::seed_from_u64(seed)).await;
    let log = || std::fs::read_to_string(path.join("log")).unwrap_or_default();
    let (rounds, Judged { moments, additions }) = judged.with_context(|| format!("SCORIA_SEED={seed}\n{}", log()))?;
    eprintln!("{rounds} rounds of faults, {moments} moments in which a lock was held, {additions} additions");
    Ok(())
}

async fn under_trouble<S: Server>(
    server: S,
    url: impl Fn(&S, u16) -> String,
    path: &Path,
    random: StdRng,
) -> Result<(usize, Judged)> {
    let mut trouble = Trouble::start(server, url, path, PROCESSES, random)?;
    let begun = Instant::now();
    let added = || (0..SETS).map(|set| Storage::of(path, set).elements().len()).sum::<usize>();
    while trouble.rounds() < ROUNDS || added() < ADDITIONS {
        ensure!(begun.elapsed() < CEILING, "only {} faults and {} additions", trouble.faults, added());
        trouble.strike().await?;
    }
    std::fs::write(path.join(ENOUGH), "")?;
    let rounds = trouble.rounds();
    trouble.end().await?;
    Ok((rounds, judge(path)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_zookeeper() -> Result<()> {
    nothing_is_lost(ZooKeeper::start().await?, |_, port| {
        format!("zookeeper://127.0.0.1:{port}?timeout={}", LIFE.as_secs())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_redis() -> Result<()> {
    // Otherwise it forgets its locks when it is killed.
    let server = Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).await?;
    nothing_is_lost(server, |_, port| format!("redis://127.0.0.1:{port}?lock_timeout={}", LIFE.as_secs())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_etcd() -> Result<()> {
    let url = |_: &_, port| format!("etcd://127.0.0.1:{port}?timeout={}", LIFE.as_secs());
    nothing_is_lost(Etcd::start().await?, url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_etcd_as_tooz_uses_it() -> Result<()> {
    let url = |_: &_, port| format!("etcd3+http://127.0.0.1:{port}?lock_timeout={}", LIFE.as_secs());
    nothing_is_lost(Etcd::start().await?, url).await
}

/// `database://` in this database, on tables of our own.
async fn nothing_is_lost_in_a_table<S: Server>(server: S, url: impl Fn(&S) -> String) -> Result<()> {
    let database = Database::connect(&scoria_db::Options::new(url(&server))).await?;
    database.sync().await?;
    database.close().await;
    nothing_is_lost(server, |server, port| {
        let url = url(server).replace(&format!(":{}/", server.port()), &format!(":{port}/"));
        format!("database://?lock_timeout={} {url}", LIFE.as_secs())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_a_table_of_mariadb() -> Result<()> {
    nothing_is_lost_in_a_table(MariaDb::start().await?, MariaDb::url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_a_table_of_postgresql() -> Result<()> {
    nothing_is_lost_in_a_table(Postgres::start().await?, Postgres::url).await
}
