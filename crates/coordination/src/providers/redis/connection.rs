//! One connection to the server that keeps the locks, found through sentinels where there are any.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo, RedisError, ServerErrorKind};
use scoria_runtime::CancellationToken;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::Error;
use crate::link;

use super::options::{Address, RedisOptions, Servers};
use super::scripts::Scripts;
use super::wakes::Wakes;

/// A connection to a master. Any sign that it is none any more ends the connection.
///
/// It is two: beats and looks go over one of the thread for beats, the requests of callers over one of their own executor.
#[derive(Debug)]
pub(super) struct Connection {
    beats: MultiplexedConnection,
    requests: MultiplexedConnection,
    server: Address,
    sentinels: Option<Sentinels>,
    /// How often to look whether the server is still there and still the master.
    look: Duration,
    /// Whether the server tells us when it is a waiter's turn.
    pub(super) told: bool,
    /// Whether the server knows after a crash what it has told us before.
    pub(super) remembers: bool,
    broken: Broken,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct OpenError {
    /// Nobody listens there: the server is dead.
    pub(super) refused: bool,
    pub(super) error: Error,
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self { refused: false, error }
    }
}

/// Set with the reason once the connection is of no use any more.
#[derive(Debug, Clone, Default)]
struct Broken {
    token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl Broken {
    fn set(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
        self.token.cancel();
    }

    fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_default()
    }
}

impl Connection {
    /// Finds the server, connects, and makes ready what locks need.
    pub(super) async fn open(
        options: &RedisOptions,
        look: Duration,
        scripts: &Scripts,
        wakes: &Arc<Wakes>,
        channel: &str,
        callers: &Handle,
    ) -> Result<Self, OpenError> {
        let sentinels = match &options.servers {
            Servers::One(_) => None,
            Servers::Sentinels { .. } => Some(Sentinels { options: options.clone(), asked: Mutex::default() }),
        };
        let server = match (&options.servers, &sentinels) {
            (Servers::One(server), _) => server.clone(),
            (_, Some(sentinels)) => sentinels.master().await?,
            (Servers::Sentinels { .. }, None) => unreachable!("sentinels were made just now"),
        };
        let failed = |error: RedisError| {
            let refused = error.is_connection_refusal() && matches!(options.servers, Servers::One(_));
            OpenError { refused, error: Error::Unavailable(format!("{server}: {error}")) }
        };
        let broken = Broken::default();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect))
            .set_response_timeout(Some(options.answer));
        let (listening, hung_up) = (wakes.clone(), broken.clone());
        let listener = move |push: PushInfo| {
            match push.kind {
                redis::PushKind::Disconnection => hung_up.set("the server closed the connection"),
                _ => listening.told(&push),
            }
            Ok::<(), ()>(())
        };
        let client = options.client(&server, ProtocolVersion::RESP3)?;
        let listening = config.clone().set_push_sender(listener);
        let (beats, client, config, push) = match client.get_multiplexed_async_connection_with_config(&listening).await
        {
            Ok(beats) => (beats, client, listening, true),
            // Before Redis 6 nobody tells us anything on this connection.
            Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
                let client = options.client(&server, ProtocolVersion::RESP2)?;
                let beats = client.get_multiplexed_async_connection_with_config(&config).await;
                (beats.map_err(failed)?, client, config, false)
            }
            Err(error) => return Err(failed(error)),
        };
        let requests = async move { client.get_multiplexed_async_connection_with_config(&config).await };
        let requests = match tokio::time::timeout(options.connect, callers.spawn(requests)).await {
            Ok(Ok(opened)) => opened.map_err(failed)?,
            // An executor that is too busy for this must not keep beats from beginning.
            _ => beats.clone(),
        };
        let (server, told, remembers) = (server.clone(), false, false);
        let mut opened = Self { beats, requests, server, sentinels, look, told, remembers, broken };
        let info: String = opened.ask(redis::cmd("INFO")).await?;
        opened.suits(&info)?;
        // One that was stopped and replaced meanwhile takes itself for the master when it goes on.
        opened.still_master().await?;
        if info.lines().any(|line| line.trim() == "aof_enabled:1") {
            let mut ask = redis::cmd("CONFIG");
            ask.arg("GET").arg("appendfsync");
            // Without leave to ask it is not sure.
            let told: Option<(String, String)> = opened.ask(ask).await.ok();
            opened.remembers = told.is_some_and(|(_, when)| when == "always");
        }
        scripts.load(&mut opened.beats.clone()).await.map_err(failed)?;
        // Without leave to subscribe (ACL channels) waiters look now and then.
        opened.told = push && opened.requests.subscribe(channel).await.is_ok();
        Ok(opened)
    }

    /// Whether locks can be kept there.
    fn suits(&self, info: &str) -> Result<(), Error> {
        let says = |line: &str| info.lines().any(|said| said.trim() == line);
        let server = &self.server;
        if says("cluster_enabled:1") {
            let remedy = "a Redis Cluster cannot keep locks as tooz does: use one server, or one with sentinels";
            return Err(Error::Unavailable(format!("{server}: {remedy}")));
        }
        if says("role:slave") {
            return Err(Error::Unavailable(format!("{server} is a replica, not the master")));
        }
        Ok(())
    }

    /// Sends one command, which may not have to wait for callers.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, Error> {
        self.beat(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Sends several commands at once, for a caller.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, commands: redis::Pipeline) -> Result<T, Error> {
        self.run(async |mut connection| commands.query_async(&mut connection).await).await
    }

    /// One request of a caller.
    pub(super) async fn run<T>(
        &self,
        request: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        self.over(&self.requests, request).await
    }

    /// One request that keeps locks alive.
    pub(super) async fn beat<T>(
        &self,
        request: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        self.over(&self.beats, request).await
    }

    /// What shows that the connection, or the server, is of no use ends the connection; a request without an answer does: on the
    /// next one we shall see what came of it.
    async fn over<T>(
        &self,
        connection: &MultiplexedConnection,
        request: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let outcome = tokio::select! {
            biased;
            outcome = request(connection.clone()) => outcome,
            () = self.broken.token.cancelled() => return Err(Error::Unavailable(self.broken.reason())),
        };
        outcome.map_err(|error| {
            let text = format!("{}: {error}", self.server);
            if ends_connection(&error) {
                self.broken.set(text.clone());
            }
            Error::Unavailable(text)
        })
    }

    async fn watch_over(&self) -> String {
        loop {
            tokio::time::sleep(self.look).await;
            let mut command = redis::cmd("INFO");
            command.arg("replication");
            // An error that does not break the connection is an answer, too.
            if let Ok(info) = self.ask::<String>(command).await
                && let Err(error) = self.suits(&info)
            {
                return error.to_string();
            }
            if let Err(error) = self.still_master().await {
                return error.to_string();
            }
        }
    }

    /// Whether the sentinels, if there are any and one answers, still name this server.
    async fn still_master(&self) -> Result<(), Error> {
        let (Some(sentinels), server) = (&self.sentinels, &self.server) else { return Ok(()) };
        match sentinels.master().await {
            Ok(master) if master != *server => {
                Err(Error::Unavailable(format!("the sentinels say that {master} is the master, no longer {server}")))
            }
            _ => Ok(()),
        }
    }
}

impl link::Connection for Connection {
    async fn ended(&self) -> String {
        let reason = tokio::select! {
            biased;
            () = self.broken.token.cancelled() => self.broken.reason(),
            reason = self.watch_over() => reason,
        };
        self.broken.set(reason.clone());
        reason
    }
}

/// Whether to connect anew, perhaps to another server.
fn ends_connection(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    let elsewhere = match error.kind() {
        ErrorKind::Server(kind) => matches!(kind, BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly),
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => true,
        _ => error.code() == Some("NOAUTH"),
    };
    elsewhere || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Those who know which server is the master.
#[derive(Debug)]
struct Sentinels {
    options: RedisOptions,
    /// The one that answered last.
    asked: Mutex<Option<(usize, MultiplexedConnection)>>,
}

impl Sentinels {
    /// The address of the master, from the first sentinel that knows it.
    async fn master(&self) -> Result<Address, Error> {
        let Servers::Sentinels { master, sentinels } = &self.options.servers else {
            return Err(Error::Unavailable("there are no sentinels".to_owned()));
        };
        let mut asked = self.asked.lock().await;
        let mut reasons = Vec::new();
        if let Some((at, connection)) = asked.take()
            && let Ok(Some((host, port))) = ask_for(master, &connection).await
        {
            *asked = Some((at, connection));
            return Ok(Address::Tcp(host, port));
        }
        for (at, (host, port)) in sentinels.iter().enumerate() {
            match self.ask(master, host, *port).await {
                Ok((connection, Some((host, port)))) => {
                    *asked = Some((at, connection));
                    return Ok(Address::Tcp(host, port));
                }
                Ok((_, None)) => reasons.push(format!("{host}:{port} does not know it")),
                Err(error) => reasons.push(format!("{host}:{port}: {error}")),
            }
        }
        Err(Error::Unavailable(format!("no sentinel names the master '{master}': {}", reasons.join("; "))))
    }

    async fn ask(
        &self,
        master: &str,
        host: &str,
        port: u16,
    ) -> Result<(MultiplexedConnection, Option<(String, u16)>), Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect))
            .set_response_timeout(Some(self.options.answer));
        let client = self.options.sentinel_client(host, port)?;
        let failed = |error: RedisError| Error::Unavailable(error.to_string());
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
        let answer = ask_for(master, &connection).await.map_err(failed)?;
        Ok((connection, answer))
    }
}

async fn ask_for(master: &str, connection: &MultiplexedConnection) -> Result<Option<(String, u16)>, RedisError> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    command.query_async(&mut connection.clone()).await
}
