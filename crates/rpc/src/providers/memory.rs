//! A broker inside the process: for tests, and for stand-alone mode where no other service listens.
//!
//! It keeps AMQP's rules: topic queues are born with the first listener and outlive it, a message for a queue that nobody
//! has declared is lost, what is not settled comes again. Whatever passes through it is encoded and decoded, so nothing but
//! the wire form is ever exchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scoria_model::Fault;
use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::{
    Call, DecodeError, Delivery, Destination, Error, Health, Listener, Notification, Request, Target, Transport,
    decode, decode_reply, encode, encode_notification, encode_reply, open,
};

/// The broker: queues that any number of [`MemoryTransport`]s share.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, settled, stopped or closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    /// Rises with every break of the connections: what was handed out before is dead.
    generation: u64,
    next_id: u64,
    queues: HashMap<String, VecDeque<Message>>,
    /// Fanout queues by topic.
    fanouts: HashMap<String, BTreeSet<String>>,
    /// Deliveries handed out, by their tag.
    unsettled: BTreeMap<u64, Unsettled>,
    /// Callers that wait, by message id.
    callers: HashMap<String, mpsc::UnboundedSender<Vec<u8>>>,
    /// Kept for tests only: it grows with every message.
    sent: Option<Vec<Sent>>,
}

#[derive(Debug, Clone)]
struct Message {
    /// Place in the queue: a requeued message goes back to where it was.
    id: u64,
    body: Vec<u8>,
    expires: Option<Instant>,
    deliveries: u64,
}

#[derive(Debug)]
struct Unsettled {
    queue: String,
    listener: u64,
    transport: u64,
    message: Message,
}

/// Something that was sent through the broker, as a test sees it.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "for tests, and few of them: a box would only be in the way of matching")]
pub enum Sent {
    /// A cast or a call.
    Request {
        /// Where to.
        to: Destination,
        /// What, after a trip through the wire form.
        request: Result<Request, DecodeError>,
    },
    /// A notification: the message's own fields (`event_type`, `payload`, …).
    Notification(Map<String, Value>),
}

impl MemoryBroker {
    /// An empty broker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty broker that remembers everything sent, for tests.
    #[must_use]
    pub fn recording() -> Self {
        let broker = Self::default();
        broker.state().sent = Some(Vec::new());
        broker
    }

    /// A connection to it, as one process has it.
    #[must_use]
    pub fn transport(&self) -> Arc<MemoryTransport> {
        let id = self.state().new_id();
        Arc::new(MemoryTransport { broker: self.clone(), id, closed: Arc::default() })
    }

    /// Everything that was sent so far, lost messages too. Empty on a broker not made by [`MemoryBroker::recording`].
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone().unwrap_or_default()
    }

    /// The requests for `method` that were sent so far.
    #[must_use]
    pub fn requests(&self, method: &str) -> Vec<Request> {
        let requests = self.sent().into_iter().filter_map(|sent| match sent {
            Sent::Request { request, .. } => request.ok(),
            Sent::Notification(_) => None,
        });
        requests.filter(|request| request.method == method).collect()
    }

    /// The event types of the notifications that were sent so far.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let notifications = self.sent().into_iter().filter_map(|sent| match sent {
            Sent::Notification(message) => message.get("event_type").and_then(Value::as_str).map(str::to_owned),
            Sent::Request { .. } => None,
        });
        notifications.collect()
    }

    /// Messages that wait in a queue; none when nobody has declared it.
    #[must_use]
    pub fn waiting(&self, queue: &str) -> usize {
        self.state().queues.get(queue).map_or(0, VecDeque::len)
    }

    /// Puts a body onto a destination's queues as it is: for messages that no [`Request`] can express.
    pub fn publish(&self, to: &Destination, body: Vec<u8>) {
        self.enqueue(to, body, None);
    }

    /// Breaks every connection for a moment: all that is unsettled comes again, nothing old can be settled any more.
    pub fn kill_connections(&self) {
        self.state().generation += 1;
        self.requeue_where(|_| true);
    }

    /// Makes the broker unreachable, or reachable again. Going down breaks every connection.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
        self.kill_connections();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, to: &Destination, body: Vec<u8>, expires: Option<Instant>) {
        let mut state = self.state();
        if let Some(sent) = &mut state.sent {
            sent.push(Sent::Request { to: to.clone(), request: decode(&body) });
        }
        let names: Vec<String> = match to {
            Destination::Topic(topic) => vec![topic.clone()],
            Destination::Server(target) => vec![server_queue(target)],
            Destination::Fanout(topic) => state.fanouts.get(topic).into_iter().flatten().cloned().collect(),
        };
        for name in names {
            let message = Message { id: state.new_id(), body: body.clone(), expires, deliveries: 0 };
            if let Some(queue) = state.queues.get_mut(&name) {
                queue.push_back(message);
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    fn requeue(&self, tag: u64) {
        self.state().requeue(tag);
        self.0.changed.notify_waiters();
    }

    fn requeue_where(&self, chosen: impl Fn(&Unsettled) -> bool) {
        let mut state = self.state();
        let tags: Vec<u64> = state.unsettled.iter().filter(|(_, held)| chosen(held)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            state.requeue(tag);
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Puts an unsettled message back to its place.
    fn requeue(&mut self, tag: u64) {
        let Some(held) = self.unsettled.remove(&tag) else { return };
        // A fanout queue is gone with its listener, and what was in it too.
        if let Some(queue) = self.queues.get_mut(&held.queue) {
            let place = queue.partition_point(|waiting| waiting.id < held.message.id);
            queue.insert(place, held.message);
        }
    }

    /// The next message for a listener that still has room.
    fn take(&mut self, listener: &MemoryListener) -> Option<(u64, Message)> {
        let held = self.unsettled.values().filter(|held| held.listener == listener.id).count();
        if self.down || (listener.prefetch > 0 && held >= usize::from(listener.prefetch)) {
            return None;
        }
        let now = Instant::now();
        for name in &listener.queues {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.retain(|message| message.expires.is_none_or(|at| at > now));
            }
        }
        // The oldest first, whichever queue it is in: a busy queue must not starve the others.
        let waiting = |name: &&String| self.queues.get(*name).and_then(VecDeque::front).map(|message| message.id);
        let oldest = listener.queues.iter().filter(|name| waiting(name).is_some()).min_by_key(waiting)?.clone();
        let mut message = self.queues.get_mut(&oldest)?.pop_front()?;
        message.deliveries += 1;
        let tag = self.new_id();
        let (listener, transport) = (listener.id, listener.transport.id);
        self.unsettled.insert(tag, Unsettled { queue: oldest, listener, transport, message: message.clone() });
        Some((tag, message))
    }
}

fn server_queue(target: &Target) -> String {
    format!("{}.{}", target.topic, target.server)
}

/// One process' connection to a [`MemoryBroker`].
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    broker: MemoryBroker,
    id: u64,
    closed: Arc<std::sync::atomic::AtomicBool>,
}

impl MemoryTransport {
    fn is_closed(&self) -> bool {
        self.closed.load(std::sync::atomic::Ordering::Acquire)
    }

    fn check(&self) -> Result<(), Error> {
        match self.health() {
            _ if self.is_closed() => Err(Error::Closed),
            Health::Up => Ok(()),
            Health::Down(reason) => Err(Error::Unavailable(reason)),
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn listen(&self, targets: Vec<Target>, prefetch: u16) -> Result<Box<dyn Listener>, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let mut state = self.broker.state();
        let id = state.new_id();
        let mut queues = Vec::new();
        let mut fanouts = Vec::new();
        for target in targets {
            let fanout = format!("{}_fanout_{}", target.topic, uuid::Uuid::new_v4().simple());
            state.fanouts.entry(target.topic.clone()).or_default().insert(fanout.clone());
            fanouts.push((target.topic.clone(), fanout.clone()));
            queues.extend([server_queue(&target), target.topic, fanout]);
        }
        // Two targets of one listener may share a queue, as the volume service's do.
        let mut seen = BTreeSet::new();
        queues.retain(|name| seen.insert(name.clone()));
        for name in &queues {
            state.queues.entry(name.clone()).or_default();
        }
        drop(state);
        Ok(Box::new(MemoryListener { transport: self.clone(), id, prefetch, queues, fanouts, stopped: false }))
    }

    async fn cast(&self, to: &Destination, request: Request) -> Result<(), Error> {
        self.check()?;
        self.broker.enqueue(to, encode(&request), None);
        Ok(())
    }

    async fn call(&self, to: &Destination, mut request: Request, timeout: Duration) -> Result<Value, Error> {
        self.check()?;
        let msg_id = uuid::Uuid::new_v4().simple().to_string();
        let reply_q = format!("reply_{}", self.id);
        request.call = Some(Call { msg_id: msg_id.clone(), reply_q, monitor_timeout: None });
        let (sender, mut replies) = mpsc::unbounded_channel();
        self.broker.state().callers.insert(msg_id.clone(), sender);
        let _gone = CallerGuard { broker: &self.broker, msg_id };
        let deadline = Instant::now() + timeout;
        self.broker.enqueue(to, encode(&request), Some(deadline));
        loop {
            let body = tokio::time::timeout_at(deadline, replies.recv()).await.ok().flatten();
            let Some(body) = body else {
                return Err(Error::Timeout { method: request.method, seconds: timeout.as_secs() });
            };
            match decode_reply(&body) {
                Ok(reply) if reply.ending => return reply.outcome(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "reply ignored"),
            }
        }
    }

    async fn notify(&self, notification: Notification) -> Result<(), Error> {
        self.check()?;
        match open(&encode_notification(&notification, true)) {
            Ok(message) => {
                if let Some(sent) = &mut self.broker.state().sent {
                    sent.push(Sent::Notification(message));
                }
            }
            Err(error) => tracing::warn!(%error, event = notification.event_type, "notification lost"),
        }
        Ok(())
    }

    fn health(&self) -> Health {
        match (self.is_closed(), self.broker.state().down) {
            (true, _) => Health::Down("closed".to_owned()),
            (_, true) => Health::Down("the in-process broker was told to be down".to_owned()),
            _ => Health::Up,
        }
    }

    async fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        self.broker.requeue_where(|held| held.transport == self.id);
    }
}

/// Nobody waits for the answer any more.
struct CallerGuard<'a> {
    broker: &'a MemoryBroker,
    msg_id: String,
}

impl Drop for CallerGuard<'_> {
    fn drop(&mut self) {
        self.broker.state().callers.remove(&self.msg_id);
    }
}

struct MemoryListener {
    transport: MemoryTransport,
    id: u64,
    prefetch: u16,
    queues: Vec<String>,
    /// Topic and queue.
    fanouts: Vec<(String, String)>,
    stopped: bool,
}

impl MemoryListener {
    fn unsubscribe(&mut self) {
        self.stopped = true;
        let mut state = self.transport.broker.state();
        for (topic, queue) in self.fanouts.drain(..) {
            state.queues.remove(&queue);
            if let Some(queues) = state.fanouts.get_mut(&topic) {
                queues.remove(&queue);
            }
        }
        drop(state);
        self.transport.broker.0.changed.notify_waiters();
    }
}

#[async_trait]
impl Listener for MemoryListener {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            let changed = self.transport.broker.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stopped || self.transport.is_closed() {
                return None;
            }
            let (taken, generation) = {
                let mut state = self.transport.broker.state();
                (state.take(self), state.generation)
            };
            if let Some((tag, message)) = taken {
                let request = decode(&message.body);
                let call = match &request {
                    Ok(request) => request.call.clone(),
                    Err(error) => error.call.clone(),
                };
                let (transport, before) = (self.transport.clone(), message.deliveries - 1);
                return Some(Box::new(MemoryDelivery { transport, generation, tag, before, request, call }));
            }
            changed.await;
        }
    }

    async fn stop(&mut self) {
        self.unsubscribe();
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

struct MemoryDelivery {
    transport: MemoryTransport,
    generation: u64,
    tag: u64,
    /// Deliveries before this one.
    before: u64,
    request: Result<Request, DecodeError>,
    call: Option<Call>,
}

impl MemoryDelivery {
    fn settle(&self) -> bool {
        let held = self.transport.broker.state().unsettled.remove(&self.tag).is_some();
        self.transport.broker.0.changed.notify_waiters();
        held
    }
}

#[async_trait]
impl Delivery for MemoryDelivery {
    fn request(&self) -> Result<&Request, &DecodeError> {
        self.request.as_ref()
    }

    fn redelivered(&self) -> bool {
        self.before > 0
    }

    fn delivery_count(&self) -> Option<u64> {
        Some(self.before)
    }

    fn is_live(&self) -> bool {
        !self.transport.is_closed() && self.transport.broker.state().generation == self.generation
    }

    async fn reply(&self, outcome: Result<Value, Fault>) -> Result<(), Error> {
        let Some(call) = &self.call else { return Ok(()) };
        let state = self.transport.broker.state();
        if state.down {
            return Err(Error::Unavailable("the in-process broker was told to be down".to_owned()));
        }
        if let Some(caller) = state.callers.get(&call.msg_id) {
            // A caller that gave up in this moment is the same as one that gave up before.
            let _ = caller.send(encode_reply(&call.msg_id, &outcome));
        }
        Ok(())
    }

    async fn ack(&self) -> bool {
        self.settle()
    }

    async fn requeue(&self) {
        self.transport.broker.requeue(self.tag);
    }

    async fn reject(&self) {
        self.settle();
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        self.transport.broker.requeue(self.tag);
    }
}
