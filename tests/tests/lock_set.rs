//! A set that several processes add to under one lock, while processes are stopped and killed and the lock service is paused:
//! nothing that was added may be missing in the end, and nobody may act under a lock that somebody else holds.
//!
//! The set is kept as careful storage would keep it: it refuses whoever comes with a lower fencing token than it has seen.
//! Each process notes on the machine's monotonic clock when it got the lock and each moment in which it still had it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use rand::Rng;
use scoria_coordination::{Coordinator, LockRequest, LockSet, Options, Owner, WaitPolicy};
use scoria_db::{Database, DatabaseLocks};
use scoria_runtime::Deadline;
use scoria_testkit::{Etcd, MariaDb, Postgres, Redis, ZooKeeper};

/// URL, directory and number of a child process. After a blank the URL may be followed by that of the database.
const CHILD: &str = "SCORIA_LOCK_SET_CHILD";
const CHILDREN: usize = 4;
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(25);
/// How long the children may take to end after that.
const SETTLED: Duration = Duration::from_secs(60);
/// Fewer additions than these show nothing: hundreds to thousands are usual.
const AT_LEAST: usize = 50;
/// A file that tells the children that it is enough.
const ENOUGH: &str = "enough";

fn now() -> u128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    Duration::from(now).as_nanos()
}

/// The storage: a line with the highest token seen, then a line for each element.
struct Storage(PathBuf);

impl Storage {
    fn locked(&self) -> Result<Flock<File>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    fn read(file: &mut File) -> Result<(u64, String)> {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        let (token, elements) = text.split_once('\n').unwrap_or(("0", ""));
        Ok((token.parse()?, elements.to_owned()))
    }

    /// All elements; `None` for a token lower than one seen before. From now on lower ones are refused.
    fn load(&self, token: u64) -> Result<Option<String>> {
        let mut file = self.locked()?;
        let (highest, elements) = Self::read(&mut file)?;
        if token < highest {
            return Ok(None);
        }
        Self::write(&mut file, token, &elements)?;
        Ok(Some(elements))
    }

    /// Replaces all elements; false for a token lower than one seen before.
    fn store(&self, token: u64, elements: &str) -> Result<bool> {
        let mut file = self.locked()?;
        let (highest, _) = Self::read(&mut file)?;
        if token >= highest {
            Self::write(&mut file, token, elements)?;
        }
        Ok(token >= highest)
    }

    /// In one write, so that a process killed here leaves the old text or the new one.
    fn write(file: &mut File, token: u64, elements: &str) -> Result<()> {
        file.seek(SeekFrom::Start(0))?;
        // The token may only get longer, elements only more: nothing of the old text stays behind the new one.
        file.write_all(format!("{token:020}\n{elements}").as_bytes())?;
        Ok(())
    }
}

/// What one process noted: `got TOKEN TIME`, `had TOKEN TIME`, `added ELEMENT`.
struct Notes(File);

impl Notes {
    fn open(directory: &Path, child: usize) -> Result<Self> {
        Ok(Self(File::options().append(true).create(true).open(directory.join(format!("notes-{child}")))?))
    }

    fn note(&mut self, line: &str) -> Result<()> {
        Ok(self.0.write_all(format!("{line}\n").as_bytes())?)
    }
}

/// What a child process does. Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let words: Vec<_> = told.split('\n').collect();
    let [url, directory, number] = words[..] else { panic!("{CHILD} has to be URL, directory and number") };
    add_all(url, Path::new(directory), number.parse().unwrap()).await.unwrap();
}

async fn add_all(url: &str, directory: &Path, child: usize) -> Result<()> {
    let mut options = Options { heartbeat: Duration::from_millis(300), ..Options::default() };
    let (url, database) = url.split_once(' ').unwrap_or((url, ""));
    if !database.is_empty() {
        options.lock_table = Some(Arc::new(DatabaseLocks::new(&scoria_db::Options::new(database))?));
    }
    let locks = Coordinator::open(url, &options).await?;
    let storage = Storage(directory.join("set"));
    let before = std::fs::read_to_string(directory.join(format!("notes-{child}"))).unwrap_or_default();
    let done = before.lines().filter(|line| line.starts_with("added ")).count();
    let mut notes = Notes::open(directory, child)?;
    for number in done.. {
        if directory.join(ENOUGH).exists() {
            break;
        }
        let element = format!("{child}-{number}");
        while !add(&locks, &storage, &mut notes, &element).await? {}
        notes.note(&format!("added {element}"))?;
    }
    locks.close().await;
    Ok(())
}

/// Tries once to add an element; false when the lock could not be had or was lost.
async fn add(locks: &Coordinator, storage: &Storage, notes: &mut Notes, element: &str) -> Result<bool> {
    let wait = WaitPolicy::Until(Deadline::after(Duration::from_secs(20)));
    let request = LockRequest::new(Owner { operation: "add".to_owned(), ..Owner::default() });
    let Ok(held) = locks.acquire(request.exclusive("set").wait(wait)).await else { return Ok(false) };
    let token = held.token().context("the lock service has fencing tokens")?;
    let got = now();
    if held.is_lost() {
        return Ok(false);
    }
    notes.note(&format!("got {token} {got}"))?;
    let added = add_under(&held, token, storage, notes, element).await;
    drop(held.release().await);
    added
}

async fn add_under(held: &LockSet, token: u64, storage: &Storage, notes: &mut Notes, element: &str) -> Result<bool> {
    let Some(mut elements) = storage.load(token)? else { return Ok(false) };
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        // First the time, then the question: whoever is stopped in between is told that it was lost.
        let had = now();
        if held.is_lost() {
            return Ok(false);
        }
        notes.note(&format!("had {token} {had}"))?;
    }
    if elements.lines().any(|line| line == element) {
        // Killed after it was stored and before that was noted.
        return Ok(true);
    }
    elements.push_str(element);
    elements.push('\n');
    storage.store(token, &elements)
}

/// A child process, with its output in a file.
struct Adder {
    number: usize,
    process: tokio::process::Child,
}

impl Adder {
    fn start(url: &str, directory: &Path, number: usize) -> Result<Self> {
        let log = File::options().append(true).create(true).open(directory.join(format!("log-{number}")))?;
        let process = tokio::process::Command::new(std::env::current_exe()?)
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, format!("{url}\n{}\n{number}", directory.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { number, process })
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.process.id() {
            let _ = kill(Pid::from_raw(id.cast_signed()), signal);
        }
    }
}

/// Lets the children add, while `pause` stops (true) and continues (false) the lock service now and then.
async fn holds(url: &str, mut pause: impl FnMut(bool) -> Result<()>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let mut running = (0..CHILDREN).map(|number| Adder::start(url, path, number)).collect::<Result<Vec<_>>>()?;
    let (end, mut faults) = (Instant::now() + TROUBLE, 0);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(200..1500))).await;
        let (what, victim) = (rand::rng().random_range(0..6), rand::rng().random_range(0..running.len()));
        let for_a_while = Duration::from_millis(rand::rng().random_range(100..3500));
        match what {
            0 => {
                pause(true)?;
                tokio::time::sleep(for_a_while).await;
                pause(false)?;
            }
            1 => {
                let number = running[victim].number;
                running[victim].process.kill().await?;
                running[victim] = Adder::start(url, path, number)?;
            }
            _ => {
                running[victim].signal(Signal::SIGSTOP);
                tokio::time::sleep(for_a_while).await;
                running[victim].signal(Signal::SIGCONT);
            }
        }
        faults += 1;
    }
    std::fs::write(path.join(ENOUGH), "")?;
    for mut adder in running {
        let ended = tokio::time::timeout(SETTLED, adder.process.wait()).await;
        let status = ended.with_context(|| format!("process {} does not end: {}", adder.number, logs(path)))??;
        ensure!(status.success(), "process {} ended with {status}: {}", adder.number, logs(path));
    }
    let Judged { moments, additions } = judge(path)?;
    eprintln!("{url}: {faults} faults, {moments} moments in which a lock was held, {additions} additions");
    ensure!(additions >= AT_LEAST, "only {additions} additions: {}", logs(path));
    Ok(())
}

fn logs(directory: &Path) -> String {
    let log = |number| std::fs::read_to_string(directory.join(format!("log-{number}"))).unwrap_or_default();
    (0..CHILDREN).map(log).collect()
}

/// What was looked at.
struct Judged {
    moments: usize,
    additions: usize,
}

/// Looks through the notes.
fn judge(directory: &Path) -> Result<Judged> {
    let (mut got, mut had, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for child in 0..CHILDREN {
        for line in std::fs::read_to_string(directory.join(format!("notes-{child}")))?.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["got", token, time] => got.push((token.parse::<u64>()?, time.parse::<u128>()?)),
                ["had", token, time] => had.push((token.parse::<u64>()?, time.parse::<u128>()?)),
                ["added", element] => added.push(element.to_owned()),
                // The last line of a process that was killed.
                _ => {}
            }
        }
    }
    got.sort_unstable();
    for pair in got.windows(2) {
        ensure!(pair[0].0 != pair[1].0, "token {} was given out twice", pair[0].0);
    }
    for (token, time) in &had {
        // Whoever holds a higher token got it later than any moment in which a lower one was still held.
        let first_later = got.partition_point(|(other, _)| other <= token);
        let overtaken = got[first_later..].iter().find(|(_, since)| since < time);
        if let Some((other, _)) = overtaken {
            bail!("token {token} was still held when {other} had been given out");
        }
    }
    let mut set = String::new();
    Storage(directory.join("set")).locked()?.read_to_string(&mut set)?;
    let mut elements: Vec<_> = set.lines().skip(1).map(str::to_owned).collect();
    elements.sort_unstable();
    added.sort_unstable();
    added.dedup();
    let missing: Vec<_> = added.iter().filter(|element| elements.binary_search(element).is_err()).collect();
    ensure!(missing.is_empty(), "lost: {missing:?}");
    ensure!(elements.windows(2).all(|pair| pair[0] != pair[1]), "something was added twice");
    Ok(Judged { moments: had.len(), additions: added.len() })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_zookeeper() -> Result<()> {
    let mut server = ZooKeeper::start().await?;
    holds(&format!("zookeeper://127.0.0.1:{}?timeout=2", server.port()), |stop| {
        if stop { server.pause() } else { server.resume() }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_redis() -> Result<()> {
    let mut server = Redis::start().await?;
    holds(&format!("{}?lock_timeout=2", server.url()), |stop| if stop { server.pause() } else { server.resume() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_etcd() -> Result<()> {
    let mut server = Etcd::start().await?;
    holds(&format!("etcd://127.0.0.1:{}?timeout=2", server.port()), |stop| {
        if stop { server.pause(0) } else { server.resume(0) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_etcd_as_tooz_uses_it() -> Result<()> {
    let mut server = Etcd::start().await?;
    holds(&format!("etcd3+http://127.0.0.1:{}?lock_timeout=2", server.port()), |stop| {
        if stop { server.pause(0) } else { server.resume(0) }
    })
    .await
}

/// `database://` in this database, on tables of our own.
async fn table_in(url: &str) -> Result<String> {
    let database = Database::connect(&scoria_db::Options::new(url)).await?;
    database.sync().await?;
    database.close().await;
    Ok(format!("database://?lock_timeout=2 {url}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_a_table_of_mariadb() -> Result<()> {
    let mut server = MariaDb::start().await?;
    let url = table_in(&server.url()).await?;
    holds(&url, |stop| if stop { server.pause() } else { server.resume() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_a_table_of_postgresql() -> Result<()> {
    let mut server = Postgres::start().await?;
    let url = table_in(&server.url()).await?;
    holds(&url, |stop| if stop { server.pause() } else { server.resume() }).await
}
