//! What goes wrong: with the lock service, with its clients and between them.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use scoria_testkit::faults::{Link, Proxy};
use scoria_testkit::{Etcd, MariaDb, Postgres, Redis, ZooKeeper};

use crate::{CHILD, LIFE};

/// How long the processes may take to end.
const SETTLED: Duration = Duration::from_secs(60);

/// A lock service of one server that keeps its locks when it is killed.
pub(crate) trait Server {
    fn port(&self) -> u16;
    fn pause(&mut self) -> Result<()>;
    fn resume(&mut self) -> Result<()>;
    /// Kills it and starts it again.
    async fn restart(&mut self) -> Result<()>;
}

macro_rules! server {
    ($server:ty $(, $member:expr)?) => {
        impl Server for $server {
            fn port(&self) -> u16 {
                <$server>::port(self)
            }

            fn pause(&mut self) -> Result<()> {
                <$server>::pause(self $(, $member)?)
            }

            fn resume(&mut self) -> Result<()> {
                <$server>::resume(self $(, $member)?)
            }

            async fn restart(&mut self) -> Result<()> {
                <$server>::restart(self $(, $member)?).await
            }
        }
    };
}

server!(ZooKeeper);
server!(Redis);
server!(Etcd, 0);
server!(MariaDb);
server!(Postgres);

#[derive(Debug, Clone, Copy)]
enum Fault {
    ServerStopped,
    ServerKilled,
    /// All but one.
    ProcessesStopped,
    ProcessKilled,
    /// Of one process.
    Link(Link),
}

/// Everything that goes wrong in a round.
const ROUND: [Fault; 7] = [
    Fault::ServerStopped,
    Fault::ServerKilled,
    Fault::ProcessesStopped,
    Fault::ProcessKilled,
    Fault::Link(Link::Cut),
    Fault::Link(Link::Stalled),
    Fault::Link(Link::AnswersLost),
];

/// A process that adds: its connections go through a proxy of its own, its output into a file.
struct Adder {
    url: String,
    proxy: Proxy,
    process: tokio::process::Child,
}

impl Adder {
    fn start(directory: &Path, url: &str) -> Result<tokio::process::Child> {
        let log = File::options().append(true).create(true).open(directory.join("log"))?;
        let process = tokio::process::Command::new(std::env::current_exe()?)
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, format!("{url}\n{}", directory.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(process)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(id.cast_signed()), signal)?)
    }
}

/// The processes, their lock service, and what is still to go wrong in this round.
pub(crate) struct Trouble<'a, S> {
    server: S,
    directory: &'a Path,
    adders: Vec<Adder>,
    random: StdRng,
    round: Vec<Fault>,
    /// How often something went wrong.
    pub(crate) faults: usize,
}

impl<'a, S: Server> Trouble<'a, S> {
    /// Starts so many processes. `url` gives the URL of the server with another port.
    pub(crate) fn start(
        server: S,
        url: impl Fn(&S, u16) -> String,
        directory: &'a Path,
        processes: usize,
        random: StdRng,
    ) -> Result<Self> {
        let mut adders = Vec::new();
        for _ in 0..processes {
            let proxy = Proxy::start(server.port())?;
            let url = url(&server, proxy.port());
            let process = Adder::start(directory, &url)?;
            adders.push(Adder { url, proxy, process });
        }
        Ok(Self { server, directory, adders, random, round: Vec::new(), faults: 0 })
    }

    /// How often each kind of fault has been there.
    pub(crate) fn rounds(&self) -> usize {
        self.faults / ROUND.len()
    }

    /// A bit of peace, then one fault; in every other round one that lasts for longer than a lock lives.
    pub(crate) async fn strike(&mut self) -> Result<()> {
        if self.round.is_empty() {
            self.round = ROUND.to_vec();
            self.round.shuffle(&mut self.random);
        }
        // Longer with each round, so that a slow machine gets on too.
        let peace = Duration::from_millis(self.random.random_range(100..600)) * u32::try_from(1 + self.rounds())?;
        let life = if self.rounds().is_multiple_of(2) { Duration::ZERO } else { LIFE };
        let for_a_while = life + LIFE.mul_f64(self.random.random_range(0.05..0.6));
        let chosen = self.random.random_range(0..self.adders.len());
        tokio::time::sleep(peace).await;
        match self.round.pop().context("a round has faults")? {
            Fault::ServerStopped => {
                self.server.pause()?;
                tokio::time::sleep(for_a_while).await;
                self.server.resume()?;
            }
            Fault::ServerKilled => self.server.restart().await?,
            Fault::ProcessesStopped => {
                self.signal_all_but(chosen, Signal::SIGSTOP)?;
                tokio::time::sleep(for_a_while).await;
                self.signal_all_but(chosen, Signal::SIGCONT)?;
            }
            Fault::ProcessKilled => {
                let adder = &mut self.adders[chosen];
                adder.process.kill().await?;
                adder.process = Adder::start(self.directory, &adder.url)?;
            }
            Fault::Link(link) => {
                let proxy = &self.adders[chosen].proxy;
                proxy.set(link);
                tokio::time::sleep(for_a_while).await;
                proxy.set(Link::Up);
            }
        }
        self.faults += 1;
        Ok(())
    }

    fn signal_all_but(&self, one: usize, signal: Signal) -> Result<()> {
        let mut others = self.adders.iter().enumerate().filter(|(number, _)| *number != one);
        others.try_for_each(|(_, adder)| adder.signal(signal))
    }

    /// Waits for the end of the processes.
    pub(crate) async fn end(self) -> Result<()> {
        for mut adder in self.adders {
            let ended = tokio::time::timeout(SETTLED, adder.process.wait()).await;
            let status = ended.context("a process does not end")??;
            ensure!(status.success(), "a process ended with {status}");
        }
        Ok(())
    }
}
