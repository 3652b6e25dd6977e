//! `file://` locks on the share: how far they reach, and what becomes of them with their hosts.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, LockRequest, LockSet, Options, Owner, Scope, WaitPolicy};
use scoria_runtime::Deadline;

use crate::network::{Network, PART, announce, block_on, env};
use crate::peer::Peer;

/// A port of the server's host.
const PORT: u16 = 7077;
/// How often each host adds to the counter.
const ROUNDS: usize = 15;
/// A waiter looks every 100 ms. It may be late, but not as late as if the server had to find out that nobody holds the lock.
const SOON: Duration = Duration::from_secs(5);

/// Mounts the share.
fn mount(more_options: &str) -> PathBuf {
    // Kept: the guest's end removes it.
    let directory = tempfile::tempdir().unwrap().keep();
    let options = env("SCORIA_NFS_OPTIONS") + more_options;
    let mut mount = Command::new("mount");
    mount.args(["-t", "nfs", "-o", &options, &env("SCORIA_NFS_SHARE")]).arg(&directory);
    assert!(mount.status().unwrap().success());
    directory
}

fn url(directory: &Path) -> String {
    format!("file://{}/locks", directory.display())
}

async fn locks_in(directory: &Path, scope: Scope) -> Coordinator {
    let locks = Coordinator::open(&url(directory), &Options::default()).await.unwrap();
    assert_eq!(locks.scope(), scope, "{}", locks.describe());
    locks
}

async fn acquire(locks: &Coordinator, name: &str, wait: WaitPolicy) -> Result<LockSet, Error> {
    locks.acquire(LockRequest::new(Owner::default()).exclusive(name).wait(wait)).await
}

async fn once(locks: &Coordinator, name: &str) -> Result<LockSet, Error> {
    acquire(locks, name, WaitPolicy::No).await
}

async fn within(locks: &Coordinator, name: &str, seconds: u64) -> Result<LockSet, Error> {
    acquire(locks, name, WaitPolicy::Until(Deadline::after(Duration::from_secs(seconds)))).await
}

/// Beside others who read.
async fn shared(locks: &Coordinator, name: &str) -> LockSet {
    let wait = WaitPolicy::Until(Deadline::after(Duration::from_secs(100)));
    locks.acquire(LockRequest::new(Owner::default()).shared(name).wait(wait)).await.unwrap()
}

/// A tooz process that is to do something with the lock `b`.
fn python(url: &str, command: &str) -> Peer {
    Peer::script("../../crates/coordination/tests/peer.py", url, &[command, "b"])
}

/// What two hosts tell each other, line by line.
struct Other(BufReader<TcpStream>);

impl Other {
    fn listen() -> TcpListener {
        TcpListener::bind(("0.0.0.0", PORT)).unwrap()
    }

    fn accept(listener: &TcpListener) -> Self {
        Self(BufReader::new(listener.accept().unwrap().0))
    }

    /// To the server's host.
    fn connect() -> Self {
        let share = env("SCORIA_NFS_SHARE");
        let (address, _) = share.split_once(':').unwrap();
        Self(BufReader::new(TcpStream::connect((address, PORT)).unwrap()))
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.0.get_mut(), "{what}").unwrap();
    }

    fn hear(&mut self, expected: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected, "what the other host tells");
    }
}

/// One of two hosts that take the same locks.
struct Host {
    directory: PathBuf,
    locks: Coordinator,
    other: Other,
}

impl Host {
    async fn hands_over(&mut self) {
        let held = once(&self.locks, "a").await.unwrap();
        self.other.tell("held");
        self.other.hear("busy");
        while self.locks.holders().await.unwrap().iter().all(|holder| holder.held) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        held.verify().await.unwrap();
        let began = Instant::now();
        held.release().await.unwrap();
        self.other.hear("got");
        assert!(began.elapsed() < SOON, "handed over after {:?}", began.elapsed());
    }

    async fn takes_over(&mut self) {
        self.other.hear("held");
        assert!(matches!(once(&self.locks, "a").await, Err(Error::Busy { .. })));
        self.other.tell("busy");
        let held = within(&self.locks, "a", 100).await.unwrap();
        self.other.tell("got");
        held.release().await.unwrap();
    }

    /// Adds `mark` to what all have added. Two at once would write to the same place.
    async fn counts(&mut self, mark: u8) {
        let counter = self.directory.join("counter");
        for _ in 0..ROUNDS {
            let held = within(&self.locks, "counter", 100).await.unwrap();
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&counter).unwrap();
            let mut marks = Vec::new();
            file.read_to_end(&mut marks).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            file.write_all_at(&[mark], marks.len() as u64).unwrap();
            drop(file);
            held.release().await.unwrap();
        }
        self.other.tell("counted");
        self.other.hear("counted");
        let marks = std::fs::read_to_string(&counter).unwrap();
        assert_eq!(marks.len(), 2 * ROUNDS, "{marks}");
        assert!(marks.contains("12") && marks.contains("21"), "nobody came between the other's: {marks}");
    }

    async fn stays_out_beside_python(&mut self) {
        let held = once(&self.locks, "b").await.unwrap();
        self.other.tell("held");
        self.other.hear("Python is refused");
        held.release().await.unwrap();
        self.other.hear("Python holds");
        assert!(matches!(once(&self.locks, "b").await, Err(Error::Busy { .. })));
        self.other.tell("busy");
        let held = within(&self.locks, "b", 100).await.unwrap();
        self.other.tell("got");
        held.release().await.unwrap();
    }

    fn is_pythons(&mut self) {
        let url = url(&self.directory);
        self.other.hear("held");
        python(&url, "try").says(&["busy"]);
        self.other.tell("Python is refused");
        let mut python = python(&url, "hold");
        python.says(&["held"]);
        self.other.tell("Python holds");
        self.other.hear("busy");
        python.let_go();
        self.other.hear("got");
    }
}

/// Two hosts, one of them the server's, by turns and at once; on NFS 4.2 beside Python.
fn hosts_exclude_each_other(version: &str, test: &str) {
    let Ok(part) = std::env::var(PART) else {
        let network = Network::new(test);
        let mut first = network.server(version, "first");
        let mut second = network.client("2", "second", &mut first);
        second.says("1 passed");
        first.says("1 passed");
        return;
    };
    block_on(async {
        let first = part == "first";
        let listener = first.then(|| {
            let listener = Other::listen();
            announce();
            listener
        });
        let directory = mount("");
        let locks = locks_in(&directory, Scope::Cluster).await;
        let other = listener.map_or_else(Other::connect, |listener| Other::accept(&listener));
        let mut host = Host { directory, locks, other };
        if first {
            host.hands_over().await;
            host.takes_over().await;
        } else {
            host.takes_over().await;
            host.hands_over().await;
        }
        host.counts(if first { b'1' } else { b'2' }).await;
        match version {
            "4.2" if first => host.stays_out_beside_python().await,
            "4.2" => host.is_pythons(),
            _ => {}
        }
        if first {
            locks_in(tempfile::tempdir().unwrap().path(), Scope::Node).await;
            // The share goes with this host.
            host.other.hear("");
        } else if version == "3" {
            locks_in(&mount(",nolock"), Scope::Node).await;
        }
    });
}

/// On NFS 4 a lock goes with the lease of its host, whether that is dead or only cut off; who is cut off knows it by then, and
/// when he is back he takes nothing away from the next holder.
fn who_is_silent_loses_his_locks_before_another_has_them(version: &str, test: &str) {
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let mut network = Network::new(test);
            // Above what the documentation demands: more than 10 s.
            network.lease = Duration::from_secs(15);
            let mut taker = network.server(version, "taker");
            let mut cut_off = network.client("2", "cut off", &mut taker);
            let dead = network.client("3", "dead", &mut taker);
            taker.says("waiting");
            let silent = Instant::now();
            network.plug("2", false);
            drop(dead);
            let (lost, _) = cut_off.says_when("lost");
            let (taken, _) = taker.says_when("taken");
            assert!(lost < taken, "the loss was told {:?} after the lock was another host's", lost - taken);
            let kept = taken - silent;
            println!("lost after {:?}, taken after {kept:?}", lost - silent);
            assert!(kept > Duration::from_secs(10), "the server waits for a silent client, this one did for {kept:?}");
            taker.says("taken");
            network.plug("2", true);
            cut_off.says("1 passed");
            taker.says("1 passed");
        }
        Ok("dead") => block_on(async {
            let locks = locks_in(&mount(""), Scope::Cluster).await;
            let _held = once(&locks, "of the dead").await.unwrap();
            let _read = shared(&locks, "read by the dead").await;
            let _read_too = shared(&locks, "read by the dead, too").await;
            Other::connect().tell("holding");
            std::future::pending().await
        }),
        Ok("cut off") => block_on(async {
            let locks = locks_in(&mount(""), Scope::Cluster).await;
            let held = once(&locks, "of the cut off").await.unwrap();
            Other::connect().tell("holding");
            held.lost().cancelled().await;
            println!("lost");
            let newer = loop {
                match within(&locks, "newer", 100).await {
                    Ok(newer) => break newer,
                    Err(Error::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            println!("back");
            assert!(matches!(once(&locks, "of the cut off").await, Err(Error::Busy { .. })));
            assert!(matches!(held.release().await, Err(Error::Lost { .. })));
            newer.verify().await.unwrap();
            let mut server = Other::connect();
            server.tell("back");
            server.hear("free");
            once(&locks, "of the cut off").await.unwrap();
        }),
        Ok(_) => {
            let listener = Other::listen();
            announce();
            block_on(async {
                let locks = locks_in(&mount(""), Scope::Cluster).await;
                for _ in 0..2 {
                    Other::accept(&listener).hear("holding");
                }
                let mine = once(&locks, "of the living").await.unwrap();
                println!("waiting");
                let take = async |name| {
                    let held = within(&locks, name, 100).await.unwrap();
                    println!("taken");
                    held
                };
                // What the dead has open for reading nobody else can open for a while.
                let (one, two, three, four) = tokio::join!(
                    take("of the dead"),
                    take("of the cut off"),
                    within(&locks, "read by the dead", 100),
                    shared(&locks, "read by the dead, too"),
                );
                assert!(!mine.lost().is_cancelled(), "who is in order has nothing to do with it");
                let mut back = Other::accept(&listener);
                back.hear("back");
                for held in [mine, one, two, three.unwrap(), four] {
                    held.verify().await.unwrap();
                    held.release().await.unwrap();
                }
                back.tell("free");
                back.hear("");
            });
        }
    }
}

/// Where a host's statd notes which servers have locks of this host, for the time after a crash.
const MONITORED: &str = "/var/lib/nfs/sm";

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg("-T").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn nfs_3_hosts_exclude_each_other() {
    hosts_exclude_each_other("3", "lock_files::nfs_3_hosts_exclude_each_other");
}

#[test]
fn nfs_4_2_hosts_exclude_each_other() {
    hosts_exclude_each_other("4.2", "lock_files::nfs_4_2_hosts_exclude_each_other");
}

#[test]
fn nfs_4_0_who_is_silent_loses_his_locks_before_another_has_them() {
    let test = "lock_files::nfs_4_0_who_is_silent_loses_his_locks_before_another_has_them";
    who_is_silent_loses_his_locks_before_another_has_them("4.0", test);
}

#[test]
fn nfs_4_2_who_is_silent_loses_his_locks_before_another_has_them() {
    let test = "lock_files::nfs_4_2_who_is_silent_loses_his_locks_before_another_has_them";
    who_is_silent_loses_his_locks_before_another_has_them("4.2", test);
}

/// On NFS 3 the server does not ask how a client is. Whoever is cut off is told that he may have lost his lock all the same.
#[test]
fn nfs_3_the_lock_of_a_dead_host_goes_when_that_host_comes_back() {
    let test = "lock_files::nfs_3_the_lock_of_a_dead_host_goes_when_that_host_comes_back";
    match std::env::var(PART).as_deref() {
        Err(_) => {
            let network = Network::new(test);
            let mut taker = network.server("3", "taker");
            let mut dying = network.client("2", "dying", &mut taker);
            taker.says("waiting");
            network.plug("2", false);
            let (lost, _) = dying.says_when("lost");
            drop(dying);
            let (refused, _) = taker.says_when("refused");
            assert!(lost < refused, "the taker has not waited for the death");
            let _back = network.client("2", "back", &mut taker);
            taker.says("1 passed");
        }
        Ok("dying") => block_on(async {
            let directory = mount("");
            let locks = locks_in(&directory, Scope::Cluster).await;
            let held = once(&locks, "a").await.unwrap();
            copy(Path::new(MONITORED), &directory.join("sm"));
            Other::connect().tell("holding");
            held.lost().cancelled().await;
            println!("lost");
            std::future::pending().await
        }),
        Ok("back") => {
            copy(&mount("").join("sm"), Path::new(MONITORED));
            assert!(Command::new("sm-notify").args(["-f", "-d"]).status().unwrap().success());
            std::thread::sleep(Duration::from_secs(100));
        }
        Ok(_) => {
            let listener = Other::listen();
            announce();
            block_on(async {
                let locks = locks_in(&mount(""), Scope::Cluster).await;
                Other::accept(&listener).hear("holding");
                println!("waiting");
                let refused = within(&locks, "a", 15).await;
                assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
                println!("refused");
                let held = within(&locks, "a", 100).await.unwrap();
                held.release().await.unwrap();
            });
        }
    }
}
