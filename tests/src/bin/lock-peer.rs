//! Takes locks for somebody at the other end of a pipe: Scoria's side of tooz' own functional tests
//! (`tests/tests/tooz_functional.rs`). For tests only.
//!
//! `lock-peer URL` says `ready FEATURE…` once the lock service is connected, then answers each line of its input with one line,
//! as soon as it can and in any order. A line is a number, which its answer begins with, and one of
//!
//! * `acquire NAME exclusive|shared no|ever|SECONDS`: `got HANDLE`, or `busy`
//! * `release HANDLE`, `verify HANDLE`: `done`, or `lost`
//! * `break NAME`: `done`, or `nobody`
//!
//! What is impossible is answered `unsupported WHY`, anything else `error WHY`. It gives everything back at the end of its input.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use scoria_coordination::{Coordinator, Error, Health, LockRequest, LockSet, Options, Owner, WaitPolicy, providers};
use scoria_runtime::{Deadline, Tasks};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long the service may take to be connected.
const CONNECTED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Peer {
    coordinator: Coordinator,
    held: Arc<Mutex<HashMap<String, LockSet>>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: lock-peer URL")?;
    let coordinator = Coordinator::new(providers::open(&url, &Options::default()).await?);
    let end = Instant::now() + CONNECTED;
    while let Health::Down(why) = coordinator.health() {
        if Instant::now() >= end {
            bail!("{url}: {why}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let features = coordinator.features();
    println!("ready{}{}", if features.shared { " shared" } else { "" }, if features.token { " token" } else { "" });

    let peer = Peer { coordinator, held: Arc::default() };
    let tasks = Tasks::new();
    let mut lines = input();
    while let Some(line) = lines.recv().await {
        let peer = peer.clone();
        drop(tasks.spawn("command", async move {
            let (number, command) = line.split_once(' ').unwrap_or((&line, ""));
            let answer = peer.carry_out(command, number).await.unwrap_or_else(|error| match error {
                Error::Busy { .. } => "busy".to_owned(),
                Error::Lost { .. } => "lost".to_owned(),
                Error::Unsupported(why) => format!("unsupported {why}"),
                other => format!("error {other}"),
            });
            println!("{number} {}", answer.replace('\n', " "));
        }));
    }
    peer.coordinator.close().await;
    Ok(())
}

/// The lines of the input, until its end.
fn input() -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    lines
}

impl Peer {
    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, LockSet>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an acquisition is the handle of what it got.
    async fn carry_out(&self, command: &str, number: &str) -> Result<String, Error> {
        let words: Vec<_> = command.split(' ').collect();
        match words[..] {
            ["acquire", name, mode, wait] => {
                let wait = match wait {
                    "no" => WaitPolicy::No,
                    "ever" => WaitPolicy::Until(Deadline::NEVER),
                    seconds => match seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                        Some(seconds) => WaitPolicy::Until(Deadline::after(seconds)),
                        None => return Ok(format!("error '{seconds}' is no number of seconds")),
                    },
                };
                let request = LockRequest::new(Owner { operation: "lock-peer".to_owned(), ..Owner::default() });
                let request = if mode == "shared" { request.shared(name) } else { request.exclusive(name) };
                let locks = self.coordinator.acquire(request.wait(wait)).await?;
                self.held().insert(number.to_owned(), locks);
                Ok(format!("got {number}"))
            }
            ["release", handle] => {
                let Some(locks) = self.held().remove(handle) else { return Ok("lost".to_owned()) };
                locks.release().await.map(|()| "done".to_owned())
            }
            ["verify", handle] => {
                // Out of the table while it is asked about.
                let Some(locks) = self.held().remove(handle) else { return Ok("lost".to_owned()) };
                let verified = locks.verify().await;
                self.held().insert(handle.to_owned(), locks);
                verified.map(|()| "done".to_owned())
            }
            ["break", name] => {
                let broken = self.coordinator.break_lock(name).await?;
                Ok(if broken { "done" } else { "nobody" }.to_owned())
            }
            _ => Ok(format!("error there is no command '{command}'")),
        }
    }
}
