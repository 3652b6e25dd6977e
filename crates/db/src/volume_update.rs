//! Changing a volume: compare-and-swap, alone or together with the end of the work on it.

use scoria_model::{AttachStatus, GroupId, Metadata, SnapshotId, Timestamp, VolumeId, VolumeStatus, VolumeTypeId};
use sea_query::UpdateStatement;

use crate::cas::{Expect, Swap, Why, expecting};
use crate::metadata::AdminMetadata;
use crate::retry::Attempt;
use crate::statement::{Assignments, ColumnValue, update};
use crate::workers::WorkerClaim;
use crate::{Database, Result};

/// Declares a change: one optional field per column, and how they become assignments.
macro_rules! change {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$fdoc:meta])* $field:ident as $column:literal: $type:ty,)*
        }
        $(and { $($(#[$edoc:meta])* $extra:ident: $etype:ty,)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: Option<$type>,)*
            $($($(#[$edoc])* pub $extra: Option<$etype>,)*)?
        }

        impl $name {
            /// The columns to write, in the table's order.
            pub(crate) fn assignments(&self) -> $crate::statement::Assignments {
                let mut list = $crate::statement::Assignments::new();
                $(if let Some(value) = &self.$field {
                    list.push(($column, $crate::statement::ColumnValue::value(value)));
                })*
                list
            }
        }
    };
}
pub(crate) use change;

change! {
    /// What to write into a volume's row: `None` leaves a column as it is, `Some(None)` makes it null.
    VolumeChange {
        /// `_name_id`: under which id its files go.
        name_id as "_name_id": Option<String>,
        /// Whether it counts against quotas.
        use_quota as "use_quota": bool,
        /// Owner.
        user_id as "user_id": Option<String>,
        /// Owner's project.
        project_id as "project_id": Option<String>,
        /// The snapshot it was made from.
        snapshot_id as "snapshot_id": Option<SnapshotId>,
        /// The volume it was cloned from.
        source_volid as "source_volid": Option<VolumeId>,
        /// The cluster that serves it.
        cluster_name as "cluster_name": Option<String>,
        /// The host that serves it.
        host as "host": Option<String>,
        /// Size in GiB.
        size as "size": u64,
        /// Availability zone.
        availability_zone as "availability_zone": Option<String>,
        /// Status to go back to.
        previous_status as "previous_status": Option<VolumeStatus>,
        /// Status.
        status as "status": VolumeStatus,
        /// Whether it is attached.
        attach_status as "attach_status": AttachStatus,
        /// State of a migration.
        migration_status as "migration_status": Option<String>,
        /// When a host was chosen.
        scheduled_at as "scheduled_at": Option<Timestamp>,
        /// When it became available for the first time.
        launched_at as "launched_at": Option<Timestamp>,
        /// When its deletion was asked for.
        terminated_at as "terminated_at": Option<Timestamp>,
        /// Name given by the user.
        display_name as "display_name": Option<String>,
        /// Description given by the user.
        display_description as "display_description": Option<String>,
        /// The driver's id.
        provider_id as "provider_id": Option<String>,
        /// The driver's location.
        provider_location as "provider_location": Option<String>,
        /// The driver's credentials.
        provider_auth as "provider_auth": Option<String>,
        /// The driver's geometry.
        provider_geometry as "provider_geometry": Option<String>,
        /// Type.
        volume_type_id as "volume_type_id": VolumeTypeId,
        /// Key in the key manager.
        encryption_key_id as "encryption_key_id": Option<String>,
        /// Legacy consistency group.
        consistencygroup_id as "consistencygroup_id": Option<String>,
        /// Group.
        group_id as "group_id": Option<GroupId>,
        /// Whether an image is on it.
        bootable as "bootable": bool,
        /// Whether several servers may attach it.
        multiattach as "multiattach": bool,
        /// Replication state.
        replication_status as "replication_status": Option<String>,
        /// Replication detail.
        replication_extended_status as "replication_extended_status": Option<String>,
        /// The driver's replication data.
        replication_driver_data as "replication_driver_data": Option<String>,
        /// The service that made it.
        service_uuid as "service_uuid": Option<String>,
        /// Whether targets are shared; null for NVMe.
        shared_targets as "shared_targets": Option<bool>,
    } and {
        /// Service's metadata to merge into what is there.
        admin_metadata: Metadata,
    }
}

impl VolumeChange {
    /// Only a status.
    #[must_use]
    pub fn status(status: VolumeStatus) -> Self {
        Self { status: Some(status), ..Self::default() }
    }
}

/// The compare-and-swap itself.
pub(crate) fn swap_volume(id: &VolumeId, expect: &Expect<'_>, values: Assignments) -> UpdateStatement {
    let mut statement = update("volumes", values);
    expecting(&mut statement, id.as_str(), expect);
    statement
}

impl Database {
    /// Writes `change` if the volume is as `expect` says: one compare-and-swap `UPDATE`. Only when it matches nothing a second
    /// query says why. With admin metadata it is a transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Statement` (a value too long for its column).
    pub async fn volume_update(&self, id: &VolumeId, expect: &Expect<'_>, change: &VolumeChange) -> Result<Swap> {
        if change.admin_metadata.as_ref().is_some_and(|metadata| !metadata.is_empty()) {
            return self.volume_finish(id, expect, change, None).await;
        }
        self.retry("volume_update", |attempt| async move {
            if self.execute(&swap_volume(id, expect, change.assignments())).await? > 0 {
                return Ok(Swap::Done);
            }
            self.volume_why(id, expect, change, attempt, false).await
        })
        .await
    }

    /// The end of an operation: as [`Database::volume_update`], and `claim`'s `workers` row is removed in the same transaction.
    ///
    /// # Errors
    /// As `volume_update`.
    pub async fn volume_finish(
        &self,
        id: &VolumeId,
        expect: &Expect<'_>,
        change: &VolumeChange,
        claim: Option<&WorkerClaim>,
    ) -> Result<Swap> {
        self.retry("volume_finish", |attempt| async move {
            let mut transaction = self.begin().await?;
            if transaction.execute(&swap_volume(id, expect, change.assignments())).await? == 0 {
                // Rolled back before the next query: with one connection (SQLite in memory) that would wait for this one.
                transaction.rollback().await?;
                return self.volume_why(id, expect, change, attempt, claim.is_some()).await;
            }
            if let Some(metadata) = &change.admin_metadata {
                transaction.merge_metadata::<AdminMetadata>(id.as_str(), metadata).await?;
            }
            if let Some(claim) = claim {
                transaction.execute(&claim.delete()).await?;
            }
            transaction.commit().await?;
            Ok(Swap::Done)
        })
        .await
    }

    async fn volume_why(
        &self,
        id: &VolumeId,
        expect: &Expect<'_>,
        change: &VolumeChange,
        attempt: Attempt,
        releases: bool,
    ) -> Result<Swap> {
        match self.why(id.as_str(), expect, change.status.as_ref(), attempt.ambiguous, releases).await? {
            Why::AlreadyDone => Ok(Swap::Done),
            Why::Refused(swap) => Ok(swap),
        }
    }

    /// Writes the driver's ids of many volumes (`driver.update_provider_info` at start).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volumes_set_provider_id(&self, ids: &[(VolumeId, Option<String>)]) -> Result<()> {
        self.retry("volumes_set_provider_id", |_| async move {
            let mut transaction = self.begin().await?;
            for (id, provider_id) in ids {
                let values = vec![("provider_id", provider_id.value())];
                transaction.execute(&swap_volume(id, &Expect::any(), values)).await?;
            }
            transaction.commit().await
        })
        .await
    }
}
