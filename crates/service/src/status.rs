//! What the admin port tells.

use std::sync::Arc;

use scoria_api::admin::Status;
use scoria_coordination::Coordinator;
use scoria_manager::VolumeManager;
use scoria_rpc::Transport;
use serde_json::{Value, json};

/// The parts whose health is the service's health.
pub(crate) struct ServiceStatus {
    pub(crate) managers: Vec<Arc<VolumeManager>>,
    pub(crate) locks: Coordinator,
    pub(crate) transport: Arc<dyn Transport>,
}

/// One line for systemd.
pub(crate) fn status_line(managers: &[Arc<VolumeManager>]) -> String {
    let idle = managers.iter().filter_map(|manager| Some((manager.name(), manager.isolated()?)));
    let idle: Vec<String> = idle.map(|(name, reason)| format!("{name} takes no work: {reason}")).collect();
    if idle.is_empty() { "serving".to_owned() } else { idle.join("; ") }
}

impl Status for ServiceStatus {
    fn health(&self) -> Vec<(String, Result<(), String>)> {
        let locks = match self.locks.health() {
            scoria_coordination::Health::Up => Ok(()),
            scoria_coordination::Health::Down(reason) => Err(reason),
        };
        let broker = match self.transport.health() {
            scoria_rpc::Health::Up => Ok(()),
            scoria_rpc::Health::Down(reason) => Err(reason),
        };
        let mut parts = vec![("locks".to_owned(), locks), ("broker".to_owned(), broker)];
        for manager in &self.managers {
            let database = manager.database_health().map_or(Ok(()), Err);
            parts.push((format!("database of {}", manager.name()), database));
            let driver = if manager.is_driver_ready() { Ok(()) } else { Err("driver is not initialized".to_owned()) };
            parts.push((format!("driver of {}", manager.name()), driver));
            let work = manager.isolated().map_or(Ok(()), |reason| Err(format!("no work is taken: {reason}")));
            parts.push((format!("work of {}", manager.name()), work));
        }
        parts
    }

    fn operations(&self) -> Value {
        let show = |manager: &Arc<VolumeManager>| {
            let list = manager.running().list().into_iter();
            list.map(|running| {
                json!({
                    "backend": manager.name(),
                    "operation": running.operation,
                    "resource": running.resource,
                    "request_id": running.request_id,
                    "state": running.state,
                    "seconds": running.since.as_secs_f64(),
                })
            })
            .collect::<Vec<_>>()
        };
        Value::Array(self.managers.iter().flat_map(show).collect())
    }
}
