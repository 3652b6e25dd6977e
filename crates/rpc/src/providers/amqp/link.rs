//! A connection that is opened again, for ever, whenever it ends.
//!
//! lapin's own recovery is off: with it a lost connection is invisible and a message comes a second time while its first
//! handler still runs. Here each connection has a generation, and what belongs to a dead one can tell.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use rand::Rng;
use rand::seq::SliceRandom;
use scoria_runtime::{CancellationToken, Deadline, Tasks};
use tokio::sync::watch;

use super::connection::{self, Access, Socket};
use super::options::{BrokerHost, Failover};
use crate::{Error, Health};

/// How long the broker may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A lost connection is reported by an event; this is for the case that the event is missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts connections over the whole process.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// One open connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Which connection of this process it is.
    pub(super) generation: u64,
    /// Cancelled as soon as the connection is known to be dead.
    pub(super) lost: CancellationToken,
    /// Why the broker takes nothing from us at the moment (memory or disk alarm).
    blocked: watch::Sender<Option<String>>,
    socket: Socket,
}

#[derive(Debug, Clone)]
enum State {
    Down(String),
    Up(Arc<Live>),
    Closed,
}

/// The supervised connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    purpose: &'static str,
    state: watch::Receiver<State>,
}

impl Live {
    /// Waits until the broker takes messages; ends with the connection.
    pub(super) async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        tokio::select! {
            _ = blocked.wait_for(Option::is_none) => {}
            () = self.lost.cancelled() => {}
        }
    }
}

impl Link {
    /// Starts connecting, in the background.
    pub(super) fn start(tasks: &Tasks, purpose: &'static str, hosts: &[BrokerHost], access: Arc<Access>) -> Self {
        let (sender, state) = watch::channel(State::Down("not yet connected".to_owned()));
        let supervisor = Supervisor {
            purpose,
            hosts: Hosts::new(hosts, access.rabbit.kombu_failover_strategy),
            access,
            state: sender,
        };
        tasks.spawn(purpose, supervisor.run(tasks.stop_token()));
        Self { purpose, state }
    }

    /// The open connection, waited for.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(super) async fn live(&self) -> Result<Arc<Live>, Error> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Down(_))).await;
        match state.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            _ => Err(Error::Closed),
        }
    }

    /// How it is.
    pub(super) fn health(&self) -> Health {
        match &*self.state.borrow() {
            State::Up(live) => match &*live.blocked.borrow() {
                Some(reason) => Health::Down(format!("the broker blocks publishers: {reason}")),
                None => Health::Up,
            },
            State::Down(reason) => Health::Down(format!("{} connection: {reason}", self.purpose)),
            State::Closed => Health::Down("shutting down".to_owned()),
        }
    }
}

/// The brokers, in the order in which they are tried.
#[derive(Debug)]
struct Hosts {
    hosts: VecDeque<BrokerHost>,
    strategy: Failover,
}

impl Hosts {
    /// Shuffled, so that a cloud spreads over its brokers.
    fn new(hosts: &[BrokerHost], strategy: Failover) -> Self {
        let mut hosts = if hosts.is_empty() { vec![BrokerHost::default()] } else { hosts.to_vec() };
        hosts.shuffle(&mut rand::rng());
        Self { hosts: hosts.into(), strategy }
    }

    fn next(&mut self) -> BrokerHost {
        match self.strategy {
            Failover::RoundRobin => self.hosts.rotate_left(1),
            Failover::Shuffle => self.hosts.make_contiguous().shuffle(&mut rand::rng()),
        }
        self.hosts.back().cloned().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Supervisor {
    purpose: &'static str,
    hosts: Hosts,
    access: Arc<Access>,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut first = true;
        while let Some((host, live)) = stop.run_until_cancelled(self.connect()).await {
            let generation = live.generation;
            tracing::info!(purpose = self.purpose, %host, generation, "connected to the broker");
            if !std::mem::take(&mut first) {
                metrics::counter!("scoria_rpc_reconnects_total", "connection" => self.purpose).increment(1);
            }
            metrics::gauge!("scoria_rpc_connected", "connection" => self.purpose).set(1.0);
            self.state.send_replace(State::Up(live.clone()));

            let reason = watch_over(&live, self.purpose, &stop).await;
            live.lost.cancel();
            metrics::gauge!("scoria_rpc_connected", "connection" => self.purpose).set(0.0);
            let Some(reason) = reason else {
                let goodbye = live.connection.close(200, "OK".into());
                // A blocked or hung broker does not answer; the socket is closed all the same.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
                live.socket.cut();
                break;
            };
            live.socket.cut();
            tracing::warn!(purpose = self.purpose, %host, generation, reason, "connection to the broker lost");
            self.state.send_replace(State::Down(reason));
            let splay = self.access.rabbit.kombu_reconnect_splay.mul_f64(rand::rng().random());
            let pause = tokio::time::sleep(self.access.rabbit.kombu_reconnect_delay + splay);
            if stop.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        self.state.send_replace(State::Closed);
    }

    /// Tries each broker once, then waits, longer each time.
    async fn connect(&mut self) -> (BrokerHost, Arc<Live>) {
        let rabbit = &self.access.rabbit;
        let mut wait = rabbit.rabbit_retry_interval;
        loop {
            for _ in 0..self.hosts.hosts.len() {
                let host = self.hosts.next();
                match connection::open(&host, &self.access).await {
                    Ok((connection, socket)) => {
                        let generation = GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
                        let (blocked, lost) = (watch::Sender::new(None), CancellationToken::new());
                        return (host, Arc::new(Live { connection, generation, lost, blocked, socket }));
                    }
                    Err(reason) => {
                        tracing::warn!(purpose = self.purpose, reason, "cannot connect to the broker");
                        self.state.send_replace(State::Down(reason));
                    }
                }
            }
            tracing::info!(purpose = self.purpose, "no broker can be reached: trying again in {wait:?}");
            tokio::time::sleep(wait).await;
            wait =
                (wait + rabbit.rabbit_retry_backoff).min(rabbit.rabbit_interval_max.max(rabbit.rabbit_retry_interval));
        }
    }
}

/// Returns when the connection has died, with the reason, or `None` when we are to stop.
async fn watch_over(live: &Live, purpose: &'static str, stop: &CancellationToken) -> Option<String> {
    let mut events = std::pin::pin!(live.connection.events_listener());
    let mut reason = None;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return None,
            event = events.next() => event,
            () = tokio::time::sleep(CHECK_INTERVAL) => None,
        };
        match event {
            Some(Event::ConnectionBlocked(text)) => {
                tracing::warn!(purpose, reason = text, "the broker blocks publishers (memory or disk alarm)");
                live.blocked.send_replace(Some(text));
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!(purpose, "the broker takes messages again");
                live.blocked.send_replace(None);
            }
            // Channels that were closed are reported here too; then the connection goes on.
            Some(Event::Error(error)) => reason = Some(error.to_string()),
            _ => {}
        }
        if !live.connection.status().connected() {
            return Some(reason.unwrap_or_else(|| "connection closed".to_owned()));
        }
    }
}

/// Waits between tries of one thing on a connection that stands: as between connections, but starting afresh each time.
#[derive(Debug)]
pub(super) struct Retry {
    next: Duration,
    access: Arc<Access>,
}

impl Retry {
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self { next: access.rabbit.rabbit_retry_interval, access }
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Deadline {
        let now = self.next;
        self.next = (now + self.access.rabbit.rabbit_retry_backoff).min(self.access.rabbit.rabbit_interval_max);
        Deadline::after(now)
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.next = self.access.rabbit.rabbit_retry_interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_in_turn_from_a_random_start() {
        let hosts: Vec<_> = (0..5).map(|n| BrokerHost::new(&format!("h{n}"), 5672, "u", "p")).collect();
        let mut turn = Hosts::new(&hosts, Failover::RoundRobin);
        let first: Vec<_> = (0..5).map(|_| turn.next().host).collect();
        let second: Vec<_> = (0..5).map(|_| turn.next().host).collect();
        assert_eq!(first, second);
        let mut sorted = first;
        sorted.sort();
        assert_eq!(sorted, ["h0", "h1", "h2", "h3", "h4"]);
        assert_eq!(Hosts::new(&[], Failover::Shuffle).next().to_string(), "localhost:5672");
    }
}
