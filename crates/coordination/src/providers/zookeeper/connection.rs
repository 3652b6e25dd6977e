//! One ZooKeeper session: made, confirmed, and told lost before the servers can give its locks away.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;
use zookeeper_client::{Acls, Client, CreateMode, Error as ZkError, MultiWriteError, SessionState};

use super::settings::Settings;
use crate::lease::Lease;
use crate::link::Connection;
use crate::{Error, Health, metrics};

/// A beat comes at least so often in a session timeout. A follower tells the leader of its sessions every half tick, and a
/// timeout is at least two ticks: a quarter and a twelfth of it are the third that [`good_for`] leaves.
const BEATS_IN_A_TIMEOUT: u32 = 12;

/// To lose nothing while the servers elect a leader: the client waits twice as long after each round through its list of hosts,
/// soon for longer than a session is good for. A list with so many entries makes a round long and the waits short.
const TRIES: usize = 12;
/// What to do about a refusal.
pub(super) const NO_AUTH: &str = "it refuses access to nodes that were made with another user and password: write the same ones \
                                  into backend_url as for the Python services";

/// How long after a confirmed beat was sent the session counts as ours: the servers' timeout without a third.
fn good_for(timeout: Duration) -> Duration {
    timeout * 2 / 3
}

/// A session. When the last reference goes it is closed at the servers too.
#[derive(Debug)]
pub(super) struct ZooKeeper {
    pub(super) client: Client,
    /// Rises with each session of this process.
    pub(super) generation: u64,
    pub(super) lease: Lease,
    /// How long any request may take; also how long the session is good for after a beat.
    pub(super) limit: Duration,
    interval: Duration,
    locks: String,
}

impl ZooKeeper {
    /// Makes a session and the node that holds the locks, and has both confirmed.
    pub(super) async fn connect(settings: &Settings, heartbeat: Duration, generation: u64) -> Result<Self, Error> {
        let Settings { hosts, timeout, locks, auth, acl, tls, .. } = settings;
        let list = vec![hosts.join(","); TRIES.div_ceil(hosts.len())].join(",");
        let hosts = hosts.join(",");
        let mut connector = Client::connector()
            .with_session_timeout(*timeout)
            .with_connection_timeout(*timeout / 5)
            .with_fail_eagerly();
        if let Some(auth) = auth {
            connector = connector.with_auth("digest", auth.0.as_bytes());
        }
        let connecting = async {
            match tls {
                Some(tls) => connector.with_tls(tls.clone()).secure_connect(&list).await,
                None => connector.connect(&list).await,
            }
        };
        let unavailable = |why: &dyn std::fmt::Display| Error::Unavailable(format!("ZooKeeper at {hosts}: {why}"));
        let client = connecting.await.map_err(|error| match error {
            ZkError::NoHosts => unavailable(&"no server answers"),
            other => unavailable(&other),
        })?;
        let negotiated = client.session_timeout();
        if negotiated != *timeout {
            tracing::info!(asked = ?timeout, ?negotiated, "ZooKeeper's servers set another session timeout");
        }
        let limit = good_for(negotiated);
        let made = async {
            match client.check_stat(locks).await? {
                Some(_) => Ok(()),
                None => client.mkdir(locks, &CreateMode::Persistent.with_acls(Acls::from(&acl[..]))).await,
            }
        };
        let made = tokio::time::timeout(limit, made).await.map_err(|_| unavailable(&"no answer"))?;
        made.map_err(|error| match error {
            ZkError::NoAuth => unavailable(&NO_AUTH),
            other => unavailable(&other),
        })?;
        let interval = heartbeat.min(negotiated / BEATS_IN_A_TIMEOUT);
        let (sent, locks) = (Instant::now(), locks.clone());
        let session = Self { client, generation, lease: Lease::until(sent + limit), limit, interval, locks };
        if !session.beat().await {
            return Err(unavailable(&"the new session is not confirmed"));
        }
        Ok(session)
    }

    /// Asks the servers to agree on something that changes nothing. A read would not do: a follower goes on answering those for
    /// a while after the leader, or all the others, have given it up together with its sessions.
    async fn beat(&self) -> bool {
        let sent = Instant::now();
        let mut nothing = self.client.new_multi_writer();
        let answered = async {
            nothing.add_check_version(&self.locks, -1)?;
            match nothing.commit().await {
                // They agreed that the node is not there: also an answer.
                Ok(_) | Err(MultiWriteError::OperationFailed { .. }) => Ok(()),
                Err(MultiWriteError::RequestFailed { source }) => Err(source),
            }
        };
        match tokio::time::timeout(self.limit, answered).await {
            Ok(Ok(())) => self.lease.renew(sent + self.limit),
            Ok(Err(error)) => {
                tracing::debug!(%error, "ZooKeeper does not confirm the session");
                false
            }
            Err(_) => false,
        }
    }

    async fn beats(&self) -> Infallible {
        loop {
            let next = Instant::now() + self.interval;
            if self.beat().await {
                tokio::time::sleep_until(next).await;
            } else {
                // Queued at once while there is no connection, and sent as the first thing when there is one again.
                tokio::time::sleep(self.interval / 4).await;
            }
        }
    }

    /// Once the client has given the session up. Until then it connects again by itself, which is counted.
    async fn terminated(&self) -> SessionState {
        let mut states = self.client.state_watcher();
        let mut state = states.state();
        while !state.is_terminated() {
            state = states.changed().await;
            if state == SessionState::SyncConnected {
                metrics::reconnected("zookeeper");
            }
        }
        state
    }

    /// Up, unless the connection is being made again.
    pub(super) fn health(&self) -> Health {
        match self.client.state() {
            SessionState::SyncConnected => Health::Up,
            other => Health::Down(format!("ZooKeeper: {other}")),
        }
    }
}

impl Connection for ZooKeeper {
    async fn ended(&self) -> String {
        tokio::select! {
            biased;
            state = self.terminated() => self.lease.lose(format!("ZooKeeper ended the session: {state}")),
            () = self.lease.expired() => {}
            never = self.beats() => match never {},
        }
        self.lease.reason().to_owned()
    }
}
