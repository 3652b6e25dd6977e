//! The transport conformance suite on a real RabbitMQ.

mod amqp_support;

use std::sync::Arc;

use amqp_support::{connect, options};
use scoria_rpc::{Transport, conformance};
use scoria_testkit::RabbitMq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_is_a_transport() {
    let broker = RabbitMq::shared().await.unwrap();
    let connect = || -> Arc<dyn Transport> { connect(options(&broker)) };
    conformance::all(&connect).await;
    conformance::broken_connection(&connect, async || broker.close_connections().await.unwrap()).await;
}

/// Quorum queues know no prefetch per channel and count deliveries: the same behaviour is asked of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_with_quorum_queues_is_a_transport() {
    let broker = RabbitMq::shared().await.unwrap();
    let connect = || -> Arc<dyn Transport> {
        let mut options = options(&broker);
        options.rabbit.rabbit_quorum_queue = true;
        options.rabbit.rabbit_transient_quorum_queue = true;
        connect(options)
    };
    conformance::all(&connect).await;
}
