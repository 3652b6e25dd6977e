//! The consumers of some queues, on one channel of one connection.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, message::Delivery};

use super::link::Live;
use super::topology::Queue;

/// What happens to a session.
#[derive(Debug)]
pub(super) enum Incident {
    /// A message, with the queue's index.
    Message(usize, Box<Delivery>),
    /// The broker has cancelled the consumer of one queue, which was deleted or has moved. To be [`Session::repair`]ed.
    Cancelled(usize),
    /// The channel or the connection is gone: all unsettled messages come again.
    Gone(String),
}

/// Open consumers.
pub(super) struct Session {
    pub(super) live: Arc<Live>,
    pub(super) channel: Channel,
    queues: Vec<Queue>,
    /// For each queue that is a stream: where to go on.
    offsets: Vec<Option<i64>>,
    streams: SelectAll<BoxStream<'static, Incident>>,
}

impl Session {
    /// Declares the queues and consumes them. Each consumer has at most `prefetch` unsettled messages (0: no limit). Per
    /// consumer, because quorum queues know no limit per channel.
    ///
    /// # Errors
    /// What the broker said.
    pub(super) async fn open(
        live: Arc<Live>,
        queues: &[Queue],
        offsets: &[Option<i64>],
        prefetch: u16,
    ) -> Result<Self, lapin::Error> {
        let channel = live.connection.create_channel().await?;
        if prefetch > 0 {
            channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
        }
        let (queues, offsets) = (queues.to_vec(), offsets.to_vec());
        let mut session = Self { live, channel, queues, offsets, streams: select_all([]) };
        for index in 0..session.queues.len() {
            session.consume(index).await?;
        }
        Ok(session)
    }

    async fn consume(&mut self, index: usize) -> Result<(), lapin::Error> {
        let queue = &self.queues[index];
        queue.declare(&self.live.connection).await?;
        let mut arguments = queue.consumer_arguments.clone();
        if queue.stream {
            let from = self.offsets[index].map_or_else(|| AMQPValue::LongString("last".into()), AMQPValue::LongLongInt);
            arguments.insert("x-stream-offset".into(), from);
        }
        let (name, tag) = (queue.name.as_str().into(), tag(index).as_str().into());
        let consumer = self.channel.basic_consume(name, tag, BasicConsumeOptions::default(), arguments).await?;
        let incidents = consumer
            .map(move |item| match item {
                Ok(delivery) => Incident::Message(index, Box::new(delivery)),
                Err(error) => Incident::Gone(error.to_string()),
            })
            .chain(futures_util::stream::iter([Incident::Cancelled(index)]));
        self.streams.push(incidents.boxed());
        Ok(())
    }

    /// The next thing that happens. May be dropped while waiting.
    pub(super) async fn next(&mut self) -> Incident {
        let incident = tokio::select! {
            // What has already come must not be taken for living when the connection is known to be dead.
            biased;
            () = self.live.lost.cancelled() => return Incident::Gone("connection lost".to_owned()),
            incident = self.streams.next() => incident,
        };
        match incident {
            Some(Incident::Cancelled(_)) | None if !self.channel.status().connected() => {
                Incident::Gone("channel closed".to_owned())
            }
            Some(incident) => incident,
            None => Incident::Gone("no consumers left".to_owned()),
        }
    }

    /// Declares and consumes one queue again, while messages of the others go on being worked on.
    ///
    /// # Errors
    /// What the broker said; the session is then to be dropped.
    pub(super) async fn repair(&mut self, index: usize) -> Result<(), lapin::Error> {
        // A stream that was deleted starts anew.
        self.offsets[index] = None;
        self.consume(index).await
    }

    /// Remembers how far a stream was read.
    pub(super) fn passed(&mut self, index: usize, delivery: &Delivery) {
        if self.queues[index].stream
            && let Some(offset) = header_number(delivery, "x-stream-offset")
        {
            self.offsets[index] = Some(offset + 1);
        }
    }

    /// Where the streams are to be read on.
    pub(super) fn offsets(&self) -> &[Option<i64>] {
        &self.offsets
    }

    /// Stops consuming, deletes the queues that are only ours, and returns what had come but was not taken.
    pub(super) async fn cancel(mut self) -> Vec<Delivery> {
        for (index, queue) in self.queues.iter().enumerate() {
            // A failure means that the channel is gone, and then everything is undone by the broker.
            let _ = self.channel.basic_cancel(tag(index).as_str().into(), BasicCancelOptions::default()).await;
            if queue.delete_on_close
                && let Ok(channel) = self.live.connection.create_channel().await
            {
                let _ = channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await;
            }
        }
        // A cancelled consumer's stream ends, after what was still on its way.
        let mut left = Vec::new();
        while let Some(incident) = self.streams.next().await {
            if let Incident::Message(_, delivery) = incident {
                left.push(*delivery);
            }
        }
        left
    }
}

fn tag(index: usize) -> String {
    (index + 1).to_string()
}

/// A number in the message's headers.
pub(super) fn header_number(delivery: &Delivery, key: &str) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get(key)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        _ => None,
    }
}
