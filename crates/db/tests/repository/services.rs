use scoria_db::{ClusterChange, NewService, ServiceChange, ServiceFilter};
use scoria_model::{OBJECT_VERSION, Timestamp, VOLUME_RPC_VERSION, Volume, VolumeId};

use crate::place::Place;

pub(crate) fn service(host: &str, cluster: Option<&str>) -> NewService {
    NewService {
        host: host.to_owned(),
        binary: "cinder-volume".to_owned(),
        topic: "cinder-volume".to_owned(),
        availability_zone: "nova".to_owned(),
        cluster_name: cluster.map(str::to_owned),
        enable_new_services: true,
    }
}

pub(crate) async fn a_service_registers_once(place: &Place) {
    let db = &place.db;
    let new = service("once@nfs", None);
    let first = db.service_register(&new).await.unwrap();
    assert_eq!(first.host, "once@nfs");
    assert_eq!(first.rpc_current_version.as_deref(), Some(VOLUME_RPC_VERSION));
    assert_eq!(first.object_current_version.as_deref(), Some(OBJECT_VERSION));
    assert_eq!(first.replication_status.as_deref(), Some("not-capable"));
    assert_eq!(first.availability_zone.as_deref(), Some("nova"));
    assert_eq!((first.disabled, first.frozen, first.report_count), (false, false, 0));
    assert!(first.uuid.is_some() && first.updated_at.is_some());

    place
        .sql("UPDATE services SET rpc_current_version = '3.0', object_current_version = '1.0' WHERE host = 'once@nfs'")
        .await;
    let again = db.service_register(&new).await.unwrap();
    assert_eq!((again.id, &again.uuid), (first.id, &first.uuid));
    assert_eq!(again.rpc_current_version.as_deref(), Some(VOLUME_RPC_VERSION));

    let (alive, trips) = place.trips(db.service_heartbeat(first.id)).await;
    assert!(alive.unwrap());
    assert_eq!(trips, 1);
    assert_eq!(db.service_get("once@nfs", "cinder-volume").await.unwrap().unwrap().report_count, 1);
    place.sql("UPDATE services SET deleted = true WHERE host = 'once@nfs'").await;
    assert!(!db.service_heartbeat(first.id).await.unwrap(), "an administrator removed the row");
    assert_eq!(db.service_get("once@nfs", "cinder-volume").await.unwrap(), None);
    assert_ne!(db.service_register(&new).await.unwrap().id, first.id);

    let refused = NewService { enable_new_services: false, ..service("refused@nfs", None) };
    assert!(db.service_register(&refused).await.unwrap().disabled);
}

pub(crate) async fn clusters_are_made_and_joined(place: &Place) {
    let db = &place.db;
    let first = db.service_register(&service("c1@nfs", Some("clu@nfs"))).await.unwrap();
    assert_eq!(first.cluster_name.as_deref(), Some("clu@nfs"));
    let cluster = db.cluster_get("clu@nfs", "cinder-volume").await.unwrap().unwrap();
    assert_eq!((cluster.disabled, cluster.frozen), (false, false));

    let change = ClusterChange {
        frozen: Some(true),
        replication_status: Some(Some("failed-over".to_owned())),
        active_backend_id: Some(Some("other".to_owned())),
        ..ClusterChange::default()
    };
    assert!(db.cluster_update("clu@nfs", "cinder-volume", &change).await.unwrap());
    assert!(!db.cluster_update("nobody@nfs", "cinder-volume", &change).await.unwrap());

    // One that was alone before takes the cluster's replication state over, and there is still one cluster.
    db.service_register(&service("c2@nfs", None)).await.unwrap();
    let second = db.service_register(&service("c2@nfs", Some("clu@nfs"))).await.unwrap();
    assert_eq!(second.cluster_name.as_deref(), Some("clu@nfs"));
    assert_eq!((second.frozen, second.active_backend_id.as_deref()), (true, Some("other")));
    assert_eq!(db.clusters().await.unwrap().iter().filter(|cluster| cluster.name == "clu@nfs").count(), 1);

    // Another cluster in the configuration than in the row: the row keeps its own.
    let moved = db.service_register(&service("c2@nfs", Some("elsewhere@nfs"))).await.unwrap();
    assert_eq!(moved.cluster_name.as_deref(), Some("clu@nfs"));
    assert_eq!(db.cluster_get("elsewhere@nfs", "cinder-volume").await.unwrap(), None);
}

pub(crate) async fn volumes_follow_a_service_made_anew(place: &Place) {
    let db = &place.db;
    let old = db.service_register(&service("anew@nfs", None)).await.unwrap();
    let mut ids = Vec::new();
    for (host, uuid) in [("anew@nfs#pool", old.uuid.clone()), ("anew@nfs#pool", None), ("anew@nfs2", old.uuid.clone())]
    {
        let mut volume = Volume::new(VolumeId::random(), 1);
        (volume.host, volume.service_uuid) = (Some(host.to_owned()), uuid);
        ids.push(db.volume_create(&volume).await.unwrap().id);
    }
    place.sql("UPDATE services SET deleted = true WHERE host = 'anew@nfs'").await;
    let new = db.service_register(&service("anew@nfs", None)).await.unwrap();
    let mut uuids = Vec::new();
    for id in &ids {
        uuids.push(db.volume_get(id).await.unwrap().unwrap().service_uuid);
    }
    assert_eq!(uuids, [new.uuid, None, old.uuid], "those without a service are left alone, as are other back ends'");
}

pub(crate) async fn changes_and_filters(place: &Place) {
    let db = &place.db;
    let service = db.service_register(&service("changed@lvm", Some("chg@lvm"))).await.unwrap();
    place.sql("UPDATE services SET updated_at = '2020-01-01 00:00:00' WHERE host = 'changed@lvm'").await;
    let change = ServiceChange {
        disabled: Some(true),
        disabled_reason: Some(Some("frozen".to_owned())),
        ..ServiceChange::default()
    };
    assert!(db.service_update(service.id, &change).await.unwrap());
    let after = db.service_get("changed@lvm", "cinder-volume").await.unwrap().unwrap();
    assert_eq!(after.updated_at, Timestamp::parse("2020-01-01T00:00:00Z"), "disabling is no heartbeat");
    assert!(after.disabled);
    let change = ServiceChange { replication_status: Some(Some("enabled".to_owned())), ..ServiceChange::default() };
    assert!(db.service_update(service.id, &change).await.unwrap());

    let hosts = async |filter: ServiceFilter| {
        let services = db.services(&filter).await.unwrap();
        services.into_iter().map(|service| service.host).collect::<Vec<_>>()
    };
    let of_cluster = ServiceFilter { cluster_name: Some("chg@lvm".to_owned()), ..ServiceFilter::default() };
    assert_eq!(hosts(of_cluster.clone()).await, ["changed@lvm"]);
    let node = ServiceFilter {
        host: Some("changed".to_owned()),
        binary: Some("cinder-volume".to_owned()),
        topic: Some("cinder-volume".to_owned()),
        up_since: Some(Timestamp::now().plus_seconds(-60)),
        ..ServiceFilter::default()
    };
    assert_eq!(hosts(node).await, ["changed@lvm"]);
    place
        .sql("UPDATE services SET created_at = '2020-01-01 00:00:00', updated_at = NULL WHERE host = 'changed@lvm'")
        .await;
    let up = ServiceFilter { up_since: Some(Timestamp::now().plus_seconds(-60)), ..of_cluster };
    assert!(hosts(up).await.is_empty(), "not heard of since");
}
