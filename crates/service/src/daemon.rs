//! The daemon: everything started in order, signals, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use scoria_api::{admin, volume};
use scoria_conf::Config;
use scoria_coordination::Coordinator;
use scoria_db::Database;
use scoria_manager::{LogControl, Parts, VolumeManager};
use scoria_rpc::Transport;
use scoria_runtime::Tasks;
use scoria_runtime::logging::LogHandle;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use crate::signals::{self, Asked, Signals};
use crate::status::{ServiceStatus, status_line};
use crate::{log, parts};

/// Log levels, as the RPC methods about them see them.
#[derive(Debug)]
struct Levels(LogHandle);

impl LogControl for Levels {
    fn set(&self, prefix: &str, level: &str) -> Result<(), String> {
        self.0.set_level(prefix, level).map_err(|error| error.to_string())
    }
    fn get(&self, prefix: &str) -> std::collections::BTreeMap<String, String> {
        self.0.levels(prefix)
    }
}

/// What runs.
struct Daemon {
    config: Config,
    log: LogHandle,
    tasks: Tasks,
    db: Database,
    locks: Coordinator,
    transport: Arc<dyn Transport>,
    managers: Vec<Arc<VolumeManager>>,
}

/// Starts everything, serves until a signal ends it, and ends in order.
///
/// # Errors
/// What keeps the service from starting; a running service handles its troubles itself.
pub async fn run(config: Config, log: LogHandle) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    for warning in config.warnings.iter().cloned().chain(log::ignored(&config)) {
        tracing::warn!("{warning}");
    }
    log::options_in_force(&config);
    // The ports first: a second daemon on them must change nothing.
    let admin =
        listen(&config.scoria.admin_listen, config.scoria.admin_listen_port, "[scoria] admin_listen_port").await?;
    let front_door = match config.scoria.standalone {
        true => {
            Some(listen(&config.scoria.api_listen, config.scoria.api_listen_port, "[scoria] api_listen_port").await?)
        }
        false => None,
    };
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics")?;
    scoria_manager::describe_metrics();
    scoria_coordination::metrics::describe();
    if config.scoria.standalone {
        std::fs::create_dir_all(&config.default.state_path)
            .with_context(|| format!("state_path {}", config.default.state_path.display()))?;
    }
    let mut daemon = Daemon::assemble(config, log).await?;
    daemon.serve_admin(admin, metrics)?;
    daemon.start().await?;
    if let Some(listener) = front_door {
        daemon.open_front_door(listener)?;
    }
    // A service that is cut off from its locks is up all the same: it says so, and begins when they are there.
    signals::tell(&[NotifyState::Ready]);
    tracing::info!("ready");
    daemon.tell_status();
    daemon.watch().await;
    loop {
        match signals.next().await {
            Asked::Reload => daemon.reload(),
            Asked::Drain => {
                tracing::info!("SIGTERM: finishing what is running");
                daemon.drain(&mut signals).await;
                break;
            }
            Asked::Stop => {
                tracing::info!("SIGINT: stopping at the next safe point");
                daemon.managers.iter().for_each(|manager| manager.stop_now());
                daemon.drain(&mut signals).await;
                break;
            }
        }
    }
    daemon.close().await;
    Ok(())
}

async fn listen(address: &str, port: u16, option: &str) -> anyhow::Result<TcpListener> {
    let bare = address.trim_matches(['[', ']']);
    TcpListener::bind((bare, port))
        .await
        .with_context(|| format!("{option} = {port}: cannot listen on {address}:{port}; is another instance running?"))
}

impl Daemon {
    async fn assemble(config: Config, log: LogHandle) -> anyhow::Result<Self> {
        let db = parts::connect(&config).await?;
        if config.scoria.standalone {
            db.sync().await?;
        }
        db.check_schema().await?;
        let locks = parts::coordinator(&config).await?;
        tracing::info!("{}", parts::protection(&config, &locks));
        let transport = parts::transport(&config)?;
        let compute = parts::compute(&config)?;
        let tasks = Tasks::new();
        let mut managers = Vec::new();
        for backend in &config.backends {
            managers.push(VolumeManager::new(Parts {
                options: parts::manager_options(&config, backend)?,
                db: db.clone(),
                locks: locks.clone(),
                driver: parts::driver(&config, backend)?,
                compute: compute.clone(),
                transport: transport.clone(),
                log: Arc::new(Levels(log.clone())),
                tasks: tasks.clone(),
            }));
        }
        Ok(Self { config, log, tasks, db, locks, transport, managers })
    }

    fn serve_admin(&self, listener: TcpListener, metrics: PrometheusHandle) -> anyhow::Result<()> {
        let status = ServiceStatus {
            managers: self.managers.clone(),
            locks: self.locks.clone(),
            transport: self.transport.clone(),
        };
        let state = admin::AdminState {
            status: Arc::new(status),
            metrics: Arc::new(move || metrics.render()),
            coordinator: self.locks.clone(),
        };
        self.serve_http("admin", listener, admin::router(state))
    }

    fn serve_http(&self, name: &'static str, listener: TcpListener, router: axum::Router) -> anyhow::Result<()> {
        let address: SocketAddr = listener.local_addr()?;
        tracing::info!("{name} listens on http://{address}");
        let stop = self.tasks.stop_token();
        self.tasks.spawn(name, async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await;
            if let Err(error) = served {
                tracing::error!(%error, "{name} ended");
            }
        });
        Ok(())
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        for manager in &self.managers {
            manager.start().await?;
            manager.start_reports();
            manager.start_recovery();
            let serving = manager.clone();
            self.tasks.spawn("serve", async move {
                if let Err(error) = serving.serve().await {
                    tracing::error!(%error, "no longer serving requests");
                }
            });
        }
        Ok(())
    }

    fn open_front_door(&self, listener: TcpListener) -> anyhow::Result<()> {
        let config = &self.config;
        let manager = self.managers.first().context("stand-alone mode has one back end")?;
        let host: scoria_model::Host = manager.name().parse()?;
        let pool = parts::backend_name(&config.backends[0]);
        let door = volume::FrontDoor {
            database: self.db.clone(),
            rpc: scoria_rpc::Client::new(self.transport.clone(), config.messaging.rpc_response_timeout),
            coordinator: self.locks.clone(),
            host: host.with_pool(Some(&pool)),
            cluster: None,
            quotas: parts::quota_defaults(config),
            snapshots_use_gigabytes: !config.quota.no_snapshot_gb_quota,
            token: config.scoria.auth_token.clone(),
            availability_zone: config.default.storage_availability_zone.clone(),
            default_volume_type: config.default.default_volume_type.clone(),
            page_limit: 1000,
            service_down_time: i64::try_from(config.default.service_down_time.as_secs()).unwrap_or(i64::MAX),
        };
        self.serve_http("front door", listener, volume::router(door))
    }

    /// Keeps systemd's status line true: `serving`, or which back end takes no work and why.
    fn tell_status(&self) {
        for manager in &self.managers {
            let (managers, mut access, stop) = (self.managers.clone(), manager.access(), self.tasks.stop_token());
            self.tasks.spawn("status", async move {
                loop {
                    signals::tell(&[NotifyState::Status(&status_line(&managers))]);
                    tokio::select! {
                        changed = access.changed() => if changed.is_err() { return },
                        () = stop.cancelled() => return,
                    }
                }
            });
        }
    }

    /// Tells systemd's watchdog that the executor still turns.
    async fn watch(&self) {
        let Some(period) = signals::watchdog_period() else { return };
        let stop = self.tasks.stop_token();
        self.tasks.spawn("watchdog", async move {
            let mut every = tokio::time::interval(period);
            loop {
                tokio::select! {
                    _ = every.tick() => signals::tell(&[NotifyState::Watchdog]),
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    fn reload(&mut self) {
        signals::tell_reloading();
        match self.config.reload() {
            Ok(reload) => {
                for change in &reload.changed {
                    tracing::info!("{change}");
                }
                for line in &reload.ignored {
                    tracing::warn!("{line}");
                }
                if let Err(error) = log::reload(&self.log, &self.config, &reload.config) {
                    tracing::error!("logging was not changed: {error:#}");
                }
                self.config = reload.config;
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!("configuration was not reloaded: {error}"),
        }
        signals::tell(&[NotifyState::Ready]);
    }

    /// Waits for what is running; a second signal shortens the wait.
    async fn drain(&self, signals: &mut Signals) {
        let longest = self.config.default.graceful_shutdown_timeout + Duration::from_secs(15);
        let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        signals::tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
        let drains = self.managers.iter().map(|manager| manager.drain());
        let all = futures_util::future::join_all(drains);
        tokio::pin!(all);
        loop {
            tokio::select! {
                _ = &mut all => return,
                asked = signals.next() => {
                    if asked != Asked::Reload {
                        self.managers.iter().for_each(|manager| manager.stop_now());
                    }
                }
            }
        }
    }

    /// Locks go last: work that was still running had them to its end.
    async fn close(self) {
        self.tasks.shutdown().await;
        self.transport.close().await;
        self.locks.close().await;
        self.db.close().await;
        tracing::info!("ended");
    }
}
