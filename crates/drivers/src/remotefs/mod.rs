//! Volumes as files on mounted shares: what every driver of that kind has in common.
//!
//! A driver says how its shares come about ([`Flavour`]); everything that happens on them is here, one file per use case.

mod attached;
mod capacity;
mod chain;
mod clone;
mod connection;
mod copy;
pub(crate) mod core;
mod create;
mod delete;
mod disk;
mod extend;
mod fence;
mod image;
mod info;
pub(crate) mod inspect;
pub(crate) mod mount;
pub(crate) mod names;
mod place;
mod revert;
pub(crate) mod security;
pub(crate) mod shares;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_model::{Connector, GIB, Snapshot, Volume};
use serde_json::json;

use self::core::Core;
use fence::Mode;
use inspect::Format;
use place::Place;
use shares::Share;

use crate::fault::Faults;
use crate::{
    AssistedSnapshots, BackendStats, Capabilities, ConnectionInfo, DriverInfo, Error, ErrorKind, Merge, SnapshotFacts,
    VolumeDriver, VolumeFacts, Work,
};

/// How long one share's report of capacity may take.
const STATS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a share may take to tell whether it has room for a new volume.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What drivers on shares differ in: how shares are found and made reachable, and what is told of them.
#[async_trait]
pub trait Flavour: Send + Sync + std::fmt::Debug + 'static {
    /// Who the driver is.
    fn info(&self) -> DriverInfo;
    /// Checks what is configured, makes the shares reachable, finds out the security settings.
    async fn prepare(&self, core: &Core, new_install: bool) -> Result<(), Error>;
    /// The shares that can be used now, in the order of the configuration; at least one.
    async fn mounted(&self, core: &Core) -> Result<Vec<Arc<Share>>, Error>;
    /// Whether every configured share can be used.
    async fn check_all(&self, core: &Core) -> Result<(), Error>;
    /// The share of a `provider_location`, made reachable.
    async fn at(&self, core: &Core, location: &str) -> Result<Arc<Share>, Error>;
    /// The error when no share has room for a volume of so many GiB.
    fn no_room(&self, size: u64) -> Error;
    /// What is told to those who attach a file of a share.
    fn connection(&self, share: &Share, file: &str, format: Format) -> ConnectionInfo;
}

/// A driver whose volumes are files on shares.
#[derive(Debug)]
pub struct RemoteFsDriver<F> {
    core: Core,
    flavour: F,
}

impl<F: Flavour> RemoteFsDriver<F> {
    pub(crate) fn assemble(core: Core, flavour: F) -> Self {
        Self { core, flavour }
    }

    #[cfg(test)]
    pub(crate) fn flavour(&self) -> &F {
        &self.flavour
    }

    /// The points at which tests interrupt it.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.core.faults
    }

    fn place<'a>(&'a self, work: &'a Work, share: Arc<Share>, volume: &Volume) -> Place<'a> {
        Place::new(&self.core, share, self.core.name(volume), work)
    }

    /// The place of a volume that exists.
    async fn place_of<'a>(&'a self, work: &'a Work, volume: &Volume) -> Result<Place<'a>, Error> {
        let Some(location) = volume.provider_location.as_deref().filter(|location| !location.is_empty()) else {
            return Err(Error::invalid_volume(format!("volume {} has no provider_location", volume.id)));
        };
        Ok(self.place(work, self.flavour.at(&self.core, location).await?, volume))
    }

    /// The place of a volume to be made: where an earlier try put it, else on the share with the least promised of those
    /// that have room. Leftovers of earlier tries on other shares go.
    async fn new_place<'a>(&'a self, work: &'a Work, volume: &Volume) -> Result<Place<'a>, Error> {
        let wanted = create::bytes(volume.size)?;
        let (mut best, mut trouble) = (None::<(u64, Place<'_>)>, None);
        let mut earlier = None;
        for share in self.flavour.mounted(&self.core).await? {
            let place = self.place(work, share, volume);
            let look = async {
                if earlier.is_none() && place.stat(&place.name).await?.is_some() {
                    return Ok(None);
                }
                place.discard_leftovers().await?;
                place.capacity().await.map(Some)
            };
            // A share that hangs must not keep the others from being used.
            let looked = tokio::time::timeout(LOOK_TIMEOUT, look).await;
            match looked.unwrap_or_else(|_| Err(place.share.silent())) {
                Ok(None) => earlier = Some(place),
                Ok(Some(capacity)) => {
                    let is_better = best.as_ref().is_none_or(|(allocated, _)| capacity.allocated < *allocated);
                    if is_better && capacity.has_room(&self.core.settings, wanted) {
                        best = Some((capacity.allocated, place));
                    }
                }
                Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::warn!(share = place.share.address, %error, "share left out");
                    trouble = Some(error);
                }
            }
        }
        match (earlier, best) {
            (Some(place), _) | (None, Some((_, place))) => Ok(place),
            (None, None) => Err(trouble.unwrap_or_else(|| self.flavour.no_room(volume.size))),
        }
    }

    fn made(&self, place: &Place<'_>, volume: &Volume) -> VolumeFacts {
        place.usage().add(volume.size.saturating_mul(GIB));
        VolumeFacts {
            provider_location: Some(place.share.address.clone()),
            admin_metadata: [("format".to_owned(), self.core.format().to_string())].into(),
        }
    }

    fn check_snapshots_enabled(&self) -> Result<(), Error> {
        let name = self.flavour.info().name.to_uppercase();
        if !self.core.settings.snapshots {
            let message = format!("{name} driver snapshot support is disabled in cinder.conf.");
            return Err(Error::driver(ErrorKind::Unsupported, message));
        }
        Ok(())
    }
}

#[async_trait]
impl<F: Flavour> VolumeDriver for RemoteFsDriver<F> {
    fn info(&self) -> DriverInfo {
        self.flavour.info()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { active_active: true, snapshots: self.core.settings.snapshots, extend_attached: false }
    }

    async fn setup(&self, new_install: bool) -> Result<(), Error> {
        self.flavour.prepare(&self.core, new_install).await
    }

    async fn stats(&self) -> Result<BackendStats, Error> {
        let work = Work::unlimited();
        let (mut total, mut free, mut promised) = (0, 0, 0);
        let mut outcome = None;
        for share in self.flavour.mounted(&self.core).await? {
            let place = Place::new(&self.core, Arc::clone(&share), String::new(), &work);
            let counted = tokio::time::timeout(STATS_TIMEOUT, place.capacity()).await;
            match counted.unwrap_or_else(|_| Err(share.silent())) {
                Ok(capacity) => {
                    total += capacity.total;
                    free += capacity.available;
                    promised += capacity.allocated;
                    outcome = Some(Ok(()));
                }
                Err(error) => {
                    tracing::warn!(share = share.address, %error, "share left out of the report");
                    outcome = outcome.or(Some(Err(error)));
                }
            }
        }
        // One share that answers is enough; when none does, the back end is down.
        outcome.unwrap_or(Ok(()))?;
        #[allow(clippy::cast_precision_loss, reason = "reported as a float")]
        let gib = |bytes: u64| bytes as f64 / GIB as f64;
        let settings = &self.core.settings;
        let provisioned = if settings.sparsed { gib(promised) } else { gib(total.saturating_sub(free)) };
        let extra = json!({ "QoS_support": false, "sparse_copy_volume": true });
        Ok(BackendStats {
            backend_name: settings.backend_name.clone(),
            total_capacity_gb: gib(total),
            free_capacity_gb: gib(free),
            provisioned_capacity_gb: (provisioned * 100.0).round() / 100.0,
            reserved_percentage: settings.reserved_percentage,
            max_over_subscription_ratio: settings.max_over_subscription_ratio,
            thin_provisioning: settings.sparsed,
            extra: extra.as_object().cloned().unwrap_or_default(),
        })
    }

    fn secure_file_operations(&self) -> bool {
        self.core.security().operations
    }

    async fn create_volume(&self, work: &Work, volume: &Volume) -> Result<VolumeFacts, Error> {
        Core::refuse_encrypted(volume)?;
        let place = self.new_place(work, volume).await?.fenced(Mode::Change).await?;
        place.create_blank(volume.size).await?;
        Ok(self.made(&place, volume))
    }

    async fn create_volume_from_snapshot(
        &self,
        work: &Work,
        volume: &Volume,
        snapshot: &Snapshot,
        source: &Volume,
    ) -> Result<VolumeFacts, Error> {
        clone::check_snapshot(snapshot)?;
        Core::refuse_encrypted(volume)?;
        Core::refuse_encrypted(source)?;
        let from = self.place_of(work, source).await?.fenced(Mode::Read).await?;
        let chain = from.frozen_chain(snapshot, source).await?;
        let place = self.new_place(work, volume).await?.fenced(Mode::Change).await?;
        place.create_from(&from, &chain, volume.size).await?;
        Ok(self.made(&place, volume))
    }

    async fn create_cloned_volume(&self, work: &Work, volume: &Volume, source: &Volume) -> Result<VolumeFacts, Error> {
        clone::check_source(source)?;
        Core::refuse_encrypted(volume)?;
        Core::refuse_encrypted(source)?;
        let from = self.place_of(work, source).await?.fenced(Mode::Read).await?;
        let info = from.read_info().await?;
        let chain = from.whole_chain(from.active(&info), source).await?;
        // Clones lie on their source's share, as the contract has it.
        let place = self.place(work, Arc::clone(&from.share), volume).fenced(Mode::Change).await?;
        place.create_from(&from, &chain, volume.size).await?;
        Ok(self.made(&place, volume))
    }

    async fn delete_volume(&self, work: &Work, volume: &Volume) -> Result<(), Error> {
        if volume.provider_location.as_deref().is_some_and(|location| !location.is_empty()) {
            return self.place_of(work, volume).await?.fenced(Mode::Change).await?.delete(volume).await;
        }
        // Its create was interrupted before the row told where it is: the files themselves tell.
        let mut found = false;
        for share in self.flavour.mounted(&self.core).await? {
            let place = self.place(work, share, volume);
            if place.has_anything().await? {
                place.fenced(Mode::Change).await?.delete(volume).await?;
                found = true;
            }
        }
        // Found nowhere, it may still lie on a share that cannot be reached just now: that is no deletion.
        if found { Ok(()) } else { self.flavour.check_all(&self.core).await }
    }

    async fn create_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        self.check_snapshots_enabled()?;
        Core::refuse_encrypted(volume)?;
        snapshot::check_create(snapshot, volume)?;
        let place = self.place_of(work, volume).await?.fenced(Mode::Change).await?;
        place.create_snapshot(snapshot, volume).await
    }

    async fn delete_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<SnapshotFacts, Error> {
        Core::refuse_encrypted(volume)?;
        snapshot::check_delete(volume)?;
        let place = self.place_of(work, volume).await?.fenced(Mode::Change).await?;
        place.delete_snapshot(snapshot, volume).await
    }

    fn assisted_snapshots(&self) -> Option<&dyn AssistedSnapshots> {
        Some(self)
    }

    async fn revert_to_snapshot(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<(), Error> {
        Core::refuse_encrypted(volume)?;
        revert::check(volume)?;
        let place = self.place_of(work, volume).await?.fenced(Mode::Change).await?;
        place.revert(snapshot, volume).await
    }

    async fn extend_volume(&self, work: &Work, volume: &Volume, new_size: u64) -> Result<(), Error> {
        Core::refuse_encrypted(volume)?;
        let place = self.place_of(work, volume).await?.fenced(Mode::Change).await?;
        place.extend(volume, new_size).await
    }

    async fn ensure_export(&self, volume: &Volume) -> Result<(), Error> {
        self.place_of(&Work::unlimited(), volume).await.map(|_| ())
    }

    async fn initialize_connection(
        &self,
        work: &Work,
        volume: &Volume,
        _connector: &Connector,
    ) -> Result<ConnectionInfo, Error> {
        Core::refuse_encrypted(volume)?;
        let place = self.place_of(work, volume).await?;
        let active = place.attachable(volume).await?;
        Ok(self.flavour.connection(&place.share, &active.file, active.format))
    }
}

#[async_trait]
impl<F: Flavour> AssistedSnapshots for RemoteFsDriver<F> {
    async fn is_taken_up(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<Option<bool>, Error> {
        self.place_of(work, volume).await?.fenced(Mode::Read).await?.is_taken_up(snapshot, volume).await
    }

    async fn withdraw_snapshot(
        &self,
        work: &Work,
        snapshot: &Snapshot,
        volume: &Volume,
    ) -> Result<SnapshotFacts, Error> {
        self.place_of(work, volume).await?.fenced(Mode::Change).await?.withdraw(snapshot, volume).await
    }

    async fn merge_of(&self, work: &Work, snapshot: &Snapshot, volume: &Volume) -> Result<Option<Merge>, Error> {
        self.place_of(work, volume).await?.fenced(Mode::Read).await?.merge_for(snapshot, volume).await
    }
}
