//! etcd's members, asked by gRPC.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::settings::Settings;
use super::wire::{
    AuthenticateRequest, Call, Compare, DeleteRequest, Header, Lease, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, Operation, Range, RangeRequest, Txn, TxnRequest, WatchRequest, Watched,
};
use crate::Error;

/// Requests to whichever endpoint answers. Clones share the connections, one to each endpoint.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    settings: Arc<Settings>,
    /// Drives the connections.
    executor: Handle,
    connections: Arc<[Mutex<Connection>]>,
    current: Arc<watch::Sender<Current>>,
    token: Arc<Mutex<Option<AsciiMetadataValue>>>,
}

/// Opened by the first request, and again by the first after it broke.
#[derive(Debug, Clone)]
struct Connection {
    /// Rises when it is given up for another one.
    number: u64,
    channel: Channel,
}

/// Whom to ask.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Current {
    /// Of the endpoint that is asked first.
    index: usize,
    /// How many connections were given up because no answers came.
    given_up: u64,
}

/// Why there is no answer, and what that says of the request.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not done: it could not be sent, or etcd refused it.
    NotDone(String),
    /// The lease it names is not there, so it was not done.
    NoLease,
    /// Nobody knows.
    Unknown(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDone(why) | Failure::Unknown(why) => Self::Unavailable(why),
            Failure::NoLease => Self::Unavailable("etcd has ended our lease".to_owned()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotDone(why) | Self::Unknown(why) => f.write_str(why),
            Self::NoLease => f.write_str("the lease is not there"),
        }
    }
}

/// What one endpoint had to say.
enum Fault {
    /// The request did not get there.
    Unreached(String),
    /// etcd has not done it and says why.
    Refused(Status),
    /// It got there, and nobody knows what became of it.
    Unanswered(String),
}

impl Fault {
    fn why(self) -> String {
        match self {
            Self::Unreached(why) | Self::Unanswered(why) => why,
            Self::Refused(status) => status.message().to_owned(),
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        /// It may have been done all the same.
        const UNSURE: [Code; 7] = [
            Code::Cancelled,
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
        ];
        const NO_HTTP2: &str = ": it does not speak HTTP/2, which gRPC goes over; let the load balancer hand on TCP connections as they are";
        if causes(&status).any(|cause| cause.is::<ConnectError>()) {
            Self::Unreached(said(status.message(), &status))
        } else if UNSURE.contains(&status.code()) || status.source().is_some() {
            let why = said(status.message(), &status);
            // "HTTP", as HTTP/1.1 answers, would be the length of a frame.
            let hint = if why.contains("frame with invalid size") { NO_HTTP2 } else { "" };
            Self::Unanswered(why + hint)
        } else {
            Self::Refused(status)
        }
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause| (**cause).source())
}

/// What an error says, and what was at the bottom of it: the layers between only repeat it.
pub(super) fn said(outer: &str, error: &(dyn StdError + 'static)) -> String {
    match causes(error).last().map(ToString::to_string) {
        Some(inner) if !outer.contains(&inner) => format!("{outer}: {inner}"),
        _ => outer.to_owned(),
    }
}

impl Endpoints {
    /// Nothing is sent yet. `executor` is going to drive the connections.
    pub(super) fn new(settings: Arc<Settings>, executor: &Handle) -> Self {
        let connections = connections(&settings, executor);
        let executor = executor.clone();
        Self { settings, executor, connections, current: Arc::default(), token: Arc::default() }
    }

    /// The same endpoints over connections of its own, for another executor: beats must not wait for one that is busy.
    pub(super) fn with_own_connections(&self, executor: &Handle) -> Self {
        let connections = connections(&self.settings, executor);
        Self { connections, executor: executor.clone(), ..self.clone() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.connections.len()
    }

    /// The one that is asked first.
    pub(super) fn first(&self) -> usize {
        self.current.borrow().index
    }

    /// Tells when another one is asked first, or over another connection.
    pub(super) fn changes(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// Asks this endpoint first from now on.
    pub(super) fn prefer(&self, index: usize) {
        self.current.send_if_modified(|current| {
            let another = current.index != index;
            current.index = index;
            if another {
                let endpoint = &self.settings.endpoints[index];
                tracing::info!(endpoint, "another etcd endpoint is asked from now on");
            }
            another
        });
    }

    /// Asks another endpoint than this one first from now on.
    fn avoid(&self, index: usize) {
        if self.first() == index {
            self.prefer((index + 1) % self.count());
        }
    }

    fn connection(&self, index: usize) -> MutexGuard<'_, Connection> {
        self.connections[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks an endpoint over a new connection from now on: no answers come over this one, and nothing says that it is dead. What
    /// is under way on it goes on there.
    pub(super) fn reconnect(&self, index: usize) {
        let number = self.connection(index).number;
        self.give_up(index, number);
    }

    fn give_up(&self, index: usize, number: u64) {
        let mut connection = self.connection(index);
        if connection.number == number {
            *connection = Connection { number: number + 1, channel: self.settings.channel(index, &self.executor) };
            drop(connection);
            self.current.send_modify(|current| current.given_up += 1);
        }
    }

    /// One transaction.
    pub(super) async fn txn(
        &self,
        compare: &[Compare],
        success: &[Operation],
        failure: &[Operation],
    ) -> Result<Txn, Failure> {
        let (compare, success, failure) = (compare.to_vec(), success.to_vec(), failure.to_vec());
        self.ask(&TxnRequest { compare, success, failure }).await
    }

    /// Reads all keys that begin with `prefix`.
    pub(super) async fn range_of(&self, prefix: &str) -> Result<Range, Failure> {
        self.ask(&RangeRequest::of(prefix)).await
    }

    /// Whether a key is there.
    pub(super) async fn exists(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.ask(&RangeRequest::count(key)).await?.count > 0)
    }

    /// Removes a key. Whether it was there.
    pub(super) async fn delete(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.ask(&DeleteRequest::one(key)).await?.deleted > 0)
    }

    /// Makes a lease with an id of our choice. How long it lives.
    pub(super) async fn grant(&self, lease: i64, time_to_live: Duration) -> Result<Duration, Failure> {
        let ttl = time_to_live.as_secs().cast_signed();
        Ok(seconds(&self.ask(&LeaseGrantRequest { ttl, id: lease }).await?))
    }

    /// Ends a lease, with every key that goes with it. Good as well when there is none.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Failure> {
        match self.ask(&LeaseRevokeRequest { id: lease }).await {
            Ok(_) | Err(Failure::NoLease) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Extends a lease by way of one endpoint, whichever is current. `None` when it is not there.
    ///
    /// A leader that was replaced and does not know it yet goes on extending leases, in its own memory
    /// (`etcdserver/v3_server.go: LeaseRenew`), while its successor lets them end. A read, for which a leader has to ask the
    /// majority, proves afterwards that it still led: of a key that we may read.
    pub(super) async fn keep_alive(&self, lease: i64, key: &str, index: usize) -> Result<Option<Duration>, String> {
        let term = |header: &Option<Header>| header.as_ref().map(|header| header.raft_term);
        let extended = self.once(index, &LeaseKeepAliveRequest { id: lease }).await.map_err(Fault::why)?;
        let proof = self.once(index, &RangeRequest::count(key)).await.map_err(Fault::why)?;
        if term(&proof.header) != term(&extended.header) {
            return Err("the leader changed while the lease was extended".to_owned());
        }
        Ok((extended.ttl > 0).then(|| seconds(&extended)))
    }

    /// Follows the removal of keys that begin with `prefix`, from a revision on or (0) from now on.
    pub(super) async fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Failure> {
        let index = self.first();
        let Connection { number, channel } = self.connection(index).clone();
        // The stream lasts as long as our side of it is open.
        let said = stream::iter([WatchRequest::removals_of(prefix, from)]).chain(stream::pending());
        let mut request = self.request(said);
        // A member that has lost touch with the others would stay silent for ever: let it end the stream instead.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opened = async {
            let mut grpc = ready(channel).await?;
            grpc.streaming(request, method::<WatchRequest>(), codec::<WatchRequest>()).await
        };
        match tokio::time::timeout(self.settings.timeout, opened).await {
            Ok(Ok(stream)) => Ok(Watch(stream.into_inner())),
            Ok(Err(status)) => {
                self.avoid(index);
                Err(self.failure(index, status.into()))
            }
            Err(_) => {
                self.give_up(index, number);
                self.avoid(index);
                Err(self.failure(index, late()))
            }
        }
    }

    /// Asks the current endpoint, and the others as long as the request does not get there.
    async fn ask<C: Call>(&self, message: &C) -> Result<C::Answer, Failure> {
        let first = self.first();
        let mut index = first;
        loop {
            let fault = match self.once(index, message).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if !matches!(fault, Fault::Refused(_)) {
                self.avoid(index);
            }
            let next = (index + 1) % self.count();
            if !matches!(fault, Fault::Unreached(_)) || next == first {
                return Err(self.failure(index, fault));
            }
            index = next;
        }
    }

    fn failure(&self, index: usize, fault: Fault) -> Failure {
        let at = |why: &str| format!("etcd at {}: {why}", self.settings.endpoints[index]);
        match fault {
            Fault::Unreached(why) => Failure::NotDone(at(&why)),
            Fault::Unanswered(why) => Failure::Unknown(at(&why)),
            Fault::Refused(status) if status.message().contains("lease not found") => Failure::NoLease,
            Fault::Refused(status) => Failure::NotDone(at(status.message())),
        }
    }

    /// Asks one endpoint; with a new token when the old one is not good any more.
    async fn once<C: Call>(&self, index: usize, message: &C) -> Result<C::Answer, Fault> {
        let Connection { number, channel } = self.connection(index).clone();
        let asked = async {
            match self.attempt(channel.clone(), message).await {
                Err(Fault::Refused(status)) if self.settings.user.is_some() && is_of_token(&status) => {
                    self.log_in(channel.clone()).await?;
                    self.attempt(channel, message).await
                }
                other => other,
            }
        };
        match tokio::time::timeout(self.settings.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                self.give_up(index, number);
                Err(late())
            }
        }
    }

    async fn attempt<C: Call>(&self, channel: Channel, message: &C) -> Result<C::Answer, Fault> {
        let mut grpc = ready(channel).await?;
        let answer = grpc.unary(self.request(message.clone()), method::<C>(), codec::<C>()).await;
        Ok(answer.map(Response::into_inner)?)
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = self.token().clone() {
            // `etcdserver/api/v3rpc/rpctypes/metadatafields.go`
            request.metadata_mut().insert("token", token);
        }
        request
    }

    fn token(&self) -> MutexGuard<'_, Option<AsciiMetadataValue>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self, channel: Channel) -> Result<(), Fault> {
        let Some((name, password)) = self.settings.user.clone() else { return Ok(()) };
        self.token().take();
        let answer = self.attempt(channel, &AuthenticateRequest { name, password }).await?;
        let token = answer.token.parse();
        *self.token() = Some(token.map_err(|_| Fault::Unanswered("a token that is not text".to_owned()))?);
        Ok(())
    }
}

fn connections(settings: &Settings, executor: &Handle) -> Arc<[Mutex<Connection>]> {
    let connection = |index| Mutex::new(Connection { number: 0, channel: settings.channel(index, executor) });
    (0..settings.endpoints.len()).map(connection).collect()
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    // An answer may list thousands of locks.
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

fn method<C: Call>() -> PathAndQuery {
    PathAndQuery::from_static(C::METHOD)
}

fn codec<C: Call>() -> ProstCodec<C, C::Answer> {
    ProstCodec::default()
}

fn late() -> Fault {
    Fault::Unanswered("no answer in time".to_owned())
}

/// Whether the request failed for want of a good token (`etcdserver/api/v3rpc/rpctypes`).
fn is_of_token(status: &Status) -> bool {
    let told = |what| status.message().contains(what);
    status.code() == Code::Unauthenticated || told("user name is empty") || told("revision of auth store is old")
}

fn seconds(lease: &Lease) -> Duration {
    Duration::from_secs(lease.ttl.unsigned_abs())
}

/// A stream of removals.
#[derive(Debug)]
pub(super) struct Watch(Streaming<Watched>);

impl Watch {
    /// The next message; an error when the stream has ended. May be dropped half-way.
    pub(super) async fn next(&mut self) -> Result<Watched, String> {
        match self.0.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err("the stream has ended".to_owned()),
            Err(status) => Err(Fault::from(status).why()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_source(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Status {
        Status::from_error(error.into())
    }

    #[test]
    fn what_an_error_says_of_the_request() {
        let refused = std::io::Error::from_raw_os_error(111);
        let unreached = with_source(ConnectError(Box::new(refused)));
        assert!(matches!(Fault::from(unreached), Fault::Unreached(why) if why.contains("Connection refused")));
        let broken = with_source(std::io::Error::other("cut"));
        assert!(matches!(Fault::from(broken), Fault::Unanswered(why) if why.contains("cut")));
        let unsure = Status::unavailable("etcdserver: request timed out");
        assert!(matches!(Fault::from(unsure), Fault::Unanswered(_)));
        let refused = Status::not_found("etcdserver: requested lease not found");
        assert!(matches!(Fault::from(refused), Fault::Refused(_)));
    }
}
