//! What the operator can set: the transport URL's parts and the `[oslo_messaging_rabbit]` options, by their own names.

use std::path::PathBuf;
use std::time::Duration;

use super::compression::Compression;
use crate::Error;

/// One broker of the transport URL.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerHost {
    /// Host name or address (an IPv6 address without brackets).
    pub host: String,
    /// Port; 5672 where the URL names none.
    pub port: u16,
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
}

impl BrokerHost {
    /// A broker.
    #[must_use]
    pub fn new(host: &str, port: u16, username: &str, password: &str) -> Self {
        Self { host: host.to_owned(), port, username: username.to_owned(), password: password.to_owned() }
    }
}

impl Default for BrokerHost {
    /// What a URL without hosts means: `guest:guest@localhost:5672`.
    fn default() -> Self {
        Self::new("localhost", 5672, "guest", "guest")
    }
}

impl std::fmt::Display for BrokerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The password stays out of logs.
impl std::fmt::Debug for BrokerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{self}", self.username)
    }
}

/// `rabbit_login_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginMethod {
    /// User and password, RabbitMQ's own form.
    #[default]
    AmqPlain,
    /// User and password, SASL's form.
    Plain,
    /// The client certificate says who we are.
    External,
}

impl std::str::FromStr for LoginMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_uppercase().as_str() {
            "AMQPLAIN" => Ok(Self::AmqPlain),
            "PLAIN" => Ok(Self::Plain),
            "EXTERNAL" => Ok(Self::External),
            _ => Err(Error::Config(format!("rabbit_login_method {text:?}: use AMQPLAIN, PLAIN or EXTERNAL"))),
        }
    }
}

/// `kombu_failover_strategy`: which broker is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any.
    Shuffle,
}

impl std::str::FromStr for Failover {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "shuffle" => Ok(Self::Shuffle),
            _ => Err(Error::Config(format!("kombu_failover_strategy {text:?}: use round-robin or shuffle"))),
        }
    }
}

/// `[oslo_messaging_rabbit]`, with oslo.messaging's names and defaults (`oslo_messaging/_drivers/impl_rabbit.py:
/// rabbit_opts`, `amqp.py: amqp_opts`).
///
/// Without meaning here, and so absent: the connection pool (`rpc_conn_pool_size`, `conn_pool_*`: there are two
/// connections), `heartbeat_rate`, `direct_mandatory_flag`, `ssl_version` and `ssl_enforce_fips_mode`.
#[derive(Debug, Clone, PartialEq)]
pub struct RabbitOptions {
    /// Topic queues and the control exchange survive a restart of the broker.
    pub amqp_durable_queues: bool,
    /// Topic queues and the control exchange go when nobody uses them.
    pub amqp_auto_delete: bool,
    /// TLS. The broker's certificate is always verified.
    pub ssl: bool,
    /// Certificate authorities (PEM); `None` for those of the system.
    pub ssl_ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    pub ssl_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub ssl_key_file: Option<PathBuf>,
    /// Whether the certificate must name the broker's host. oslo.messaging asks for that only with one host in the URL.
    pub ssl_enforce_hostname_verification: bool,
    /// Wait after a connection was lost.
    pub kombu_reconnect_delay: Duration,
    /// Up to so much more, drawn at random, so that a cloud does not come back all at once.
    pub kombu_reconnect_splay: Duration,
    /// How long a reply is offered to a caller whose queue is missing.
    pub kombu_missing_consumer_retry_timeout: Duration,
    /// How everything that is sent is compressed. Read is what others compress, whatever this says.
    pub kombu_compression: Option<Compression>,
    /// Which broker is tried next.
    pub kombu_failover_strategy: Failover,
    /// How to log in.
    pub rabbit_login_method: LoginMethod,
    /// First wait after all brokers were tried in vain.
    pub rabbit_retry_interval: Duration,
    /// So much longer each time.
    pub rabbit_retry_backoff: Duration,
    /// But not longer than this.
    pub rabbit_interval_max: Duration,
    /// `x-ha-policy: all` on every queue.
    pub rabbit_ha_queues: bool,
    /// Topic queues are quorum queues.
    pub rabbit_quorum_queue: bool,
    /// So are fanout and reply queues.
    pub rabbit_transient_quorum_queue: bool,
    /// `x-delivery-limit` of quorum queues; 0 for none.
    pub rabbit_quorum_delivery_limit: u32,
    /// `x-max-in-memory-length` of quorum queues; 0 for none.
    pub rabbit_quorum_max_memory_length: u32,
    /// `x-max-in-memory-bytes` of quorum queues; 0 for none.
    pub rabbit_quorum_max_memory_bytes: u32,
    /// When an unused fanout or reply queue goes (`x-expires`), or, with streams, how long messages are kept; whole
    /// seconds, zero for never.
    pub rabbit_transient_queues_ttl: Duration,
    /// Upper limit for what a listener prefetches; 0 leaves it to the listener.
    pub rabbit_qos_prefetch_count: u16,
    /// AMQP heartbeat; zero leaves it to the broker.
    pub heartbeat_timeout_threshold: Duration,
    /// Consumers are told when a mirrored queue fails over.
    pub enable_cancel_on_failover: bool,
    /// Fanout and reply queues are named after host and process, and stay.
    pub use_queue_manager: bool,
    /// The host in those names.
    pub hostname: String,
    /// The process in those names: it must be the only one of that name on the host.
    pub processname: String,
    /// One stream per topic in place of fanout queues.
    pub rabbit_stream_fanout: bool,
}

impl Default for RabbitOptions {
    fn default() -> Self {
        Self {
            amqp_durable_queues: false,
            amqp_auto_delete: false,
            ssl: false,
            ssl_ca_file: None,
            ssl_cert_file: None,
            ssl_key_file: None,
            ssl_enforce_hostname_verification: true,
            kombu_reconnect_delay: Duration::from_secs(1),
            kombu_reconnect_splay: Duration::ZERO,
            kombu_missing_consumer_retry_timeout: Duration::from_secs(60),
            kombu_compression: None,
            kombu_failover_strategy: Failover::RoundRobin,
            rabbit_login_method: LoginMethod::AmqPlain,
            rabbit_retry_interval: Duration::from_secs(1),
            rabbit_retry_backoff: Duration::from_secs(2),
            rabbit_interval_max: Duration::from_secs(30),
            rabbit_ha_queues: false,
            rabbit_quorum_queue: false,
            rabbit_transient_quorum_queue: false,
            rabbit_quorum_delivery_limit: 0,
            rabbit_quorum_max_memory_length: 0,
            rabbit_quorum_max_memory_bytes: 0,
            rabbit_transient_queues_ttl: Duration::from_secs(1800),
            rabbit_qos_prefetch_count: 0,
            heartbeat_timeout_threshold: Duration::from_secs(60),
            enable_cancel_on_failover: false,
            use_queue_manager: false,
            hostname: String::new(),
            processname: String::new(),
            rabbit_stream_fanout: false,
        }
    }
}

/// `[oslo_messaging_notifications]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationOptions {
    /// `messagingv2`, `messaging`, `log`, `noop`; empty sends nothing.
    pub drivers: Vec<String>,
    /// Queues to send to, each with the priority appended (`notifications.info`).
    pub topics: Vec<String>,
    /// Brokers of their own, with the virtual host; `None` for those of the requests.
    pub brokers: Option<(Vec<BrokerHost>, String)>,
}

impl Default for NotificationOptions {
    fn default() -> Self {
        Self { drivers: Vec::new(), topics: vec!["notifications".to_owned()], brokers: None }
    }
}

/// Everything that [`AmqpTransport`](super::AmqpTransport) is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct AmqpOptions {
    /// The brokers of the transport URL; empty means `guest:guest@localhost:5672`.
    pub hosts: Vec<BrokerHost>,
    /// Virtual host; empty means `/`.
    pub virtual_host: String,
    /// `[DEFAULT] control_exchange`.
    pub control_exchange: String,
    /// `[DEFAULT] rpc_response_timeout`: how long a message is offered to a broker that does not take it.
    pub publish_timeout: Duration,
    /// Our name towards the broker.
    pub process_name: String,
    /// `[oslo_messaging_rabbit]`.
    pub rabbit: RabbitOptions,
    /// `[oslo_messaging_notifications]`.
    pub notifications: NotificationOptions,
}

impl Default for AmqpOptions {
    fn default() -> Self {
        Self {
            hosts: vec![BrokerHost::default()],
            virtual_host: "/".to_owned(),
            control_exchange: "openstack".to_owned(),
            publish_timeout: Duration::from_secs(crate::RESPONSE_TIMEOUT_SECONDS),
            process_name: "scoria-volume".to_owned(),
            rabbit: RabbitOptions::default(),
            notifications: NotificationOptions::default(),
        }
    }
}

impl AmqpOptions {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`Error::Config`] naming the options and what to do.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::Config(text.to_owned()));
        let rabbit = &self.rabbit;
        if rabbit.rabbit_ha_queues && (rabbit.rabbit_quorum_queue || rabbit.rabbit_transient_quorum_queue) {
            return refuse("rabbit_ha_queues and quorum queues exclude each other: unset rabbit_ha_queues");
        }
        if rabbit.rabbit_stream_fanout && !rabbit.rabbit_transient_quorum_queue {
            return refuse("rabbit_stream_fanout needs rabbit_transient_quorum_queue = true");
        }
        if rabbit.use_queue_manager && (rabbit.hostname.is_empty() || rabbit.processname.is_empty()) {
            return refuse("use_queue_manager needs hostname and processname");
        }
        if rabbit.ssl_cert_file.is_some() != rabbit.ssl_key_file.is_some() {
            return refuse("ssl_cert_file and ssl_key_file: set both or none");
        }
        if rabbit.rabbit_login_method == LoginMethod::External && rabbit.ssl_cert_file.is_none() {
            return refuse("rabbit_login_method EXTERNAL needs ssl, ssl_cert_file and ssl_key_file");
        }
        let longest = rabbit.hostname.len() + rabbit.processname.len() + "reply_::".len() + 20;
        if longest.max(self.control_exchange.len()).max(self.virtual_host.len()) > super::MAX_NAME_BYTES {
            return refuse(
                "control_exchange, virtual host, hostname or processname is too long: AMQP names have 255 bytes",
            );
        }
        for driver in &self.notifications.drivers {
            if !["messagingv2", "messaging", "log", "noop", ""].contains(&driver.as_str()) {
                let text = format!("notification driver {driver:?}: use messagingv2, messaging, log or noop");
                return Err(Error::Config(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut AmqpOptions)) -> String {
        let mut options = AmqpOptions::default();
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn contradictions_are_refused_with_the_options_name() {
        AmqpOptions::default().check().unwrap();
        let both = refused(|o| (o.rabbit.rabbit_ha_queues, o.rabbit.rabbit_quorum_queue) = (true, true));
        assert!(both.contains("rabbit_ha_queues"), "{both}");
        assert!(refused(|o| o.rabbit.rabbit_stream_fanout = true).contains("rabbit_transient_quorum_queue"));
        assert!(refused(|o| o.rabbit.use_queue_manager = true).contains("hostname"));
        assert!(refused(|o| o.rabbit.ssl_key_file = Some("k".into())).contains("ssl_cert_file"));
        assert!(refused(|o| o.rabbit.rabbit_login_method = LoginMethod::External).contains("EXTERNAL"));
        assert!(refused(|o| o.control_exchange = "x".repeat(256)).contains("control_exchange"));
        assert!(refused(|o| o.notifications.drivers = vec!["kafka".into()]).contains("kafka"));
        assert!("kerberos".parse::<LoginMethod>().unwrap_err().to_string().contains("kerberos"));
        assert!("nearest".parse::<Failover>().unwrap_err().to_string().contains("nearest"));
    }

    #[test]
    fn a_password_is_not_printed() {
        let options = AmqpOptions { hosts: vec![BrokerHost::new("h", 1, "u", "hunter2")], ..AmqpOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
