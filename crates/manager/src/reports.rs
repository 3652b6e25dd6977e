//! What the service says of itself by itself: heartbeats to the database, capabilities to the scheduler.

use std::sync::Arc;

use scoria_coordination::Health;
use scoria_db::NewService;
use scoria_drivers::BackendStats;
use scoria_model::{RequestContext, Timestamp};
use serde_json::{Map, Value, json};

use crate::manager::VolumeManager;

impl VolumeManager {
    /// Starts the periodic reports. They end with the tasks' stop token.
    pub fn start_reports(self: &Arc<Self>) {
        let manager = self.clone();
        let stop = self.tasks.stop_token();
        self.tasks.spawn("heartbeat", async move {
            let mut every = tokio::time::interval(manager.options.report_interval);
            every.tick().await;
            loop {
                tokio::select! {
                    _ = every.tick() => manager.heartbeat().await,
                    () = stop.cancelled() => return,
                }
            }
        });
        let manager = self.clone();
        let stop = self.tasks.stop_token();
        self.tasks.spawn("capabilities", async move {
            let mut every = tokio::time::interval(manager.options.stats_interval);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = every.tick() => {}
                    () = manager.report_wanted.notified() => {}
                    () = stop.cancelled() => return,
                }
                manager.publish_capabilities().await;
            }
        });
    }

    /// One heartbeat (`cinder/service.py: Service.report_state`). A driver that is not set up, or a lock service that has
    /// been away for longer than a moment, sends none: the scheduler must not choose this service.
    async fn heartbeat(&self) {
        if !self.is_driver_ready() {
            tracing::error!(
                "Manager for service cinder-volume {} is reporting problems, not sending heartbeat. Service will appear \"down\".",
                self.name()
            );
            return self.ask_database().await;
        }
        // Isolated from the database the heartbeat is how its return is noticed.
        if self.isolated().is_some() && self.locks.health() != Health::Up {
            return self.ask_database().await;
        }
        let beat = self.db.service_heartbeat(self.service().id).await;
        self.isolation.database_answered(beat.as_ref().map(drop).map_err(ToString::to_string));
        match beat {
            Ok(true) => {}
            Ok(false) => self.register_again().await,
            Err(error) => tracing::error!(%error, "model server went away"),
        }
    }

    /// Whether the database is there, without a sign of life to others.
    async fn ask_database(&self) {
        let service = self.service();
        let asked = self.db.service_get(&service.host, &service.binary);
        let answer = match tokio::time::timeout(self.options.report_interval, asked).await {
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("the database does not answer".to_owned()),
        };
        self.isolation.database_answered(answer);
    }

    /// An administrator removed our row: it is made anew, as the Python service does. The new id is only taken at the next
    /// start; until then worker rows carry the old one.
    async fn register_again(&self) {
        let service = self.service();
        tracing::warn!("The service database object disappeared, recreating it.");
        let again = NewService {
            host: service.host.clone(),
            binary: service.binary.clone(),
            topic: "cinder-volume".to_owned(),
            availability_zone: self.options.availability_zone.clone(),
            cluster_name: self.options.cluster_name(),
            enable_new_services: self.options.enable_new_services,
        };
        if let Err(error) = self.db.service_register(&again).await {
            tracing::error!(%error, "service row could not be recreated");
        }
    }

    /// Asks the driver for its statistics and sends them to every scheduler
    /// (`VolumeManager.publish_service_capabilities`).
    pub(crate) async fn publish_capabilities(&self) {
        if !self.is_driver_ready() {
            tracing::warn!("Update driver status failed: driver is uninitialized.");
            return;
        }
        if self.isolated().is_some() {
            tracing::debug!("capabilities are not sent while no work is taken");
            return;
        }
        let stats = match self.driver.stats().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::error!(%error, "capabilities could not be read, the last report stands");
                return;
            }
        };
        let capabilities = self.capabilities(&stats);
        let context = RequestContext::admin();
        let (host, cluster) = (self.options.service_host(), self.options.cluster_name());
        let sent = self.rpc.update_service_capabilities(
            &context,
            &host,
            cluster.as_deref(),
            &capabilities,
            Timestamp::now_precise(),
        );
        if let Err(error) = sent.await {
            tracing::warn!(%error, "capabilities could not be sent");
            return;
        }
        let backend = cluster.unwrap_or(host);
        let notified =
            self.rpc.notify_service_capabilities(&context, &backend, &capabilities, Timestamp::now_precise());
        if let Err(error) = notified.await {
            tracing::warn!(%error, "capabilities could not be sent");
        }
    }

    /// The report: the driver's figures, ours, and what the configuration adds (rpc.md §6.1).
    pub(crate) fn capabilities(&self, stats: &BackendStats) -> Map<String, Value> {
        let info = self.driver.info();
        let mut report = stats.extra.clone();
        let mut set = |key: &str, value: Value| report.insert(key.to_owned(), value);
        set("volume_backend_name", json!(stats.backend_name));
        set("vendor_name", json!(info.vendor));
        set("driver_version", json!(info.version));
        set("storage_protocol", json!(info.storage_protocol));
        set("total_capacity_gb", json!(stats.total_capacity_gb));
        set("free_capacity_gb", json!(stats.free_capacity_gb));
        set("provisioned_capacity_gb", json!(stats.provisioned_capacity_gb));
        set("allocated_capacity_gb", json!(self.allocated.total()));
        set("reserved_percentage", json!(stats.reserved_percentage));
        set("max_over_subscription_ratio", json!(stats.max_over_subscription_ratio));
        set("thin_provisioning_support", json!(stats.thin_provisioning));
        set("thick_provisioning_support", json!(!stats.thin_provisioning));
        set("filter_function", json!(self.options.filter_function));
        set("goodness_function", json!(self.options.goodness_function));
        for (key, value) in &self.options.extra_capabilities {
            report.insert(key.clone(), value.clone());
        }
        report
    }
}
