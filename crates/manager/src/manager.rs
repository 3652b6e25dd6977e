//! The manager of one back end: what every operation of it needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use scoria_compute::Compute;
use scoria_coordination::Coordinator;
use scoria_db::Database;
use scoria_drivers::VolumeDriver;
use scoria_model::{Fault, Host, Service, Timestamp, Volume};
use scoria_rpc::{Client, Transport};
use scoria_runtime::{CancellationToken, KeyedTurns, Tasks};
use tokio::sync::{Notify, Semaphore};

use crate::capacity::Allocated;
use crate::isolation::Isolation;
use crate::notify::Notifier;
use crate::options::{LogControl, Options};
use crate::running::Running;

/// What a manager is put together from.
pub struct Parts {
    /// Options.
    pub options: Options,
    /// Database.
    pub db: Database,
    /// Locks.
    pub locks: Coordinator,
    /// Storage.
    pub driver: Arc<dyn VolumeDriver>,
    /// Nova; `None` when it is not configured.
    pub compute: Option<Arc<dyn Compute>>,
    /// Broker.
    pub transport: Arc<dyn Transport>,
    /// Log levels, for the RPC methods about them.
    pub log: Arc<dyn LogControl>,
    /// Where tasks are spawned.
    pub tasks: Tasks,
}

/// Serves one back end.
pub struct VolumeManager {
    pub(crate) options: Options,
    pub(crate) db: Database,
    pub(crate) locks: Coordinator,
    pub(crate) driver: Arc<dyn VolumeDriver>,
    pub(crate) compute: Option<Arc<dyn Compute>>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) rpc: Client,
    pub(crate) log: Arc<dyn LogControl>,
    pub(crate) notifier: Notifier,
    pub(crate) tasks: Tasks,
    pub(crate) running: Running,
    pub(crate) allocated: Allocated,
    pub(crate) turns: KeyedTurns,
    pub(crate) quick: Arc<Semaphore>,
    pub(crate) heavy: Arc<Semaphore>,
    /// The services row, known after [`VolumeManager::start`].
    pub(crate) service: OnceLock<Service>,
    pub(crate) driver_ready: AtomicBool,
    pub(crate) isolation: Isolation,
    /// When this process began.
    pub(crate) born: Timestamp,
    /// Asks for a capability report soon.
    pub(crate) report_wanted: Notify,
    /// Cancelled when no new work is to begin.
    pub(crate) draining: CancellationToken,
    /// Cancelled when running work has to stop at its next safe point.
    pub(crate) stop_now: CancellationToken,
    #[cfg(test)]
    pub(crate) script: crate::testing::script::Script,
}

impl VolumeManager {
    /// Puts a manager together; nothing is started.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let rpc = Client::new(parts.transport.clone(), parts.options.response_timeout);
        let notifications = parts.transport.clone();
        Arc::new(Self {
            quick: Arc::new(Semaphore::new(parts.options.quick_slots.into())),
            heavy: Arc::new(Semaphore::new(parts.options.heavy_slots.into())),
            options: parts.options,
            db: parts.db,
            locks: parts.locks,
            driver: parts.driver,
            compute: parts.compute,
            transport: parts.transport,
            rpc,
            log: parts.log,
            notifier: Notifier::start(notifications, &parts.tasks),
            tasks: parts.tasks,
            running: Running::default(),
            allocated: Allocated::default(),
            turns: KeyedTurns::new(),
            service: OnceLock::new(),
            driver_ready: AtomicBool::new(false),
            isolation: Isolation::new(),
            born: Timestamp::now(),
            report_wanted: Notify::new(),
            draining: CancellationToken::new(),
            stop_now: CancellationToken::new(),
            #[cfg(test)]
            script: crate::testing::script::Script::default(),
        })
    }

    /// What is running now.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Whether the driver is set up.
    #[must_use]
    pub fn is_driver_ready(&self) -> bool {
        self.driver_ready.load(Ordering::Acquire)
    }

    /// Back end's name, for health and logs.
    #[must_use]
    pub fn name(&self) -> String {
        self.options.service_host()
    }

    /// Has running operations stop at their next safe point, without waiting for the grace time.
    pub fn stop_now(&self) {
        self.stop_now.cancel();
    }

    /// Why the database did not answer to the last sign of life; `None` when it did.
    #[must_use]
    pub fn database_health(&self) -> Option<String> {
        self.isolation.database_trouble()
    }

    pub(crate) fn require_driver(&self) -> Result<(), Fault> {
        if self.is_driver_ready() { Ok(()) } else { Err(Fault::driver_not_initialized()) }
    }

    pub(crate) fn service(&self) -> &Service {
        self.service.get().expect("requests are served only after start has registered the service")
    }

    /// Prefix of the driver's lock names.
    pub(crate) fn lock_prefix(&self) -> &'static str {
        self.driver.info().lock_prefix
    }

    /// Whether a volume is served here: by cluster when clustered, else by host, pools aside
    /// (`cinder/volume/manager.py: VolumeManager._check_is_our_resource`).
    pub(crate) fn is_ours(&self, volume: &Volume) -> bool {
        let (theirs, ours) = match (&volume.cluster_name, self.options.cluster_name()) {
            (Some(cluster), Some(ours)) if !cluster.is_empty() => (cluster.clone(), ours),
            _ => match &volume.host {
                Some(host) => (host.clone(), self.options.service_host()),
                None => return true,
            },
        };
        match (theirs.parse::<Host>(), ours.parse::<Host>()) {
            (Ok(theirs), Ok(ours)) => theirs.same_service(&ours),
            _ => false,
        }
    }

    /// Pool under which the size of a volume on `host` is counted.
    pub(crate) fn pool_of(&self, host: Option<&str>) -> String {
        let host = host.and_then(|host| host.parse::<Host>().ok());
        host.and_then(|host| host.pool).unwrap_or_else(|| self.options.backend.clone())
    }
}
