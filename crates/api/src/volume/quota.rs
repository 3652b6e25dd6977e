//! Reserving quota, and Cinder's errors when there is none left (`cinder/quota_utils.py: process_reserve_over_quota`).

use std::collections::BTreeMap;

use scoria_db::OverQuota;
use scoria_model::{Fault, FaultClass, Timestamp, VolumeType};
use uuid::Uuid;

use super::FrontDoor;
use super::errors::{ApiError, ApiResult};

/// `reservation_expire`, seconds: what was neither committed nor rolled back by then counts no more.
const EXPIRE_SECONDS: i64 = 86_400;

/// What a reservation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
}

/// Reserved quota. It must be committed or rolled back; what is forgotten expires.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation {
    pub(crate) ids: Vec<Uuid>,
    project: String,
}

impl FrontDoor {
    /// Reserves for the project: every resource counts for itself and for the volume type.
    pub(crate) async fn reserve(
        &self,
        project: &str,
        kind: Kind,
        resources: &[(&str, u64)],
        of_type: Option<&VolumeType>,
    ) -> ApiResult<Reservation> {
        let mut deltas = BTreeMap::new();
        for (resource, amount) in resources {
            let amount = i64::try_from(*amount).map_err(ApiError::hidden)?;
            deltas.insert((*resource).to_owned(), amount);
            if let Some(of_type) = of_type {
                deltas.insert(format!("{resource}_{}", of_type.name), amount);
            }
        }
        let expire = Timestamp::now().plus_seconds(EXPIRE_SECONDS);
        match self.database.quota_reserve(project, &deltas, &self.quotas, expire).await {
            Ok(ids) => Ok(Reservation { ids, project: project.to_owned() }),
            Err(scoria_db::Error::OverQuota(over)) => {
                let gigabytes = resources.iter().find(|(name, _)| *name == "gigabytes").map_or(0, |(_, size)| *size);
                Err(over_quota(kind, &over, gigabytes).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The reserved quota is used now.
    pub(crate) async fn commit(&self, reservation: Reservation) -> ApiResult<()> {
        Ok(self.database.quota_commit(&reservation.ids, &reservation.project).await?)
    }

    /// The reserved quota is not needed. A failure is logged: the reservation will expire.
    pub(crate) async fn roll_back(&self, reservation: Reservation) {
        if let Err(error) = self.database.quota_rollback(&reservation.ids, &reservation.project).await {
            tracing::warn!(%error, project = reservation.project, "reserved quota could not be given back; it will expire");
        }
    }

    /// Refuses a volume larger than one volume may be (`per_volume_size_limit`).
    pub(crate) async fn check_volume_size(&self, project: &str, size: u64) -> ApiResult<()> {
        let limits = self.database.quota_limits(project, &self.quotas).await?;
        match limits.get("per_volume_gigabytes").map(|limit| u64::try_from(*limit)) {
            Some(Ok(limit)) if size > limit => Err(ApiError::quota(
                "VolumeSizeExceedsLimit",
                format_args!("Requested volume size {size}G is larger than maximum allowed limit {limit}G."),
            )),
            _ => Ok(()),
        }
    }
}

/// Gigabytes are complained of first, then the number.
fn over_quota(kind: Kind, over: &OverQuota, requested: u64) -> Fault {
    let consumed = |name: &str| over.usages.get(name).map_or(0, |usage| usage.in_use + usage.reserved);
    let quota = |name: &str| over.quotas.get(name).copied().unwrap_or(-1);
    if let Some(name) = over.overs.iter().find(|name| name.contains("gigabytes")) {
        let (consumed, quota) = (consumed(name), quota(name));
        let message = format!(
            "Requested volume or snapshot exceeds allowed {name} quota. Requested {requested}G, quota is {quota}G and \
             {consumed}G has been consumed."
        );
        return Fault::new(FaultClass::VolumeSizeExceedsAvailableQuota, message);
    }
    let name = over.overs.first().map_or("volumes", String::as_str);
    let allowed = quota(name);
    match kind {
        Kind::Volume => Fault::new(
            FaultClass::VolumeLimitExceeded,
            format!("Maximum number of volumes allowed ({allowed}) exceeded for quota '{name}'."),
        ),
        Kind::Snapshot => Fault::new(
            FaultClass::SnapshotLimitExceeded,
            format!("Maximum number of snapshots allowed ({allowed}) exceeded"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use scoria_db::Usage;

    use super::*;

    fn over(overs: &[&str]) -> OverQuota {
        OverQuota {
            overs: overs.iter().map(|name| (*name).to_owned()).collect(),
            usages: overs.iter().map(|name| ((*name).to_owned(), Usage { in_use: 7, reserved: 2 })).collect(),
            quotas: overs.iter().map(|name| ((*name).to_owned(), 10)).collect(),
        }
    }

    #[test]
    fn gigabytes_are_complained_of_first() {
        let fault = over_quota(Kind::Snapshot, &over(&["gigabytes", "snapshots"]), 5);
        assert_eq!(fault.class, FaultClass::VolumeSizeExceedsAvailableQuota);
        assert_eq!(
            fault.message,
            "Requested volume or snapshot exceeds allowed gigabytes quota. Requested 5G, quota is 10G and 9G has been \
             consumed."
        );
    }

    #[test]
    fn a_number_that_is_used_up_is_named() {
        let fault = over_quota(Kind::Volume, &over(&["volumes___DEFAULT__"]), 5);
        assert_eq!(fault.message, "Maximum number of volumes allowed (10) exceeded for quota 'volumes___DEFAULT__'.");
        let fault = over_quota(Kind::Snapshot, &over(&["snapshots"]), 5);
        assert_eq!(fault.class, FaultClass::SnapshotLimitExceeded);
    }
}
