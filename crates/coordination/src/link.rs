//! The connection to a lock service, kept up for ever.

use std::fmt::Debug;
use std::sync::Arc;

use scoria_runtime::{Backoff, CancellationToken};
use tokio::sync::watch;

use crate::{Error, Health, Options, WaitPolicy, metrics};

/// A connection that can end.
pub(crate) trait Connection: Debug + Send + Sync + 'static {
    /// Resolves with the reason once it is of no use any more.
    fn ended(&self) -> impl Future<Output = String> + Send;
}

/// The current connection, or none: one supervisor makes it anew for ever, users take it when it is there.
#[derive(Debug)]
pub(crate) struct Link<C> {
    kind: &'static str,
    state: watch::Sender<State<C>>,
}

#[derive(Debug)]
enum State<C> {
    Down(String),
    Up(Arc<C>),
}

impl<C: Connection> Link<C> {
    /// Not connected yet.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, state: watch::Sender::new(State::Down("not connected yet".to_owned())) }
    }

    /// Whether there is a connection.
    pub(crate) fn health(&self) -> Health {
        match &*self.state.borrow() {
            State::Up(_) => Health::Up,
            State::Down(why) => Health::Down(why.clone()),
        }
    }

    /// The connection.
    pub(crate) fn current(&self) -> Result<Arc<C>, Error> {
        match &*self.state.borrow() {
            State::Up(connection) => Ok(connection.clone()),
            State::Down(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// The connection, once there is one and if one may wait for it.
    pub(crate) async fn ready(&self, wait: WaitPolicy) -> Result<Arc<C>, Error> {
        let WaitPolicy::Until(deadline) = wait else { return self.current() };
        let mut state = self.state.subscribe();
        tokio::select! {
            biased;
            _ = state.wait_for(|state| matches!(state, State::Up(_))) => {}
            () = deadline.wait() => {}
        }
        self.current()
    }

    /// Connects, waits for the end of the connection, connects again; until `stop`. The waits between tries are decorrelated
    /// jitter between `initial_reconnect_backoff` and `max_reconnect_backoff`.
    pub(crate) async fn supervise<F>(&self, options: &Options, stop: CancellationToken, connect: impl Fn() -> F)
    where
        F: Future<Output = Result<C, Error>>,
    {
        let supervised = async {
            let mut backoff = Backoff::new(options.initial_reconnect_backoff, options.max_reconnect_backoff);
            let mut again = false;
            let mut attempt = 0_u32;
            loop {
                match connect().await {
                    Ok(connection) => {
                        if again {
                            metrics::reconnected(self.kind);
                        }
                        // The Python services say so of a first connection that took several tries too.
                        if again || attempt > 0 {
                            tracing::info!("Reconnected to coordination backend.");
                        }
                        (attempt, again) = (0, true);
                        backoff.reset();
                        let connection = Arc::new(connection);
                        self.state.send_replace(State::Up(connection.clone()));
                        let why = connection.ended().await;
                        tracing::warn!(backend = self.kind, reason = why, "connection to the lock service ended");
                        self.state.send_replace(State::Down(why));
                        tracing::info!("Reconnecting to coordination backend.");
                    }
                    Err(error) => {
                        attempt += 1;
                        let wait = backoff.next_wait();
                        tracing::warn!(
                            %error,
                            "Reconnect attempt {attempt} failed. Next try in {:.2}s.",
                            wait.as_secs_f64()
                        );
                        let why = match error {
                            Error::Unavailable(why) => why,
                            other => other.to_string(),
                        };
                        self.state.send_replace(State::Down(why));
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = supervised => {}
        }
        self.state.send_replace(State::Down("closed".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use scoria_runtime::{Deadline, Tasks};

    use super::*;

    #[derive(Debug)]
    struct Fragile(CancellationToken);

    impl Connection for Fragile {
        async fn ended(&self) -> String {
            self.0.cancelled().await;
            "cut".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_made_anew_until_it_is_stopped() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _measured = ::metrics::set_default_local_recorder(&recorder);
        let reconnects = || {
            let text = recorder.handle().render();
            let count =
                text.lines().find_map(|line| line.strip_prefix("scoria_lock_reconnects_total{backend=\"test\"} "));
            count.map(str::to_owned)
        };
        let link = Arc::new(Link::<Fragile>::new("test"));
        let (tries, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        assert!(link.ready(WaitPolicy::No).await.is_err());
        let (supervised, tried, stopped) = (link.clone(), tries.clone(), stop.clone());
        let supervisor = Tasks::new().spawn("supervise", async move {
            let connect = || {
                let third = tried.fetch_add(1, Ordering::SeqCst) % 3 == 2;
                let connected = third.then(|| Fragile(CancellationToken::new()));
                std::future::ready(connected.ok_or_else(|| Error::Unavailable("refused".to_owned())))
            };
            supervised.supervise(&Options::default(), stopped, connect).await;
        });
        let wait = WaitPolicy::Until(Deadline::after(Duration::from_secs(100)));
        let first = link.ready(wait).await.unwrap();
        assert_eq!((link.health(), tries.load(Ordering::SeqCst)), (Health::Up, 3));
        assert_eq!(reconnects(), None, "a first connection is none that was lost");
        first.0.cancel();
        tokio::task::yield_now().await;
        assert!(matches!(link.current(), Err(Error::Unavailable(_))));
        let second = link.ready(wait).await.unwrap();
        assert!(!second.0.is_cancelled());
        assert_eq!(reconnects().as_deref(), Some("1"));
        stop.cancel();
        supervisor.await.unwrap();
        assert_eq!(link.health(), Health::Down("closed".to_owned()));
    }
}
