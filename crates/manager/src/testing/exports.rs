//! A driver with exports, as drivers with targets have them: who made one, and whether it went.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use scoria_drivers::{
    AssistedSnapshots, BackendStats, Capabilities, ConnectionInfo, DriverInfo, Error, LocalDriver, SnapshotFacts,
    VolumeDriver, VolumeFacts, Work,
};
use scoria_model::{Connector, Snapshot, Volume, VolumeId};

/// The local driver, which exports nothing, with a list of exports by volume and host.
#[derive(Debug)]
pub(crate) struct Exporting {
    driver: LocalDriver,
    exports: Mutex<BTreeSet<(String, String)>>,
}

fn host(connector: &Connector) -> String {
    connector.get("host").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

impl Exporting {
    pub(crate) fn new(driver: LocalDriver) -> Self {
        Self { driver, exports: Mutex::default() }
    }

    fn exports(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts that a volume is exported to.
    pub(crate) fn exported_to(&self, volume: &VolumeId) -> Vec<String> {
        let exports = self.exports();
        exports.iter().filter(|(id, _)| id == volume.as_str()).map(|(_, host)| host.clone()).collect()
    }
}

#[async_trait]
impl VolumeDriver for Exporting {
    fn info(&self) -> DriverInfo {
        self.driver.info()
    }
    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }
    async fn setup(&self, new_install: bool) -> Result<(), Error> {
        self.driver.setup(new_install).await
    }
    async fn stats(&self) -> Result<BackendStats, Error> {
        self.driver.stats().await
    }
    async fn create_volume(&self, work: &Work, volume: &Volume) -> Result<VolumeFacts, Error> {
        self.driver.create_volume(work, volume).await
    }
    async fn create_volume_from_snapshot(
        &self,
        work: &Work,
        volume: &Volume,
        snapshot: &Snapshot,
        source: &Volume,
    ) -> Result<VolumeFacts, Error> {
        self.driver.create_volume_from_snapshot(work, volume, snapshot, source).await
    }
    async fn create_cloned_volume(&self, work: &Work, volume: &Volume, source: &Volume) -> Result<VolumeFacts, Error> {
        self.driver.create_cloned_volume(work, volume, source).await
    }
    async fn delete_volume(&self, work: &Work, volume: &Volume) -> Result<(), Error> {
        self.driver.delete_volume(work, volume).await
    }
    async fn create_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        self.driver.create_snapshot(work, snapshot, volume).await
    }
    async fn delete_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        self.driver.delete_snapshot(work, snapshot, volume).await
    }
    fn assisted_snapshots(&self) -> Option<&dyn AssistedSnapshots> {
        self.driver.assisted_snapshots()
    }
    async fn revert_to_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<(), Error> {
        self.driver.revert_to_snapshot(work, snapshot, volume).await
    }
    async fn extend_volume(&self, work: &Work, volume: &Volume, new_size: u64) -> Result<(), Error> {
        self.driver.extend_volume(work, volume, new_size).await
    }

    async fn initialize_connection(
        &self,
        work: &Work,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<ConnectionInfo, Error> {
        let info = self.driver.initialize_connection(work, volume, connector).await?;
        self.exports().insert((volume.id.to_string(), host(connector)));
        Ok(info)
    }

    async fn terminate_connection(&self, volume: &Volume, connector: &Connector, _force: bool) -> Result<bool, Error> {
        self.exports().remove(&(volume.id.to_string(), host(connector)));
        Ok(!self.exported_to(&volume.id).is_empty())
    }

    async fn remove_export(&self, volume: &Volume) -> Result<(), Error> {
        self.exports().retain(|(id, _)| id != volume.id.as_str());
        Ok(())
    }
}
