//! What the manager has to be told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// Options of one back end's manager; the names in brackets are Cinder's.
#[derive(Debug, Clone)]
pub struct Options {
    /// Node part of the service's name: `[<backend>] backend_host` or `[DEFAULT] host`.
    pub host: String,
    /// Section name of the back end.
    pub backend: String,
    /// `[DEFAULT] cluster`, stripped; `None` when the service runs alone.
    pub cluster: Option<String>,
    /// `backend_availability_zone` or `storage_availability_zone`.
    pub availability_zone: String,
    /// `enable_new_services`.
    pub enable_new_services: bool,
    /// `report_interval`.
    pub report_interval: Duration,
    /// `service_down_time`: after how long without a sign of life a service counts as dead, to others and to itself.
    pub service_down_time: Duration,
    /// How long the lock service may be away before no more work is taken.
    pub isolation_grace: Duration,
    /// `backend_stats_polling_interval`.
    pub stats_interval: Duration,
    /// `reinit_driver_count`.
    pub reinit_driver_count: u32,
    /// `rpc_response_timeout`: how long a caller waits.
    pub response_timeout: Duration,
    /// Longest wait for a lock before an operation fails; `None` is unlimited.
    pub lock_wait_timeout: Option<Duration>,
    /// Longest run of an operation; `None` is unlimited.
    pub operation_timeout: Option<Duration>,
    /// When a cast that still runs is acknowledged: below the broker's consumer timeout (30 min).
    pub late_ack_ceiling: Duration,
    /// `graceful_shutdown_timeout`; zero waits for ever.
    pub graceful_shutdown_timeout: Duration,
    /// How long after the start interrupted work of this service may still come back from the broker by itself.
    pub recovery_grace: Duration,
    /// How often is looked for work whose holder is gone.
    pub sweep_interval: Duration,
    /// Messages are carried within this process: what was not begun when it ended is nowhere but in the rows' states.
    pub messages_die_with_us: bool,
    /// Operations at a time in the quick lane.
    pub quick_slots: u16,
    /// Operations at a time in the heavy lane.
    pub heavy_slots: u16,
    /// `no_snapshot_gb_quota`.
    pub no_snapshot_gb_quota: bool,
    /// `message_ttl`, seconds.
    pub message_ttl: i64,
    /// `extra_capabilities`: merged into the reports.
    pub extra_capabilities: Map<String, Value>,
    /// `filter_function`.
    pub filter_function: Option<String>,
    /// `goodness_function`.
    pub goodness_function: Option<String>,
    /// `report_discard_supported`.
    pub report_discard_supported: bool,
}

impl Options {
    /// Defaults of every option that is not a name.
    #[must_use]
    pub fn new(host: &str, backend: &str) -> Self {
        Self {
            host: host.to_owned(),
            backend: backend.to_owned(),
            cluster: None,
            availability_zone: "nova".to_owned(),
            enable_new_services: true,
            report_interval: Duration::from_secs(10),
            service_down_time: Duration::from_secs(60),
            isolation_grace: Duration::from_secs(5),
            stats_interval: Duration::from_secs(60),
            reinit_driver_count: 3,
            response_timeout: Duration::from_secs(60),
            lock_wait_timeout: Some(Duration::from_secs(3600)),
            operation_timeout: None,
            late_ack_ceiling: Duration::from_secs(600),
            graceful_shutdown_timeout: Duration::from_secs(60),
            recovery_grace: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(30),
            messages_die_with_us: false,
            quick_slots: 64,
            heavy_slots: 16,
            no_snapshot_gb_quota: false,
            message_ttl: 2_592_000,
            extra_capabilities: Map::new(),
            filter_function: None,
            goodness_function: None,
            report_discard_supported: false,
        }
    }

    /// `host@backend`: `services.host`.
    #[must_use]
    pub fn service_host(&self) -> String {
        format!("{}@{}", self.host, self.backend)
    }

    /// `service_down_time`, or two and a half reports where it is not longer than one (`cinder/service.py: Service`).
    pub(crate) fn service_down_time(&self) -> Duration {
        if self.service_down_time <= self.report_interval {
            return self.report_interval.mul_f64(2.5);
        }
        self.service_down_time
    }

    /// `cluster@backend`: `services.cluster_name`.
    #[must_use]
    pub fn cluster_name(&self) -> Option<String> {
        self.cluster.as_ref().map(|cluster| format!("{cluster}@{}", self.backend))
    }
}

/// Reads and sets log levels by logger prefix, for `set_log_levels` and `get_log_levels`.
pub trait LogControl: Send + Sync + std::fmt::Debug {
    /// Sets the level of every logger below `prefix`.
    ///
    /// # Errors
    /// A text naming the level that is none.
    fn set(&self, prefix: &str, level: &str) -> Result<(), String>;
    /// Levels of the loggers below `prefix`.
    fn get(&self, prefix: &str) -> BTreeMap<String, String>;
}
