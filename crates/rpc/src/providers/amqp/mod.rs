//! RabbitMQ, as oslo.messaging uses it.
//!
//! Two connections, each with a supervisor: one consumes (requests and replies), one publishes, because a broker in alarm
//! stops everything on a connection that publishes, acknowledgements included. Exchanges and queues are data
//! (`topology`), declared anew on each connection. A delivery belongs to one connection and knows when that one is dead.
//! What it is not: it does not decide when a message is settled, notices no duplicates, and reads no configuration file.
//!
//! Metrics: `scoria_rpc_connected{connection}`, `scoria_rpc_reconnects_total{connection}`,
//! `scoria_rpc_messages_total{direction}`, `scoria_rpc_publish_seconds`, `scoria_rpc_consumers_cancelled_total`,
//! `scoria_rpc_replies_dropped_total`.
//!
//! lapin logs what it also returns, and everything it returns is logged here with its context: switch the log target `lapin` off.

mod calls;
mod compression;
mod connection;
mod delivery;
mod link;
mod listen;
mod options;
mod publish;
mod reply;
mod session;
mod tls;
mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scoria_runtime::{Deadline, Tasks};
use serde_json::Value;
use tokio::sync::OnceCell;

pub use compression::Compression;
pub use options::{AmqpOptions, BrokerHost, Failover, LoginMethod, NotificationOptions, RabbitOptions};

use calls::Calls;
use connection::Access;
use link::Link;
use listen::Consumer;
use publish::{Outgoing, Publisher};
use reply::Replier;
use topology::{Exchange, Queue};

use crate::{Call, Destination, Error, Health, Listener, Notification, Request, Target, Transport};

/// Longest name that AMQP can carry, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// RabbitMQ, one or several brokers.
#[derive(Debug)]
pub struct AmqpTransport {
    options: AmqpOptions,
    access: Arc<Access>,
    /// Listeners and the like, which need the connections to end in good order.
    tasks: Tasks,
    /// The connections' supervisors.
    links: Tasks,
    consuming: Link,
    publisher: Arc<Publisher>,
    notifier: Arc<Publisher>,
    replier: Arc<Replier>,
    calls: OnceCell<Calls>,
    queue_numbers: AtomicU64,
}

impl AmqpTransport {
    /// Starts connecting, in the background and for ever, and returns at once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Config`] for options that contradict themselves or TLS files that cannot be read; never because of the broker.
    pub fn connect(options: AmqpOptions) -> Result<Arc<Self>, Error> {
        options.check()?;
        let tls = tls::connector(&options.rabbit)?;
        let access = |virtual_host: &str| {
            Arc::new(Access {
                virtual_host: if virtual_host.is_empty() { "/" } else { virtual_host }.to_owned(),
                process_name: options.process_name.clone(),
                rabbit: options.rabbit.clone(),
                tls: tls.clone(),
            })
        };
        let links = Tasks::new();
        let requests = access(&options.virtual_host);
        let consuming = Link::start(&links, "consume", &options.hosts, requests.clone());
        let publisher = |link: Link| Arc::new(Publisher::new(link, options.rabbit.kombu_compression));
        let requester = publisher(Link::start(&links, "publish", &options.hosts, requests.clone()));
        let notifier = match &options.notifications.brokers {
            Some((hosts, virtual_host)) => publisher(Link::start(&links, "notify", hosts, access(virtual_host))),
            None => requester.clone(),
        };
        let offer = options.rabbit.kombu_missing_consumer_retry_timeout;
        let replier = Arc::new(Replier::new(requester.clone(), options.publish_timeout, offer));
        Ok(Arc::new(Self {
            access: requests,
            tasks: Tasks::new(),
            links,
            consuming,
            publisher: requester,
            notifier,
            replier,
            calls: OnceCell::new(),
            queue_numbers: AtomicU64::new(0),
            options,
        }))
    }

    /// The suffix of a queue of our own: random, or, with `use_queue_manager`, the same after each start.
    fn unique(&self) -> String {
        let rabbit = &self.options.rabbit;
        if rabbit.use_queue_manager {
            let number = self.queue_numbers.fetch_add(1, Ordering::Relaxed) + 1;
            format!("{}:{}:{number}", rabbit.hostname, rabbit.processname)
        } else {
            uuid::Uuid::new_v4().simple().to_string()
        }
    }

    /// Where a request goes: exchange and routing key.
    fn route(&self, to: &Destination) -> Result<(Exchange, String), Error> {
        let rabbit = &self.options.rabbit;
        let control = || Exchange::control(&self.options.control_exchange, rabbit);
        let (exchange, key) = match to {
            Destination::Topic(topic) => (control(), topic.clone()),
            Destination::Server(target) => (control(), format!("{}.{}", target.topic, target.server)),
            Destination::Fanout(topic) => (Exchange::fanout(topic, rabbit), String::new()),
        };
        check_name(&exchange.name)?;
        check_name(&key)?;
        Ok((exchange, key))
    }

    fn outgoing(&self, to: &Destination, body: Vec<u8>, expiration: Option<Duration>) -> Result<Outgoing, Error> {
        let (exchange, routing_key) = self.route(to)?;
        Ok(Outgoing { exchange: Some(exchange), routing_key, body, mandatory: false, expiration, queue: None })
    }

    /// Declares and consumes the reply queue at the first call.
    async fn calls(&self) -> &Calls {
        self.calls
            .get_or_init(async || {
                let queue = Queue::reply(&self.unique(), &self.options.rabbit);
                let (calls, consumer) = Calls::new(queue, self.consuming.clone(), self.access.clone());
                self.tasks.spawn("rpc replies", consumer.run(self.tasks.stop_token()));
                calls
            })
            .await
    }
}

/// Names come from the configuration and, for reply queues, from others; lapin panics on one that is too long.
fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > MAX_NAME_BYTES {
        let text = format!("{name:?} is too long for a queue ({} of {MAX_NAME_BYTES} bytes)", name.len());
        return Err(Error::Config(text));
    }
    Ok(())
}

#[async_trait]
impl Transport for AmqpTransport {
    async fn listen(&self, targets: Vec<Target>, prefetch: u16) -> Result<Box<dyn Listener>, Error> {
        let rabbit = &self.options.rabbit;
        let mut queues: Vec<Queue> = Vec::new();
        for target in &targets {
            for queue in Queue::of_target(target, &self.options.control_exchange, &self.unique(), rabbit) {
                check_name(&queue.name)?;
                // The host's queue is in two of a volume service's targets; it is consumed once.
                if !queues.iter().any(|known| known.name == queue.name) {
                    queues.push(queue);
                }
            }
        }
        let limit = if rabbit.rabbit_qos_prefetch_count == 0 { u16::MAX } else { rabbit.rabbit_qos_prefetch_count };
        let consumer = Consumer {
            queues,
            prefetch: prefetch.min(limit).max(1),
            link: self.consuming.clone(),
            access: self.access.clone(),
            replier: self.replier.clone(),
        };
        Ok(Box::new(consumer.start(&self.tasks).await?))
    }

    async fn cast(&self, to: &Destination, request: Request) -> Result<(), Error> {
        let message = self.outgoing(to, crate::encode(&request), None)?;
        self.publisher.publish(&message, Deadline::after(self.options.publish_timeout)).await.map(drop)
    }

    async fn call(&self, to: &Destination, mut request: Request, timeout: Duration) -> Result<Value, Error> {
        let deadline = Deadline::after(timeout);
        let calls = self.calls().await;
        let waiter = calls.waiter();
        let call = Call { msg_id: waiter.msg_id.clone(), reply_q: calls.reply_q.clone(), monitor_timeout: None };
        request.call = Some(call);
        let message = self.outgoing(to, crate::encode(&request), Some(timeout))?;
        calls.ready(deadline).await?;
        self.publisher.publish(&message, deadline).await?;
        match waiter.answer(deadline).await {
            Some(reply) => reply.outcome(),
            None => Err(Error::Timeout { method: request.method, seconds: timeout.as_secs() }),
        }
    }

    async fn notify(&self, notification: Notification) -> Result<(), Error> {
        let rabbit = &self.options.rabbit;
        for driver in &self.options.notifications.drivers {
            let envelope = match driver.as_str() {
                "messagingv2" => true,
                "messaging" => false,
                "log" => {
                    let (publisher, event) = (&notification.publisher_id, &notification.event_type);
                    tracing::info!(target: "notification", publisher, event, payload = %notification.payload);
                    continue;
                }
                _ => continue,
            };
            let body = crate::encode_notification(&notification, envelope);
            for topic in &self.options.notifications.topics {
                let key = format!("{topic}.{}", notification.priority.to_ascii_lowercase());
                check_name(&key)?;
                let message = Outgoing {
                    exchange: Some(Exchange::control(&self.options.control_exchange, rabbit)),
                    routing_key: key.clone(),
                    body: body.clone(),
                    mandatory: false,
                    expiration: None,
                    // Declared by the sender, so that nothing is lost before the first reader comes.
                    queue: Some(Queue::topic(&key, &self.options.control_exchange, rabbit)),
                };
                self.notifier.publish(&message, Deadline::after(self.options.publish_timeout)).await?;
            }
        }
        Ok(())
    }

    fn health(&self) -> Health {
        // What notifications go to has no say: without it requests are served all the same.
        match self.consuming.health() {
            Health::Up => self.publisher.health(),
            down => down,
        }
    }

    async fn close(&self) {
        self.tasks.shutdown().await;
        self.links.shutdown().await;
    }
}
