//! etcd's HTTP/JSON gateway.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::settings::{Settings, with_causes};
use super::wire::{Granted, Range, Refusal, Streamed, Txn, Watched, encoded, end_of};
use crate::Error;

/// How many requests may be under way at once: each takes a connection of its own meanwhile, HTTP/1.1 being what it is.
const AT_ONCE: usize = 64;

/// Requests to whichever endpoint answers. Clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    settings: Arc<Settings>,
    http: Client,
    /// Index of the endpoint that is asked first.
    current: Arc<watch::Sender<usize>>,
    token: Arc<Mutex<Option<String>>>,
    places: Arc<Semaphore>,
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
    /// etcd answered with an error.
    Refused(Refusal),
    /// It got there and has no answer.
    Unanswered(String),
}

/// gRPC's codes (`google.golang.org/grpc/codes`).
mod code {
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const UNAUTHENTICATED: u32 = 16;
    /// Canceled, unknown, deadline exceeded, aborted, internal, unavailable, data loss: it may have been done all the same.
    pub(super) const UNSURE: [u32; 7] = [1, 2, 4, 10, 13, 14, 15];
}

impl Gateway {
    /// Nothing is sent yet.
    pub(super) fn new(settings: Arc<Settings>) -> Result<Self, Error> {
        let http = settings.client()?;
        let (current, places) = (Arc::new(watch::Sender::new(0)), Arc::new(Semaphore::new(AT_ONCE)));
        Ok(Self { settings, http, current, token: Arc::default(), places })
    }

    /// The same endpoints over connections of its own, for another executor: a connection is driven by the executor that
    /// opened it, and beats must not wait for one that is busy.
    pub(super) fn with_own_connections(&self) -> Result<Self, Error> {
        let (http, places) = (self.settings.client()?, Arc::new(Semaphore::new(AT_ONCE)));
        Ok(Self { http, places, ..self.clone() })
    }

    /// How many endpoints there are.
    pub(super) fn endpoints(&self) -> usize {
        self.settings.endpoints.len()
    }

    /// The endpoint that is asked first, and its changes.
    pub(super) fn current(&self) -> watch::Receiver<usize> {
        self.current.subscribe()
    }

    /// Asks this endpoint first from now on.
    pub(super) fn prefer(&self, index: usize) {
        self.change(|current| *current = index);
    }

    /// Asks another endpoint than this one first from now on.
    fn avoid(&self, index: usize) {
        self.change(|current| {
            if *current == index {
                *current = (index + 1) % self.endpoints();
            }
        });
    }

    fn change(&self, change: impl Fn(&mut usize)) {
        self.current.send_if_modified(|current| {
            let before = *current;
            change(current);
            if *current != before {
                tracing::info!(
                    endpoint = self.settings.endpoints[*current],
                    "another etcd endpoint is asked from now on"
                );
            }
            *current != before
        });
    }

    /// One transaction.
    pub(super) async fn txn(&self, compare: &[Value], success: &[Value], failure: &[Value]) -> Result<Txn, Failure> {
        self.ask("kv/txn", &json!({ "compare": compare, "success": success, "failure": failure })).await
    }

    /// Reads all keys that begin with `prefix`.
    pub(super) async fn range_of(&self, prefix: &str) -> Result<Range, Failure> {
        self.ask("kv/range", &json!({ "key": encoded(prefix), "range_end": encoded(end_of(prefix)) })).await
    }

    /// Whether a key is there.
    pub(super) async fn exists(&self, key: &str) -> Result<bool, Failure> {
        let found: Range = self.ask("kv/range", &json!({ "key": encoded(key), "count_only": true })).await?;
        Ok(found.count > 0)
    }

    /// Makes a lease with an id of our choice. How long it lives.
    pub(super) async fn grant(&self, lease: i64, time_to_live: Duration) -> Result<Duration, Failure> {
        let body = json!({ "ID": lease.to_string(), "TTL": time_to_live.as_secs().to_string() });
        Ok(seconds(&self.ask::<Granted>("lease/grant", &body).await?))
    }

    /// Ends a lease, with every key that goes with it. Good as well when there is none.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Failure> {
        match self.ask::<serde::de::IgnoredAny>("lease/revoke", &json!({ "ID": lease.to_string() })).await {
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
        let failed = |fault| match fault {
            Fault::Unreached(why) | Fault::Unanswered(why) => why,
            Fault::Refused(refusal) => refusal.message,
        };
        let body = json!({ "ID": lease.to_string() });
        let extended = match self.once::<Streamed<Granted>>(index, "lease/keepalive", &body).await.map_err(failed)? {
            Streamed::Result(granted) => granted,
            Streamed::Error(refusal) => return Err(refusal.message),
        };
        let read = json!({ "key": encoded(key), "count_only": true });
        let proof = self.once::<Range>(index, "kv/range", &read).await.map_err(failed)?;
        if proof.header.raft_term != extended.header.raft_term {
            return Err("the leader changed while the lease was extended".to_owned());
        }
        Ok((extended.ttl > 0).then(|| seconds(&extended)))
    }

    /// Follows the removal of keys that begin with `prefix`, from a revision on or (0) from now on.
    pub(super) async fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Failure> {
        let index = *self.current.borrow();
        let create = json!({ "create_request": {
            "key": encoded(prefix),
            "range_end": encoded(end_of(prefix)),
            "start_revision": from.to_string(),
            "filters": ["NOPUT"],
        } });
        // A member that has lost touch with the others would stay silent for ever: let it end the stream instead.
        let request = self.request(index, "watch").header("Grpc-Metadata-hasleader", "true");
        let response = tokio::time::timeout(self.settings.timeout, self.send(request, &create));
        match response.await.unwrap_or_else(|_| Err(Fault::Unanswered("no answer in time".to_owned()))) {
            Ok(response) => Ok(Watch { response, buffer: Vec::new() }),
            Err(fault) => {
                self.avoid(index);
                Err(self.failure(index, fault))
            }
        }
    }

    /// Asks the current endpoint, and the others as long as the request does not get there.
    async fn ask<R: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<R, Failure> {
        let _place = self.places.acquire().await.expect("nobody closes it");
        let first = *self.current.borrow();
        let mut index = first;
        loop {
            let fault = match self.once(index, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let unusable = match &fault {
                Fault::Unreached(_) | Fault::Unanswered(_) => true,
                Fault::Refused(refusal) => code::UNSURE.contains(&refusal.code),
            };
            if unusable {
                self.avoid(index);
            }
            let next = (index + 1) % self.endpoints();
            if !matches!(fault, Fault::Unreached(_)) || next == first {
                return Err(self.failure(index, fault));
            }
            index = next;
        }
    }

    fn failure(&self, index: usize, fault: Fault) -> Failure {
        let at = |why: String| format!("etcd at {}: {why}", self.settings.endpoints[index]);
        match fault {
            Fault::Unreached(why) => Failure::NotDone(at(why)),
            Fault::Unanswered(why) => Failure::Unknown(at(why)),
            Fault::Refused(refusal) if refusal.message.contains("lease not found") => Failure::NoLease,
            Fault::Refused(refusal) if code::UNSURE.contains(&refusal.code) => Failure::Unknown(at(refusal.message)),
            Fault::Refused(refusal) => Failure::NotDone(at(refusal.message)),
        }
    }

    /// Asks one endpoint; with a new token when the old one is not good any more.
    async fn once<R: DeserializeOwned>(&self, index: usize, path: &str, body: &Value) -> Result<R, Fault> {
        let asked = async {
            match self.attempt(index, path, body).await {
                Err(Fault::Refused(refusal)) if self.settings.user.is_some() && is_of_token(&refusal) => {
                    self.log_in(index).await?;
                    self.attempt(index, path, body).await
                }
                other => other,
            }
        };
        let answer = tokio::time::timeout(self.settings.timeout, asked).await;
        answer.unwrap_or_else(|_| Err(Fault::Unanswered("no answer in time".to_owned())))
    }

    async fn attempt<R: DeserializeOwned>(&self, index: usize, path: &str, body: &Value) -> Result<R, Fault> {
        let response = self.send(self.request(index, path), body).await?;
        let text = response.bytes().await.map_err(|error| Fault::Unanswered(with_causes(&error)))?;
        serde_json::from_slice(&text)
            .map_err(|error| Fault::Unanswered(format!("an answer that is not etcd's: {error}")))
    }

    fn request(&self, index: usize, path: &str) -> RequestBuilder {
        let Settings { endpoints, api_version, .. } = &*self.settings;
        let request = self.http.post(format!("{}/{api_version}/{path}", endpoints[index]));
        match &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(token) => request.header("Authorization", token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder, body: &Value) -> Result<Response, Fault> {
        let response = request.json(body).send().await.map_err(|error| match error.is_connect() {
            true => Fault::Unreached(with_causes(&error.without_url())),
            false => Fault::Unanswered(with_causes(&error.without_url())),
        })?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let text = response.bytes().await.unwrap_or_default();
        let api_version = &self.settings.api_version;
        Err(match serde_json::from_slice::<Refusal>(&text) {
            Ok(refusal) if refusal.code != 0 => Fault::Refused(refusal),
            _ if status == StatusCode::NOT_FOUND => Fault::Refused(Refusal {
                message: format!(
                    "there is no /{api_version}/: option api_version has to fit the server (v3beta for etcd 3.3)"
                ),
                code: code::NOT_FOUND,
            }),
            _ => Fault::Unanswered(format!("HTTP status {status}")),
        })
    }

    async fn log_in(&self, index: usize) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        let Some((name, password)) = &self.settings.user else { return Ok(()) };
        self.token.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answer: Token =
            self.attempt(index, "auth/authenticate", &json!({ "name": name, "password": password })).await?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.token);
        Ok(())
    }
}

/// Whether the request failed for want of a good token (`etcdserver/api/v3rpc/rpctypes`).
fn is_of_token(refusal: &Refusal) -> bool {
    let told = |what| refusal.message.contains(what);
    refusal.code == code::UNAUTHENTICATED || told("user name is empty") || told("revision of auth store is old")
}

fn seconds(granted: &Granted) -> Duration {
    Duration::from_secs(granted.ttl.unsigned_abs())
}

/// A stream of removals.
#[derive(Debug)]
pub(super) struct Watch {
    response: Response,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next message; an error when the stream has ended. May be dropped half-way.
    pub(super) async fn next(&mut self) -> Result<Watched, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(Streamed::Result(watched)) => Ok(watched),
                    Ok(Streamed::Error(refusal)) => Err(refusal.message),
                    Err(error) => Err(format!("a message that is not etcd's: {error}")),
                };
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) => return Err("the stream has ended".to_owned()),
                Err(error) => return Err(with_causes(&error.without_url())),
            }
        }
    }
}
