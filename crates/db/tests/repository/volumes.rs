use std::collections::BTreeMap;

use scoria_db::{
    Error, Expect, QuotaDefaults, QuotaRelease, SortDirection, Swap, VolumeChange, VolumeFilter, VolumeOwner,
};
use scoria_model::{
    Attachment, AttachmentId, Metadata, ResourceType, Snapshot, SnapshotId, Timestamp, Volume, VolumeId, VolumeStatus,
};

use crate::place::{Place, Server};
use crate::services::service;

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A volume's row in a state.
pub(crate) async fn volume(place: &Place, status: VolumeStatus) -> Volume {
    let volume = Volume { status, project_id: Some("p".to_owned()), ..Volume::new(VolumeId::random(), 1) };
    place.db.volume_create(&volume).await.unwrap()
}

pub(crate) async fn a_fresh_database_is_empty(place: &Place) {
    assert!(place.db.volumes_empty().await.unwrap());
    volume(place, VolumeStatus::Available).await;
    assert!(!place.db.volumes_empty().await.unwrap());
}

pub(crate) async fn a_volume_comes_back_as_it_was_made(place: &Place) {
    let now = Timestamp::now();
    let mut wanted = Volume {
        name_id: Some("old-name".to_owned()),
        use_quota: false,
        user_id: Some("user".to_owned()),
        project_id: Some("größe".to_owned()),
        snapshot_id: Some(SnapshotId::random()),
        source_volid: Some(VolumeId::random()),
        cluster_name: Some("c@b".to_owned()),
        host: Some("h@b#p".to_owned()),
        availability_zone: Some("nova".to_owned()),
        previous_status: Some(VolumeStatus::InUse),
        migration_status: Some("starting".to_owned()),
        scheduled_at: Some(now),
        launched_at: Some(now.plus_seconds(-5)),
        display_name: Some("it's \\ \"quoted\"; --".to_owned()),
        provider_location: Some("server:/export".to_owned()),
        bootable: true,
        multiattach: true,
        shared_targets: None,
        metadata: pairs(&[("a", "1"), ("b", "")]),
        admin_metadata: pairs(&[("format", "qcow2")]),
        glance_metadata: pairs(&[("image_name", "cirros")]),
        ..Volume::new(VolumeId::random(), 7)
    };
    let made = place.db.volume_create(&wanted).await.unwrap();
    let (loaded, trips) = place.trips(place.db.volume_load(&wanted.id)).await;
    assert_eq!(trips, 1, "the budget of loading a volume");
    let loaded = loaded.unwrap().unwrap();
    assert_eq!(loaded.volume, made);
    assert_eq!((loaded.worker, loaded.has_snapshots, loaded.has_transfers), (None, false, false));
    assert_eq!(made.volume_type.as_ref().unwrap().name, "__DEFAULT__", "the column may not be null");
    assert!(made.created_at.unwrap().seconds_since(now) < 60 && made.updated_at.is_none());
    (wanted.volume_type_id, wanted.volume_type) = (made.volume_type_id.clone(), made.volume_type.clone());
    wanted.created_at = made.created_at;
    assert_eq!(made, wanted);

    assert!(place.db.volume_exists(&wanted.id).await.unwrap());
    assert!(!place.db.volume_exists(&VolumeId::random()).await.unwrap());
    assert_eq!(place.db.volume_get(&VolumeId::random()).await.unwrap(), None);
    assert!(matches!(place.db.volume_create(&wanted).await, Err(Error::Conflict(_))), "the id is taken");
}

pub(crate) async fn a_swap_tells_why_it_did_nothing(place: &Place) {
    let db = &place.db;
    let id = volume(place, VolumeStatus::Creating).await.id;
    let service = db.service_register(&service("swap@nfs", None)).await.unwrap().id;
    let claim = db.worker_claim(ResourceType::Volume, id.as_str(), "creating", None, service).await.unwrap().unwrap();
    let available = VolumeChange {
        provider_location: Some(Some("s:/e".to_owned())),
        launched_at: Some(Some(Timestamp::now())),
        ..VolumeChange::status(VolumeStatus::Available)
    };
    let creating = Expect { status: vec![VolumeStatus::Creating, VolumeStatus::Downloading], worker: Some(&claim) };
    let (swap, trips) = place.trips(db.volume_update(&id, &creating, &available)).await;
    assert_eq!((swap.unwrap(), trips), (Swap::Done, 1));
    let after = db.volume_get(&id).await.unwrap().unwrap();
    assert_eq!((after.status, after.provider_location.as_deref()), (VolumeStatus::Available, Some("s:/e")));
    assert!(after.updated_at.is_some());

    // The same once more: somebody has changed it (us).
    let (swap, trips) = place.trips(db.volume_update(&id, &creating, &available)).await;
    assert_eq!((swap.unwrap(), trips), (Swap::Unexpected { status: VolumeStatus::Available }, 2));
    // Writing what is there already is a success, not "nothing matched".
    let same = Expect::any().by(Some(&claim));
    assert_eq!(db.volume_update(&id, &same, &available).await.unwrap(), Swap::Done);

    let worker = db.worker_get(ResourceType::Volume, id.as_str()).await.unwrap().unwrap();
    let other = db.worker_claim(ResourceType::Volume, id.as_str(), "creating", Some(&worker), service).await.unwrap();
    assert!(other.is_some());
    let error = VolumeChange::status(VolumeStatus::Error);
    assert_eq!(db.volume_update(&id, &same, &error).await.unwrap(), Swap::Replaced);
    assert_eq!(db.volume_finish(&id, &same, &error, Some(&claim)).await.unwrap(), Swap::Replaced);
    assert_eq!(db.volume_get(&id).await.unwrap().unwrap().status, VolumeStatus::Available, "nothing was written");
    assert_eq!(db.volume_update(&VolumeId::random(), &Expect::any(), &error).await.unwrap(), Swap::Gone);

    // Null is a value, too.
    let clear = VolumeChange { provider_location: Some(None), ..VolumeChange::default() };
    assert_eq!(db.volume_update(&id, &Expect::status(VolumeStatus::Available), &clear).await.unwrap(), Swap::Done);
    assert_eq!(db.volume_get(&id).await.unwrap().unwrap().provider_location, None);

    db.volumes_set_provider_id(&[(id.clone(), Some("x".to_owned()))]).await.unwrap();
    assert_eq!(db.volume_get(&id).await.unwrap().unwrap().provider_id.as_deref(), Some("x"));
}

pub(crate) async fn the_end_of_work_is_one_transaction(place: &Place) {
    let db = &place.db;
    let id = volume(place, VolumeStatus::Creating).await.id;
    let service = db.service_register(&service("finish@nfs", None)).await.unwrap().id;
    let claim = db.worker_claim(ResourceType::Volume, id.as_str(), "creating", None, service).await.unwrap().unwrap();
    let expect = Expect::status(VolumeStatus::Creating).by(Some(&claim));
    let change = VolumeChange {
        admin_metadata: Some(pairs(&[("format", "raw"), ("readonly", "False")])),
        ..VolumeChange::status(VolumeStatus::Available)
    };
    let (swap, trips) = place.trips(db.volume_finish(&id, &expect, &change, Some(&claim))).await;
    assert_eq!(swap.unwrap(), Swap::Done);
    assert_eq!(trips, 7, "BEGIN, volume, read pairs, two pairs, worker, COMMIT");
    let loaded = db.volume_load(&id).await.unwrap().unwrap();
    assert_eq!(loaded.worker, None);
    assert_eq!(loaded.volume.admin_metadata, pairs(&[("format", "raw"), ("readonly", "False")]));
    // A merge keeps what it does not name.
    let change = VolumeChange { admin_metadata: Some(pairs(&[("format", "qcow2")])), ..VolumeChange::default() };
    assert_eq!(db.volume_update(&id, &Expect::any(), &change).await.unwrap(), Swap::Done);
    let after = db.volume_get(&id).await.unwrap().unwrap();
    assert_eq!(after.admin_metadata, pairs(&[("format", "qcow2"), ("readonly", "False")]));
}

pub(crate) async fn destroying_takes_everything_along_in_six_round_trips(place: &Place) {
    let db = &place.db;
    let project = "destroy";
    let mut wanted = Volume::new(VolumeId::random(), 3);
    wanted.status = VolumeStatus::Deleting;
    wanted.project_id = Some(project.to_owned());
    wanted.migration_status = Some("error".to_owned());
    wanted.metadata = pairs(&[("a", "1")]);
    wanted.admin_metadata = pairs(&[("format", "raw")]);
    wanted.glance_metadata = pairs(&[("image_id", "x")]);
    let id = db.volume_create(&wanted).await.unwrap().id;
    db.attachment_create(&Attachment::new(AttachmentId::random(), id.clone())).await.unwrap();
    let snapshot = db.snapshot_create(&Snapshot::new(SnapshotId::random(), id.clone(), 3)).await.unwrap();
    let transfer = VolumeId::random();
    place.sql(&format!("INSERT INTO transfers (id, volume_id, deleted) VALUES ('{transfer}', '{id}', false)")).await;
    let service = db.service_register(&service("destroy@nfs", None)).await.unwrap().id;
    let amounts: BTreeMap<String, i64> = [("volumes".to_owned(), 1), ("gigabytes".to_owned(), 2)].into();
    let expire = Timestamp::now().plus_seconds(86400);
    let uuids = db.quota_reserve(project, &amounts, &QuotaDefaults::default(), expire).await.unwrap();
    db.quota_rollback(&uuids, project).await.unwrap();
    place.sql("UPDATE quota_usages SET in_use = 2 WHERE project_id = 'destroy' AND resource = 'gigabytes'").await;

    let (loaded, load) = place.trips(db.volume_load(&id)).await;
    let loaded = loaded.unwrap().unwrap();
    assert!(loaded.has_snapshots && loaded.has_transfers && loaded.volume.attachments.len() == 1);
    let (claim, claiming) =
        place.trips(db.worker_claim(ResourceType::Volume, id.as_str(), "deleting", None, service)).await;
    let claim = claim.unwrap().unwrap();
    let expect = Expect::status(VolumeStatus::Deleting).by(Some(&claim));
    let release = QuotaRelease::volume(project, 3, Some("__DEFAULT__"));
    let wrong = Expect::status(VolumeStatus::Available);
    assert_eq!(
        db.volume_destroy(&loaded, &wrong, Some(&release), Some(&claim)).await.unwrap(),
        Swap::Unexpected { status: VolumeStatus::Deleting }
    );
    let (swap, destroying) = place.trips(db.volume_destroy(&loaded, &expect, Some(&release), Some(&claim))).await;
    assert_eq!(swap.unwrap(), Swap::Done);
    assert_eq!((load, claiming, destroying), (1, 1, 6), "the budget of a delete");

    let row =
        place.sql(&format!("SELECT status, migration_status FROM volumes WHERE id = '{id}' AND deleted = true")).await;
    assert_eq!(row.split('\t').next(), Some("deleted"));
    assert_eq!(
        place.count("volumes", &format!("id = '{id}' AND migration_status IS NULL AND updated_at IS NULL")).await,
        1
    );
    for table in [
        "volume_metadata",
        "volume_admin_metadata",
        "transfers",
        "volume_glance_metadata",
        "volume_attachment",
        "snapshots",
    ] {
        assert_eq!(place.count(table, &format!("volume_id = '{id}' AND deleted = false")).await, 0, "{table}");
        let gone = format!("volume_id = '{id}' AND deleted = true AND deleted_at IS NOT NULL");
        assert_eq!(place.count(table, &gone).await, 1, "{table}");
    }
    let status = place.sql(&format!("SELECT status FROM snapshots WHERE id = '{}'", snapshot.id)).await;
    assert_eq!(status, "creating", "a dependent snapshot keeps its status");
    let usages = db.quota_usages(project).await.unwrap();
    assert_eq!((usages["volumes"].in_use, usages["gigabytes"].in_use), (0, 0), "clamped, not negative");
    assert_eq!(db.worker_get(ResourceType::Volume, id.as_str()).await.unwrap(), None);
    assert_eq!(db.volume_destroy(&loaded, &Expect::any(), Some(&release), None).await.unwrap(), Swap::Gone);

    // A bare volume, as most are: five.
    let id = volume(place, VolumeStatus::Deleting).await.id;
    let loaded = db.volume_load(&id).await.unwrap().unwrap();
    let claim = db.worker_claim(ResourceType::Volume, id.as_str(), "deleting", None, service).await.unwrap().unwrap();
    let expect = Expect::status(VolumeStatus::Deleting).by(Some(&claim));
    let (swap, trips) = place.trips(db.volume_destroy(&loaded, &expect, Some(&release), Some(&claim))).await;
    assert_eq!((swap.unwrap(), trips), (Swap::Done, 5));
}

pub(crate) async fn lists_are_filtered_and_paged(place: &Place) {
    let db = &place.db;
    let mut ids = Vec::new();
    for number in 0..5_u64 {
        let mut wanted = Volume::new(VolumeId::random(), number + 1);
        wanted.project_id = Some("list".to_owned());
        wanted.display_name = Some(format!("v{number}"));
        wanted.status = if number % 2 == 0 { VolumeStatus::Available } else { VolumeStatus::Error };
        wanted.host = Some(format!("list{number}@b#p"));
        wanted.bootable = number == 4;
        wanted.metadata = pairs(&[("number", &number.to_string()), ("kind", "x")]);
        wanted.glance_metadata = pairs(&[("image_id", "i")]);
        ids.push(db.volume_create(&wanted).await.unwrap().id);
    }
    let attached = ids[2].clone();
    db.attachment_create(&Attachment::new(AttachmentId::random(), attached.clone())).await.unwrap();
    let base = VolumeFilter { project_id: Some("list".to_owned()), ..VolumeFilter::default() };
    let numbers = async |filter: VolumeFilter| -> Vec<u64> {
        db.volumes(&filter).await.unwrap().iter().map(|volume| volume.size - 1).collect()
    };
    let by_size =
        VolumeFilter { sort_key: Some("size".to_owned()), sort_dir: SortDirection::Ascending, ..base.clone() };
    assert_eq!(numbers(by_size.clone()).await, [0, 1, 2, 3, 4]);
    let page = VolumeFilter { limit: Some(2), marker: Some(ids[1].clone()), ..by_size.clone() };
    assert_eq!(numbers(page).await, [2, 3]);
    assert_eq!(numbers(VolumeFilter { offset: Some(3), ..by_size.clone() }).await, [3, 4]);
    // Many born in the same second: the id decides, and pages neither repeat nor skip.
    let mut seen = Vec::new();
    let mut filter = VolumeFilter { limit: Some(2), ..base.clone() };
    loop {
        let page = db.volumes(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.marker = Some(last.id.clone());
        seen.extend(page.iter().map(|volume| volume.size - 1));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);

    let only = |change: fn(&mut VolumeFilter)| {
        let mut filter = by_size.clone();
        change(&mut filter);
        filter
    };
    assert_eq!(numbers(only(|filter| filter.status = vec![VolumeStatus::Error])).await, [1, 3]);
    assert_eq!(numbers(only(|filter| filter.name = Some("v3".to_owned()))).await, [3]);
    assert_eq!(numbers(only(|filter| filter.host = Some("list4".to_owned()))).await, [4]);
    assert_eq!(numbers(only(|filter| filter.bootable = Some(true))).await, [4]);
    assert_eq!(numbers(only(|filter| filter.attached = Some(true))).await, [2]);
    assert_eq!(numbers(only(|filter| filter.attached = Some(false))).await, [0, 1, 3, 4]);
    assert_eq!(numbers(only(|filter| filter.metadata = pairs(&[("number", "3"), ("kind", "x")]))).await, [3]);
    assert_eq!(numbers(only(|filter| filter.metadata = pairs(&[("number", "3"), ("kind", "y")]))).await, [0_u64; 0]);
    assert_eq!(numbers(VolumeFilter { ids: vec![ids[0].clone(), ids[3].clone()], ..by_size.clone() }).await, [0, 3]);
    let everybody =
        VolumeFilter { all_tenants: true, project_id: Some("nobody".to_owned()), ..VolumeFilter::default() };
    assert!(numbers(everybody).await.len() >= 5);
    let listed = db.volumes(&VolumeFilter { ids: vec![attached.clone()], ..base.clone() }).await.unwrap();
    let loaded = db.volume_get(&attached).await.unwrap().unwrap();
    assert_eq!(listed, [Volume { volume_type: None, ..loaded }]);

    let error = db.volumes(&VolumeFilter { marker: Some(VolumeId::random()), ..base.clone() }).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { what: "volume", .. }));
    let error = db.volumes(&VolumeFilter { sort_key: Some("id; DROP".to_owned()), ..base }).await.unwrap_err();
    assert!(error.to_string().contains("sorted by 'id; DROP'"), "{error}");
}

pub(crate) async fn a_service_finds_its_own(place: &Place) {
    let db = &place.db;
    let hosts = ["own@nfs", "own@nfs#p1", "own@nfs#p2", "own@nfs2#p", "own2@nfs#p", "own"];
    let mut by_host = BTreeMap::new();
    for host in hosts {
        let wanted = Volume { host: Some(host.to_owned()), ..Volume::new(VolumeId::random(), 1) };
        by_host.insert(host, db.volume_create(&wanted).await.unwrap().id);
    }
    let found = async |owner: VolumeOwner<'_>| {
        let volumes = db.volumes_of_service(owner, None, None).await.unwrap();
        let mut hosts: Vec<String> = volumes.into_iter().filter_map(|volume| volume.host).collect();
        hosts.sort_unstable();
        hosts
    };
    assert_eq!(found(VolumeOwner::Host("own@nfs")).await, ["own@nfs", "own@nfs#p1", "own@nfs#p2"]);
    assert_eq!(found(VolumeOwner::Host("own@nfs#p1")).await, ["own@nfs#p1"]);
    assert_eq!(found(VolumeOwner::Host("own")).await, ["own", "own@nfs", "own@nfs#p1", "own@nfs#p2", "own@nfs2#p"]);
    if place.server != Server::Sqlite {
        // SQLite's LIKE ignores case, for Cinder as for us.
        assert!(found(VolumeOwner::Host("OWN@nfs")).await.is_empty());
    }
    // In batches.
    let owner = VolumeOwner::Host("own@nfs");
    let first = db.volumes_of_service(owner, None, Some(2)).await.unwrap();
    let rest = db.volumes_of_service(owner, Some(&first[1].id), Some(2)).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 1));

    assert_eq!(db.volumes_include_in_cluster("own@nfs", "ownc@nfs").await.unwrap(), 3);
    let clustered = db.volume_get(&by_host["own@nfs#p1"]).await.unwrap().unwrap();
    assert_eq!(clustered.cluster_name.as_deref(), Some("ownc@nfs#p1"));
    assert_eq!(found(VolumeOwner::Cluster("ownc@nfs")).await.len(), 3);

    let snapshot = Snapshot::new(SnapshotId::random(), by_host["own@nfs#p2"].clone(), 1);
    db.snapshot_create(&snapshot).await.unwrap();
    let snapshots = db.snapshots_of_service(VolumeOwner::Cluster("ownc@nfs")).await.unwrap();
    assert_eq!(snapshots.into_iter().map(|found| found.id).collect::<Vec<_>>(), [snapshot.id]);
}

pub(crate) async fn nonsense_in_a_row_is_named(place: &Place) {
    let id = volume(place, VolumeStatus::Available).await.id;
    let attachment = Attachment::new(AttachmentId::random(), id.clone());
    place.db.attachment_create(&attachment).await.unwrap();
    place.sql(&format!("UPDATE volume_attachment SET connector = '[1]' WHERE id = '{}'", attachment.id)).await;
    let error = place.db.attachment_get(&attachment.id).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { table: "volume_attachment", .. }), "{error}");
    assert!(error.to_string().contains(attachment.id.as_str()), "{error}");
    assert!(!error.is_retryable());
    place.sql(&format!("UPDATE volumes SET size = -1, source_volid = '../../etc' WHERE id = '{id}'")).await;
    let error = place.db.volume_get(&id).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { table: "volumes", .. }), "{error}");
    place.sql(&format!("UPDATE volumes SET deleted = true WHERE id = '{id}'")).await;

    // Too long for its column: refused by the servers, kept whole by SQLite.
    let id = volume(place, VolumeStatus::Available).await.id;
    let change = VolumeChange { provider_id: Some(Some("x".repeat(300))), ..VolumeChange::default() };
    let answer = place.db.volume_update(&id, &Expect::any(), &change).await;
    match place.server {
        Server::Sqlite => assert_eq!(answer.unwrap(), Swap::Done),
        _ => assert!(matches!(answer, Err(Error::Statement(_))), "{answer:?}"),
    }
}
