use std::collections::BTreeMap;

use scoria_db::{Error, QuotaDefaults, Usage};
use scoria_model::{Snapshot, SnapshotId, Timestamp, Volume, VolumeId};
use uuid::Uuid;

use crate::place::Place;

fn deltas(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(name, delta)| ((*name).to_owned(), *delta)).collect()
}

async fn reserve(place: &Place, project: &str, pairs: &[(&str, i64)]) -> Result<Vec<Uuid>, Error> {
    let expire = Timestamp::now().plus_seconds(86400);
    place.db.quota_reserve(project, &deltas(pairs), &QuotaDefaults::default(), expire).await
}

async fn usage(place: &Place, project: &str, resource: &str) -> (i64, i64) {
    let usages = place.db.quota_usages(project).await.unwrap();
    let Usage { in_use, reserved } = usages.get(resource).copied().unwrap_or_default();
    (in_use, reserved)
}

pub(crate) async fn reservations_are_committed_and_rolled_back(place: &Place) {
    let db = &place.db;
    let project = "quota1";
    let amounts = [("gigabytes", 5), ("gigabytes_gold", 5), ("volumes", 1), ("volumes_gold", 1)];
    let uuids = reserve(place, project, &amounts).await.unwrap();
    assert_eq!(uuids.len(), 4);
    assert_eq!(usage(place, project, "gigabytes").await, (0, 5));
    let row = place
        .sql("SELECT delta, resource FROM reservations WHERE project_id = 'quota1' AND delta = 5 ORDER BY id")
        .await;
    assert_eq!(row, "5\tgigabytes\n5\tgigabytes_gold");
    db.quota_commit(&uuids, project).await.unwrap();
    db.quota_commit(&uuids, project).await.unwrap();
    assert_eq!(usage(place, project, "gigabytes").await, (5, 0), "twice is once");
    let uuids = reserve(place, project, &[("gigabytes", 3)]).await.unwrap();
    db.quota_rollback(&uuids, project).await.unwrap();
    db.quota_rollback(&uuids, project).await.unwrap();
    assert_eq!(usage(place, project, "gigabytes").await, (5, 0));
    // Giving back: nothing is reserved, and the commit stops at zero.
    let uuids = reserve(place, project, &[("gigabytes", -9), ("volumes", -1)]).await.unwrap();
    assert_eq!(usage(place, project, "gigabytes").await, (5, 0));
    db.quota_commit(&uuids, project).await.unwrap();
    assert_eq!(usage(place, project, "gigabytes").await, (0, 0));
    assert_eq!(usage(place, project, "volumes").await, (0, 0));
    assert_eq!(place.count("reservations", "project_id = 'quota1' AND deleted = false").await, 0);
    db.quota_commit(&[], project).await.unwrap();
}

pub(crate) async fn what_is_over_is_refused(place: &Place) {
    let db = &place.db;
    let project = "quota2";
    place
        .sql("INSERT INTO quotas (project_id, resource, hard_limit, deleted) VALUES ('quota2', 'volumes', 2, false)")
        .await;
    let limits = db.quota_limits(project, &QuotaDefaults::default()).await.unwrap();
    assert_eq!((limits["volumes"], limits["gigabytes"], limits["per_volume_gigabytes"]), (2, 1000, -1));
    let first = reserve(place, project, &[("volumes", 2), ("gigabytes", 1)]).await.unwrap();
    let error = reserve(place, project, &[("volumes", 1), ("gigabytes", 1)]).await.unwrap_err();
    let Error::OverQuota(over) = &error else { panic!("{error}") };
    assert_eq!(over.overs, ["volumes"]);
    assert_eq!(over.usages["volumes"], Usage { in_use: 0, reserved: 2 });
    assert_eq!((over.quotas["volumes"], over.quotas["gigabytes"]), (2, 1000));
    assert!(!error.is_retryable());
    assert_eq!(usage(place, project, "gigabytes").await, (0, 1), "nothing of a refused request is reserved");
    // Less is always possible, and a resource without any limit too, up to what the column holds.
    db.quota_commit(&first, project).await.unwrap();
    reserve(place, project, &[("volumes", -1)]).await.unwrap();
    reserve(place, project, &[("volumes_gold", 1_000_000)]).await.unwrap();
    let error = reserve(place, project, &[("volumes_gold", i64::from(i32::MAX))]).await.unwrap_err();
    assert!(matches!(error, Error::OverQuota(_)), "{error}");
}

pub(crate) async fn missing_usages_are_counted(place: &Place) {
    let db = &place.db;
    let project = "quota3";
    let mut ids = Vec::new();
    for (size, use_quota) in [(2, true), (3, true), (50, false)] {
        let wanted =
            Volume { project_id: Some(project.to_owned()), use_quota, ..Volume::new(VolumeId::random(), size) };
        ids.push(db.volume_create(&wanted).await.unwrap().id);
    }
    let mut snapshot = Snapshot::new(SnapshotId::random(), ids[0].clone(), 2);
    snapshot.project_id = Some(project.to_owned());
    db.snapshot_create(&snapshot).await.unwrap();
    let names = ["volumes", "snapshots", "gigabytes", "gigabytes___DEFAULT__", "volumes_none", "groups"];
    reserve(place, project, &names.map(|name| (name, 1))).await.unwrap();
    let mut counted = Vec::new();
    for name in names {
        counted.push(usage(place, project, name).await.0);
    }
    assert_eq!(counted, [2, 1, 7, 7, 0, 0]);
}

pub(crate) async fn a_project_has_limits_of_its_own(place: &Place) {
    let (db, project) = (&place.db, "quota5");
    let limit = async |of: &str, resource: &str| {
        db.quota_limits(of, &QuotaDefaults::default()).await.unwrap().get(resource).copied()
    };
    let default = limit(project, "volumes").await;
    for volumes in [3, 4] {
        db.quota_set_limits(project, &deltas(&[("volumes", volumes), ("gigabytes_gold", -1)])).await.unwrap();
        assert_eq!(limit(project, "volumes").await, Some(volumes));
    }
    assert_eq!((limit(project, "gigabytes_gold").await, limit("other", "volumes").await), (Some(-1), default));
    let rows = place.sql("SELECT count(*) FROM quotas WHERE project_id = 'quota5'").await;
    assert_eq!(rows, "2", "a limit is changed, not added again");
    db.quota_reset_limits(project).await.unwrap();
    assert_eq!(limit(project, "volumes").await, default);
    db.quota_set_limits(project, &deltas(&[("volumes", 7)])).await.unwrap();
    assert_eq!(limit(project, "volumes").await, Some(7));
}

pub(crate) async fn fifty_at_once_are_exact(place: &Place) {
    let project = "quota4";
    let one = |_| async {
        let answer = reserve(place, project, &[("volumes", 1), ("gigabytes", 2)]).await;
        match answer {
            Ok(uuids) => {
                place.db.quota_commit(&uuids, project).await.unwrap();
                true
            }
            Err(Error::OverQuota(_)) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let done = futures_util::future::join_all((0..50).map(one)).await;
    assert_eq!(done.iter().filter(|done| **done).count(), 10, "the limit is ten volumes");
    assert_eq!(usage(place, project, "volumes").await, (10, 0));
    assert_eq!(usage(place, project, "gigabytes").await, (20, 0));
    assert_eq!(place.count("quota_usages", "project_id = 'quota4'").await, 2, "one row per resource");
}
