//! Exchanges and queues as data, with the attributes of the Python service (`oslo_messaging/_drivers/impl_rabbit.py:
//! declare_topic_consumer`, `declare_fanout_consumer`, `declare_direct_consumer`, `notify_send`), and their declaration.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::options::RabbitOptions;
use crate::Target;

/// An exchange.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
}

/// A queue, bound to its exchange; a reply queue has none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: FieldTable,
    pub(super) binding: Option<(Exchange, String)>,
    pub(super) consumer_arguments: FieldTable,
    /// Belongs to this listener alone and goes with it.
    pub(super) delete_on_close: bool,
    /// A stream: it is read from an offset, and reading does not take away.
    pub(super) stream: bool,
}

/// Reply codes of the AMQP specification that are handled one by one.
pub(super) mod code {
    pub(in super::super) const NOT_FOUND: u16 = 404;
    pub(in super::super) const PRECONDITION_FAILED: u16 = 406;
}

/// The broker's reply code, where the error is the broker's.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

impl Exchange {
    /// The exchange of all topics.
    pub(super) fn control(name: &str, options: &RabbitOptions) -> Self {
        Self {
            name: name.to_owned(),
            kind: ExchangeKind::Topic,
            durable: options.amqp_durable_queues || options.rabbit_quorum_queue,
            auto_delete: options.amqp_auto_delete,
        }
    }

    /// The exchange that reaches every server of a topic.
    pub(super) fn fanout(topic: &str, options: &RabbitOptions) -> Self {
        Self {
            name: format!("{topic}_fanout"),
            kind: ExchangeKind::Fanout,
            durable: options.rabbit_transient_quorum_queue || options.rabbit_stream_fanout,
            auto_delete: true,
        }
    }

    /// Declares it; where it is already there with another durability, takes it as it is.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<(), lapin::Error> {
        let channel = connection.create_channel().await?;
        match self.declare_on(&channel).await {
            Err(error) if is_durable_mismatch(&error) => {
                tracing::warn!(exchange = %self.name, %error, "exchange exists with another durability: using it as it is");
                let channel = connection.create_channel().await?;
                Self { durable: !self.durable, ..self.clone() }.declare_on(&channel).await
            }
            other => other,
        }
    }

    async fn declare_on(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let options =
            ExchangeDeclareOptions { durable: self.durable, auto_delete: self.auto_delete, ..Default::default() };
        let name = self.name.as_str().into();
        channel.exchange_declare(name, self.kind.clone(), options, FieldTable::default()).await
    }
}

impl Queue {
    /// The queue `name` on the control exchange, with itself as routing key.
    pub(super) fn topic(name: &str, exchange: &str, options: &RabbitOptions) -> Self {
        let exchange = Exchange::control(exchange, options);
        Self {
            name: name.to_owned(),
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            arguments: queue_arguments(options, options.rabbit_quorum_queue, false),
            binding: Some((exchange, name.to_owned())),
            consumer_arguments: consumer_arguments(options),
            delete_on_close: false,
            stream: false,
        }
    }

    /// A listener's own queue on the topic's fanout exchange; with streams, the topic's one stream.
    pub(super) fn fanout(topic: &str, unique: &str, options: &RabbitOptions) -> Self {
        let exchange = Exchange::fanout(topic, options);
        let stream = options.rabbit_stream_fanout;
        let mut arguments = queue_arguments(options, options.rabbit_transient_quorum_queue, true);
        if stream {
            arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), text("stream"));
            if !options.rabbit_transient_queues_ttl.is_zero() {
                let age = format!("{}s", options.rabbit_transient_queues_ttl.as_secs());
                arguments.insert("x-max-age".into(), text(&age));
            }
        }
        Self {
            name: if stream { exchange.name.clone() } else { format!("{}_{unique}", exchange.name) },
            durable: exchange.durable,
            auto_delete: false,
            arguments,
            binding: Some((exchange, topic.to_owned())),
            consumer_arguments: consumer_arguments(options),
            delete_on_close: !stream && !options.use_queue_manager,
            stream,
        }
    }

    /// The queue on which answers come.
    pub(super) fn reply(unique: &str, options: &RabbitOptions) -> Self {
        Self {
            name: format!("reply_{unique}"),
            durable: options.rabbit_transient_quorum_queue,
            auto_delete: false,
            arguments: queue_arguments(options, options.rabbit_transient_quorum_queue, true),
            binding: None,
            consumer_arguments: consumer_arguments(options),
            // Not deleted on close: a server that still answers would look for it for a minute.
            delete_on_close: false,
            stream: false,
        }
    }

    /// The queues of an RPC server: its topic, itself, and everybody.
    pub(super) fn of_target(target: &Target, exchange: &str, unique: &str, options: &RabbitOptions) -> [Self; 3] {
        [
            Self::topic(&target.topic, exchange, options),
            Self::topic(&format!("{}.{}", target.topic, target.server), exchange, options),
            Self::fanout(&target.topic, unique, options),
        ]
    }

    /// Declares the exchange, the queue and the binding, and returns the queue as it then is.
    ///
    /// Two services that share an exchange may be configured differently; whoever comes second is refused for `durable` and
    /// then uses what is there, as non-durable (`Consumer._declare_fallback_nondurable`). A queue whose node is down is "not
    /// found" though it is there: it is deleted and declared again (`Consumer.declare`).
    ///
    /// # Errors
    /// What the broker said in the end. Channels are closed by it at each refusal, so none is passed in.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Self, lapin::Error> {
        let mut queue = self.clone();
        let (mut may_fall_back, mut may_delete) = (true, true);
        loop {
            let channel = connection.create_channel().await?;
            let Err(error) = queue.declare_on(&channel).await else {
                return Ok(queue);
            };
            if may_fall_back && is_durable_mismatch(&error) {
                may_fall_back = false;
                tracing::warn!(queue = %queue.name, %error, "exists with another durability: declaring it as non-durable");
                queue = queue.non_durable();
            } else if may_delete && reply_code(&error) == Some(code::NOT_FOUND) {
                may_delete = false;
                tracing::warn!(queue = %queue.name, %error, "the queue's node is gone: deleting and declaring it again");
                let channel = connection.create_channel().await?;
                let name = queue.name.as_str().into();
                if let Err(error) = channel.queue_delete(name, QueueDeleteOptions::default()).await {
                    tracing::debug!(queue = %queue.name, %error, "deleting failed");
                }
            } else {
                return Err(error);
            }
        }
    }

    async fn declare_on(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let options =
            QueueDeclareOptions { durable: self.durable, auto_delete: self.auto_delete, ..Default::default() };
        if let Some((exchange, _)) = &self.binding {
            exchange.declare_on(channel).await?;
        }
        channel.queue_declare(self.name.as_str().into(), options, self.arguments.clone()).await?;
        if let Some((exchange, key)) = &self.binding {
            let (name, exchange, key) = (self.name.as_str(), exchange.name.as_str(), key.as_str());
            let options = QueueBindOptions::default();
            channel.queue_bind(name.into(), exchange.into(), key.into(), options, FieldTable::default()).await?;
        }
        Ok(())
    }

    /// Quorum queues and streams are durable by nature, so only their exchange changes.
    fn non_durable(mut self) -> Self {
        if let Some((exchange, _)) = &mut self.binding {
            exchange.durable = false;
        }
        self.durable &= self.arguments.contains_key("x-queue-type");
        self
    }
}

fn is_durable_mismatch(error: &lapin::Error) -> bool {
    reply_code(error) == Some(code::PRECONDITION_FAILED) && error.to_string().contains("inequivalent arg 'durable'")
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// `_get_queue_arguments`.
fn queue_arguments(options: &RabbitOptions, quorum: bool, transient: bool) -> FieldTable {
    let mut arguments = FieldTable::default();
    let number = |arguments: &mut FieldTable, key: &str, value: i64| {
        if value > 0 {
            let value = i32::try_from(value).map_or(AMQPValue::LongLongInt(value), AMQPValue::LongInt);
            arguments.insert(key.into(), value);
        }
    };
    if options.rabbit_ha_queues {
        arguments.insert("x-ha-policy".into(), text("all"));
    }
    if quorum {
        arguments.insert("x-queue-type".into(), text("quorum"));
        number(&mut arguments, "x-delivery-limit", options.rabbit_quorum_delivery_limit.into());
        number(&mut arguments, "x-max-in-memory-length", options.rabbit_quorum_max_memory_length.into());
        number(&mut arguments, "x-max-in-memory-bytes", options.rabbit_quorum_max_memory_bytes.into());
    }
    if transient {
        let milliseconds = options.rabbit_transient_queues_ttl.as_secs().saturating_mul(1000);
        number(&mut arguments, "x-expires", i64::try_from(milliseconds).unwrap_or(i64::MAX));
    }
    arguments
}

fn consumer_arguments(options: &RabbitOptions) -> FieldTable {
    let mut arguments = FieldTable::default();
    if options.enable_cancel_on_failover {
        arguments.insert("x-cancel-on-ha-failover".into(), true.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn arguments(queue: &Queue) -> Vec<(String, AMQPValue)> {
        queue.arguments.inner().iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
    }

    #[test]
    fn by_default_topic_queues_are_bare_and_fanout_queues_expire() {
        let options = RabbitOptions::default();
        let target = Target::new("cinder-volume.hosta@nfs1", "hosta");
        let [topic, server, fanout] = Queue::of_target(&target, "openstack", "0123", &options);
        assert_eq!((topic.name.as_str(), topic.durable), ("cinder-volume.hosta@nfs1", false));
        assert_eq!(server.name, "cinder-volume.hosta@nfs1.hosta");
        assert_eq!(arguments(&server), []);
        assert_eq!(fanout.name, "cinder-volume.hosta@nfs1_fanout_0123");
        assert_eq!(arguments(&fanout), [("x-expires".to_owned(), AMQPValue::LongInt(1_800_000))]);
        assert!(fanout.delete_on_close && !topic.delete_on_close);
    }

    #[test]
    fn the_options_show_in_the_arguments() {
        let quorum = RabbitOptions {
            rabbit_quorum_queue: true,
            rabbit_quorum_delivery_limit: 5,
            rabbit_quorum_max_memory_bytes: 3_000_000_000,
            rabbit_transient_queues_ttl: Duration::ZERO,
            enable_cancel_on_failover: true,
            ..RabbitOptions::default()
        };
        let topic = Queue::topic("t", "openstack", &quorum);
        assert!(topic.durable && topic.binding.as_ref().unwrap().0.durable);
        assert_eq!(
            arguments(&topic),
            [
                ("x-delivery-limit".to_owned(), AMQPValue::LongInt(5)),
                ("x-max-in-memory-bytes".to_owned(), AMQPValue::LongLongInt(3_000_000_000)),
                ("x-queue-type".to_owned(), text("quorum")),
            ]
        );
        assert!(topic.consumer_arguments.contains_key("x-cancel-on-ha-failover"));
        let reply = Queue::reply("u", &quorum);
        assert!(!reply.durable && arguments(&reply).is_empty(), "transient queues are switched on their own");
        assert!(topic.non_durable().durable, "a quorum queue is always durable");

        let mirrored = RabbitOptions { rabbit_ha_queues: true, ..RabbitOptions::default() };
        assert_eq!(arguments(&Queue::topic("t", "x", &mirrored)), [("x-ha-policy".to_owned(), text("all"))]);
    }

    #[test]
    fn with_streams_the_topic_has_one_fanout_queue() {
        let options = RabbitOptions {
            rabbit_stream_fanout: true,
            rabbit_transient_quorum_queue: true,
            ..RabbitOptions::default()
        };
        let fanout = Queue::fanout("cinder-volume", "0123", &options);
        assert_eq!(fanout.name, "cinder-volume_fanout");
        assert!(fanout.stream && fanout.durable && !fanout.delete_on_close);
        assert!(arguments(&fanout).contains(&("x-max-age".to_owned(), text("1800s"))));
    }
}
