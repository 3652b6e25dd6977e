use scoria_db::WorkerFilter;
use scoria_model::{ResourceType, Timestamp, VolumeId};

use crate::place::Place;
use crate::services::service;

const VOLUME: ResourceType = ResourceType::Volume;

async fn service_id(place: &Place, host: &str) -> i64 {
    place.db.service_register(&service(host, None)).await.unwrap().id
}

pub(crate) async fn a_claim_is_one_round_trip_and_fences(place: &Place) {
    let db = &place.db;
    let (mine, other) = (service_id(place, "w1@nfs").await, service_id(place, "w2@nfs").await);
    let id = VolumeId::random();
    let (claim, trips) = place.trips(db.worker_claim(VOLUME, id.as_str(), "creating", None, mine)).await;
    let claim = claim.unwrap().unwrap();
    assert_eq!((trips, claim.race_preventer, claim.service_id), (1, 0, mine));
    let seen = db.worker_get(VOLUME, id.as_str()).await.unwrap().unwrap();
    assert_eq!((seen.id, seen.service_id, seen.status.as_str()), (claim.id, Some(mine), "creating"));

    // Somebody who saw no row is too late; somebody who saw it takes it, once.
    assert_eq!(db.worker_claim(VOLUME, id.as_str(), "creating", None, other).await.unwrap(), None);
    let (taken, trips) = place.trips(db.worker_claim(VOLUME, id.as_str(), "deleting", Some(&seen), other)).await;
    let taken = taken.unwrap().unwrap();
    assert_eq!((trips, taken.race_preventer), (1, 1));
    assert_eq!(db.worker_claim(VOLUME, id.as_str(), "deleting", Some(&seen), mine).await.unwrap(), None);

    // Whoever was replaced changes nothing any more.
    assert!(!db.worker_release(&claim).await.unwrap());
    assert_eq!(db.worker_relabel(&claim, "downloading").await.unwrap(), None);
    assert!(!db.worker_hand_back(&claim).await.unwrap());
    let relabelled = db.worker_relabel(&taken, "downloading").await.unwrap().unwrap();
    assert_eq!(db.worker_get(VOLUME, id.as_str()).await.unwrap().unwrap().status, "downloading");
    assert!(db.worker_release(&relabelled).await.unwrap());
    assert_eq!(db.worker_get(VOLUME, id.as_str()).await.unwrap(), None);
}

pub(crate) async fn of_many_claimers_one_wins(place: &Place) {
    let db = &place.db;
    let mine = service_id(place, "w3@nfs").await;
    for round in 0..5 {
        let id = VolumeId::random();
        // A row that everybody saw, or none.
        let seen = if round % 2 == 0 {
            None
        } else {
            db.worker_create_unclaimed(VOLUME, id.as_str(), "creating").await.unwrap();
            db.worker_get(VOLUME, id.as_str()).await.unwrap()
        };
        let claims = (0..8).map(|_| db.worker_claim(VOLUME, id.as_str(), "creating", seen.as_ref(), mine));
        let won: Vec<_> = futures_util::future::join_all(claims).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(won.len(), 1, "round {round}");
        assert!(db.worker_release(&won[0]).await.unwrap());
    }
}

pub(crate) async fn a_sender_takes_the_row_away(place: &Place) {
    let db = &place.db;
    let mine = service_id(place, "w4@nfs").await;
    let id = VolumeId::random();
    db.worker_create_unclaimed(VOLUME, id.as_str(), "creating").await.unwrap();
    let seen = db.worker_get(VOLUME, id.as_str()).await.unwrap().unwrap();
    assert_eq!((seen.service_id, seen.race_preventer), (None, 0));
    let claim = db.worker_claim(VOLUME, id.as_str(), "creating", Some(&seen), mine).await.unwrap().unwrap();
    assert_eq!(claim.race_preventer, 1);

    db.worker_create_unclaimed(VOLUME, id.as_str(), "deleting").await.unwrap();
    let seen = db.worker_get(VOLUME, id.as_str()).await.unwrap().unwrap();
    assert_eq!((seen.service_id, seen.race_preventer, seen.status.as_str()), (None, 2, "deleting"));
    assert!(!db.worker_release(&claim).await.unwrap(), "the holder was replaced");

    let claim = db.worker_claim(VOLUME, id.as_str(), "deleting", Some(&seen), mine).await.unwrap().unwrap();
    assert!(db.worker_hand_back(&claim).await.unwrap());
    let seen = db.worker_get(VOLUME, id.as_str()).await.unwrap().unwrap();
    assert_eq!((seen.service_id, seen.race_preventer), (None, 4));
    assert!(db.worker_remove(&seen).await.unwrap());
    assert!(!db.worker_remove(&seen).await.unwrap());
}

pub(crate) async fn rows_left_behind_are_found(place: &Place) {
    let db = &place.db;
    let (mine, other) = (service_id(place, "w5@nfs").await, service_id(place, "w6@nfs").await);
    let [a, b, c] = [VolumeId::random(), VolumeId::random(), VolumeId::random()];
    db.worker_claim(VOLUME, a.as_str(), "creating", None, mine).await.unwrap();
    db.worker_claim(ResourceType::Snapshot, b.as_str(), "creating", None, other).await.unwrap();
    db.worker_create_unclaimed(VOLUME, c.as_str(), "deleting").await.unwrap();
    place.sql(&format!("UPDATE workers SET updated_at = '2020-01-01 00:00:00' WHERE resource_id = '{a}'")).await;
    place.sql("DELETE FROM workers WHERE resource_type = 'SENTINEL'").await;
    place
        .sql(
            "INSERT INTO workers (resource_type, resource_id, status, race_preventer, deleted, updated_at) \
             VALUES ('SENTINEL', 'SUB-SECOND', 'OK', 0, false, '2020-01-01 00:00:00')",
        )
        .await;
    let found = async |filter: WorkerFilter| {
        let rows = db.workers_stale(&filter).await.unwrap();
        rows.into_iter().map(|row| row.resource_id).collect::<Vec<_>>()
    };
    let filter = WorkerFilter::default;
    let long_ago = Some(Timestamp::parse("2020-01-01T00:00:00Z").unwrap());
    assert_eq!(found(WorkerFilter { until: long_ago, ..filter() }).await, [a.as_str()]);
    assert_eq!(found(WorkerFilter { service_id: Some(other), ..filter() }).await, [b.as_str()]);
    assert_eq!(found(WorkerFilter { unclaimed: true, ..filter() }).await, [c.as_str()]);
    let both = WorkerFilter { service_ids: Some(vec![mine, other]), resource_type: Some(VOLUME), ..filter() };
    assert_eq!(found(both).await, [a.as_str()]);
    assert!(found(WorkerFilter { service_ids: Some(Vec::new()), ..filter() }).await.is_empty());
    assert!(found(WorkerFilter { until: Some(Timestamp::now()), ..filter() }).await.len() >= 3);
    place.sql("DELETE FROM workers WHERE resource_type <> 'SENTINEL'").await;
}
