//! `[oslo_messaging_rabbit]`.

use std::path::PathBuf;
use std::time::Duration;

use super::default::hostname;
use super::spec::{BOOL, INT, STR, at_least, choice, float, options};

options! {
    /// `[oslo_messaging_rabbit]` (`oslo_messaging/_drivers/impl_rabbit.py`). The query of `transport_url` may set each of them.
    pub struct RabbitOptions in "oslo_messaging_rabbit" => {
        /// Whether exchanges and queues survive a restart of the broker. All services must agree.
        amqp_durable_queues: bool = BOOL.default("false");
        /// Whether exchanges and queues go when their last user goes.
        amqp_auto_delete: bool = BOOL.default("false");
        /// How many connections for sending are kept open.
        rpc_conn_pool_size: u32 = at_least(1).default("30");
        /// How many of them are kept even when idle.
        conn_pool_min_size: u32 = INT.default("2");
        /// Seconds after which an idle one is closed.
        conn_pool_ttl: Duration = INT.default("1200");
        /// Whether the broker is reached by TLS.
        ssl: bool = BOOL.default("false");
        /// The TLS version. Empty: the best that both sides know.
        ssl_version: String = STR.default("");
        /// The private key to present; empty: none.
        ssl_key_file: String = STR.default("");
        /// The certificate to present; empty: none.
        ssl_cert_file: String = STR.default("");
        /// The authorities that may sign the broker's certificate; empty: it is not checked.
        ssl_ca_file: String = STR.default("");
        /// Whether the broker's certificate must bear the host's name.
        ssl_enforce_hostname_verification: bool = BOOL.default("true");
        /// Whether to insist on a FIPS library; deprecated there and without effect here.
        ssl_enforce_fips_mode: bool = BOOL.default("false");
        /// How to log in.
        rabbit_login_method: String = choice(&["PLAIN", "AMQPLAIN", "EXTERNAL", "RABBIT-CR-DEMO"]).default("AMQPLAIN");
        /// Seconds before the first new try after a connection was lost.
        rabbit_retry_interval: Duration = at_least(1).default("1");
        /// Seconds by which the wait grows each time.
        rabbit_retry_backoff: Duration = at_least(0).default("2");
        /// The most seconds between two tries.
        rabbit_interval_max: Duration = at_least(1).default("30");
        /// Seconds to wait before connecting again after a connection was lost.
        kombu_reconnect_delay: Duration = float(0.0, 4.5).default("1.0");
        /// At most this many random seconds more, so that not all come back together.
        kombu_reconnect_splay: Duration = float(0.0, f64::INFINITY).default("0.0");
        /// How the next of several brokers is chosen.
        kombu_failover_strategy: String = choice(&["round-robin", "shuffle"]).default("round-robin");
        /// Seconds during which a reply is tried again whose queue does not exist.
        kombu_missing_consumer_retry_timeout: Duration = INT.default("60").deprecated(&[("", "kombu_reconnect_timeout")]);
        /// How messages are compressed: `gzip` or `bzip2`. Unset: not at all; compressed ones are read all the same.
        kombu_compression: Option<String> = STR;
        /// Seconds without a sign of life after which a connection counts as lost; 0: never.
        heartbeat_timeout_threshold: Duration = INT.default("60");
        /// How many heartbeats fit into that time.
        heartbeat_rate: u32 = INT.default("3");
        /// Whether a request to a queue that does not exist fails at once; deprecated there.
        direct_mandatory_flag: bool = BOOL.default("true");
        /// Whether consumers are told when a mirrored queue moves.
        enable_cancel_on_failover: bool = BOOL.default("false");
        /// Whether queues are mirrored. Only for brokers before 3.0.
        rabbit_ha_queues: bool = BOOL.default("false");
        /// Whether queues of requests are quorum queues. All services must agree.
        rabbit_quorum_queue: bool = BOOL.default("false");
        /// Whether queues of replies and broadcasts are quorum queues.
        rabbit_transient_quorum_queue: bool = BOOL.default("false");
        /// Quorum queues: how many times a message is delivered at most; 0: no limit set.
        rabbit_quorum_delivery_limit: u32 = INT.default("0");
        /// Quorum queues: how many messages are kept in memory; 0: no limit set.
        rabbit_quorum_max_memory_length: u64 = INT.default("0");
        /// Quorum queues: how many bytes are kept in memory; 0: no limit set.
        rabbit_quorum_max_memory_bytes: u64 = INT.default("0");
        /// Seconds after which an unused queue of replies or broadcasts goes; 0: never.
        rabbit_transient_queues_ttl: Duration = at_least(0).default("1800");
        /// Whether broadcasts go through a stream.
        rabbit_stream_fanout: bool = BOOL.default("false");
        /// How many messages a consumer takes in advance; 0: Scoria takes as many as it has free slots, Python all.
        rabbit_qos_prefetch_count: u16 = INT.default("0");
        /// Whether the names of queues of replies are made of host, program and a number, not at random.
        use_queue_manager: bool = BOOL.default("false");
        /// The host in those names.
        hostname: String = STR.computed("host name", hostname);
        /// The program in those names.
        processname: String = STR.computed("program name", program);
    }
}

fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "scoria-volume".to_owned(), |name| name.to_string_lossy().into_owned())
}
