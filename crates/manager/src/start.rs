//! Start of a back end (`cinder/volume/manager.py: VolumeManager.init_host`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use scoria_db::{Expect, NewService, VolumeChange, VolumeOwner};
use scoria_model::{VolumeId, VolumeStatus};

use crate::manager::VolumeManager;

impl VolumeManager {
    /// Registers the service and sets up the driver. A driver that cannot be set up leaves the service running: its
    /// methods answer that it is not initialised, and it is tried again.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn start(self: &Arc<Self>) -> Result<(), scoria_db::Error> {
        let service = self
            .db
            .service_register(&NewService {
                host: self.options.service_host(),
                binary: "cinder-volume".to_owned(),
                topic: "cinder-volume".to_owned(),
                availability_zone: self.options.availability_zone.clone(),
                cluster_name: self.options.cluster_name(),
                enable_new_services: self.options.enable_new_services,
            })
            .await?;
        tracing::info!(service = service.host, id = service.id, "service registered");
        // A second start of the same manager would be a mistake of the caller; the first row stands.
        let _ = self.service.set(service);
        self.isolation.database_answered(Ok(()));
        self.watch_lifelines();
        let new_install = self.db.volumes_empty().await?;
        self.set_up_driver(new_install).await?;
        Ok(())
    }

    /// Tries once and `reinit_driver_count` times more, waiting 1, 2, 4 … seconds; then goes on trying in the background.
    async fn set_up_driver(self: &Arc<Self>, new_install: bool) -> Result<(), scoria_db::Error> {
        let Err(error) = self.driver.setup(new_install).await else {
            return self.driver_is_up().await;
        };
        tracing::error!(%error, "Failed to initialize driver.");
        let manager = self.clone();
        self.tasks.spawn("driver setup", async move {
            let mut attempt = 0;
            while !manager.draining.is_cancelled() {
                let wait = Duration::from_secs(1 << attempt.min(6));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = manager.draining.cancelled() => return,
                }
                attempt += 1;
                match manager.driver.setup(new_install).await {
                    Ok(()) => match manager.driver_is_up().await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::error!(%error, "rows could not be read after driver setup, trying again")
                        }
                    },
                    Err(error) if attempt <= manager.options.reinit_driver_count => {
                        tracing::error!(%error, attempt, "Failed to initialize driver.");
                    }
                    Err(error) => tracing::warn!(%error, attempt, "driver still not initialized, trying again"),
                }
            }
        });
        Ok(())
    }

    /// Counts what is there, makes attached volumes reachable, and opens for work.
    async fn driver_is_up(self: &Arc<Self>) -> Result<(), scoria_db::Error> {
        let (host, cluster) = (self.options.service_host(), self.options.cluster_name());
        let owner = cluster.as_deref().map_or(VolumeOwner::Host(&host), VolumeOwner::Cluster);
        let volumes = self.db.volumes_of_service(owner, None, None).await?;
        let mut pools = BTreeMap::new();
        for volume in &volumes {
            let size = i64::try_from(volume.size).unwrap_or(i64::MAX);
            *pools.entry(self.pool_of(volume.host.as_deref())).or_default() += size;
        }
        self.allocated.set(pools);
        for found in volumes.iter().filter(|volume| volume.status == VolumeStatus::InUse) {
            let Some(volume) = self.db.volume_get(&found.id).await? else { continue };
            if let Err(error) = self.driver.ensure_export(&volume).await {
                tracing::error!(volume = %volume.id, %error, "Failed to re-export volume, setting to ERROR.");
                self.mark_unreachable(&volume.id).await?;
            }
        }
        self.driver_ready.store(true, Ordering::Release);
        self.report_wanted.notify_one();
        tracing::info!(volumes = volumes.len(), "Driver initialization completed successfully.");
        Ok(())
    }

    async fn mark_unreachable(&self, id: &VolumeId) -> Result<(), scoria_db::Error> {
        let change = VolumeChange::status(VolumeStatus::Error);
        self.db.volume_update(id, &Expect::status(VolumeStatus::InUse), &change).await?;
        Ok(())
    }
}
