use scoria_db::{Error, Expect, QuotaRelease, SnapshotChange, SnapshotFilter, Swap};
use scoria_model::{ResourceType, Snapshot, SnapshotId, SnapshotStatus, VolumeId, VolumeStatus};

use crate::place::Place;
use crate::services::service;
use crate::volumes::{pairs, volume};

pub(crate) async fn a_snapshot_lives_and_dies(place: &Place) {
    let db = &place.db;
    let source = volume(place, VolumeStatus::Available).await;
    let mut wanted = Snapshot::new(SnapshotId::random(), source.id.clone(), 4);
    wanted.metadata = pairs(&[("k", "v")]);
    wanted.project_id = Some("p".to_owned());
    let made = db.snapshot_create(&wanted).await.unwrap();
    assert_eq!(made.volume_type_id, source.volume_type_id, "a snapshot has its volume's type");
    wanted.volume_type_id = made.volume_type_id.clone();
    wanted.created_at = made.created_at;
    assert_eq!(made, wanted);
    let id = made.id.clone();
    assert!(matches!(db.snapshot_create(&wanted).await, Err(Error::Conflict(_))));
    let orphan = Snapshot::new(SnapshotId::random(), VolumeId::random(), 1);
    assert!(matches!(db.snapshot_create(&orphan).await, Err(Error::NotFound { what: "volume", .. })));

    let service = db.service_register(&service("snap@nfs", None)).await.unwrap().id;
    let kind = ResourceType::Snapshot;
    let claim = db.worker_claim(kind, id.as_str(), "creating", None, service).await.unwrap().unwrap();
    let (loaded, trips) = place.trips(db.snapshot_load(&id)).await;
    let loaded = loaded.unwrap().unwrap();
    assert_eq!(trips, 2);
    assert_eq!((loaded.snapshot, loaded.worker.unwrap().id), (made, claim.id));
    let expect = Expect::status(SnapshotStatus::Creating).by(Some(&claim));
    let half = SnapshotChange { progress: Some(Some("90%".to_owned())), ..SnapshotChange::default() };
    assert_eq!(db.snapshot_update(&id, &expect, &half).await.unwrap(), Swap::Done);
    let done = SnapshotChange {
        progress: Some(Some("100%".to_owned())),
        provider_location: Some(Some("s:/e".to_owned())),
        ..SnapshotChange::status(SnapshotStatus::Available)
    };
    let (swap, trips) = place.trips(db.snapshot_finish(&id, &expect, &done, Some(&claim))).await;
    assert_eq!((swap.unwrap(), trips), (Swap::Done, 4));
    let loaded = db.snapshot_load(&id).await.unwrap().unwrap();
    assert_eq!((loaded.snapshot.status, loaded.worker), (SnapshotStatus::Available, None));
    let plain = Expect::status(SnapshotStatus::Creating);
    let available = Swap::Unexpected { status: SnapshotStatus::Available };
    assert_eq!(db.snapshot_update(&id, &plain, &done).await.unwrap(), available);
    assert_eq!(db.snapshot_finish(&id, &expect, &done, Some(&claim)).await.unwrap(), Swap::Replaced);

    let release = QuotaRelease::snapshot("p", 4, None, false);
    let deleting = SnapshotChange::status(SnapshotStatus::Deleting);
    assert_eq!(db.snapshot_update(&id, &Expect::any(), &deleting).await.unwrap(), Swap::Done);
    let claim = db.worker_claim(kind, id.as_str(), "deleting", None, service).await.unwrap().unwrap();
    let expect = Expect::status(SnapshotStatus::Deleting).by(Some(&claim));
    let (swap, trips) = place.trips(db.snapshot_destroy(&id, &expect, Some(&release), Some(&claim))).await;
    assert_eq!((swap.unwrap(), trips), (Swap::Done, 6));
    assert_eq!(db.snapshot_get(&id).await.unwrap(), None);
    assert_eq!(place.count("snapshots", &format!("id = '{id}' AND status = 'deleted' AND deleted = true")).await, 1);
    assert_eq!(place.count("snapshot_metadata", &format!("snapshot_id = '{id}' AND deleted = true")).await, 1);
    assert_eq!(db.snapshot_destroy(&id, &Expect::any(), None, None).await.unwrap(), Swap::Gone);
}

pub(crate) async fn snapshots_are_listed(place: &Place) {
    let db = &place.db;
    let source = volume(place, VolumeStatus::Available).await.id;
    let mut ids = Vec::new();
    for number in 0..3 {
        let mut wanted = Snapshot::new(SnapshotId::random(), source.clone(), 1);
        wanted.display_name = Some(format!("s{number}"));
        wanted.project_id = Some("snaplist".to_owned());
        wanted.metadata = pairs(&[("n", &number.to_string())]);
        let id = db.snapshot_create(&wanted).await.unwrap().id;
        place.sql(&format!("UPDATE snapshots SET created_at = '2026-01-01 00:00:0{number}' WHERE id = '{id}'")).await;
        ids.push(id);
    }
    let of_volume = db.snapshots_of_volume(&source).await.unwrap();
    assert_eq!(of_volume.iter().map(|found| &found.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(of_volume[1].metadata, pairs(&[("n", "1")]));
    let names = async |filter: SnapshotFilter| {
        let found = db.snapshots(&filter).await.unwrap();
        found.into_iter().filter_map(|found| found.display_name).collect::<Vec<_>>()
    };
    let base = SnapshotFilter { project_id: Some("snaplist".to_owned()), ..SnapshotFilter::default() };
    assert_eq!(names(base.clone()).await, ["s2", "s1", "s0"]);
    assert_eq!(names(SnapshotFilter { marker: Some(ids[2].clone()), limit: Some(1), ..base.clone() }).await, ["s1"]);
    let some = SnapshotFilter {
        all_tenants: true,
        volume_id: Some(source.clone()),
        status: vec![SnapshotStatus::Creating],
        name: Some("s0".to_owned()),
        ids: ids.clone(),
        ..base
    };
    assert_eq!(names(some).await, ["s0"]);
}
