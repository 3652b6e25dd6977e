use scoria_db::Error;
use scoria_model::{
    MessageAction, MessageDetail, Metadata, ResourceType, Snapshot, SnapshotId, UserMessage, VolumeId, VolumeStatus,
};

use crate::place::Place;
use crate::volumes::{pairs, volume};

pub(crate) async fn pairs_are_merged_and_replaced(place: &Place) {
    let db = &place.db;
    let id = volume(place, VolumeStatus::Available).await.id;
    let first = pairs(&[("a", "1"), ("b", "2")]);
    assert_eq!(db.volume_metadata_update(&id, &first, false).await.unwrap(), first);
    let merged = db.volume_metadata_update(&id, &pairs(&[("b", "3"), ("c", "4")]), false).await.unwrap();
    assert_eq!(merged, pairs(&[("a", "1"), ("b", "3"), ("c", "4")]));
    let replaced = db.volume_metadata_update(&id, &pairs(&[("c", "4"), ("d", "5")]), true).await.unwrap();
    assert_eq!(replaced, pairs(&[("c", "4"), ("d", "5")]));
    assert_eq!(db.volume_get(&id).await.unwrap().unwrap().metadata, replaced);
    assert_eq!(db.volume_metadata_update(&id, &Metadata::new(), true).await.unwrap(), Metadata::new());
    assert_eq!(place.count("volume_metadata", &format!("volume_id = '{id}' AND deleted = true")).await, 4);
    // A key that was there before is a new row, and two who write at once do not make two of it.
    let both = pairs(&[("a", "1")]);
    let (one, two) =
        tokio::join!(db.volume_metadata_update(&id, &both, false), db.volume_metadata_update(&id, &both, false));
    assert_eq!((one.unwrap(), two.unwrap()), (both.clone(), both));
    assert_eq!(place.count("volume_metadata", &format!("volume_id = '{id}' AND deleted = false")).await, 1);

    let gone = db.volume_metadata_update(&VolumeId::random(), &first, false).await;
    assert!(matches!(gone, Err(Error::NotFound { what: "volume", .. })));
    db.volume_admin_metadata_update(&id, &first, false).await.unwrap();
    db.volume_admin_metadata_delete(&id, &["a"]).await.unwrap();
    db.volume_admin_metadata_delete(&id, &[]).await.unwrap();
    assert_eq!(db.volume_get(&id).await.unwrap().unwrap().admin_metadata, pairs(&[("b", "2")]));

    let snapshot = db.snapshot_create(&Snapshot::new(SnapshotId::random(), id, 1)).await.unwrap().id;
    db.snapshot_metadata_update(&snapshot, &first, true).await.unwrap();
    assert_eq!(db.snapshot_get(&snapshot).await.unwrap().unwrap().metadata, first);
}

pub(crate) async fn image_properties_are_copied(place: &Place) {
    let db = &place.db;
    let [source, target] =
        [volume(place, VolumeStatus::Available).await.id, volume(place, VolumeStatus::Available).await.id];
    let snapshot = db.snapshot_create(&Snapshot::new(SnapshotId::random(), source.clone(), 1)).await.unwrap().id;
    let none = db.glance_metadata_copy_to_snapshot(&snapshot, &source).await.unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "a volume that is not bootable has none");
    let image = pairs(&[("image_id", "1"), ("min_disk", "0"), ("long", &"x".repeat(1000))]);
    db.volume_glance_metadata_create(&source, &image).await.unwrap();
    db.volume_glance_metadata_create(&source, &image).await.unwrap();
    let other = db.volume_glance_metadata_create(&source, &pairs(&[("image_id", "2")])).await;
    assert!(matches!(other, Err(Error::Conflict(_))));
    assert_eq!(db.glance_metadata_copy_to_snapshot(&snapshot, &source).await.unwrap(), image);
    assert_eq!(db.snapshot_glance_metadata(&snapshot).await.unwrap(), image);
    assert_eq!(db.glance_metadata_copy_to_volume(&target, &snapshot).await.unwrap(), image);
    assert_eq!(db.glance_metadata_copy_from_volume(&source, &target).await.unwrap(), image);
    assert_eq!(db.volume_get(&target).await.unwrap().unwrap().glance_metadata, image, "twice is once");
    db.volume_glance_metadata_delete_by_snapshot(&snapshot).await.unwrap();
    assert!(db.snapshot_glance_metadata(&snapshot).await.unwrap().is_empty());
    db.volume_glance_metadata_delete_by_volume(&target).await.unwrap();
    assert!(db.volume_get(&target).await.unwrap().unwrap().glance_metadata.is_empty());
}

pub(crate) async fn a_message_is_written(place: &Place) {
    let message = UserMessage {
        project_id: "p".to_owned(),
        request_id: Some("req-1".to_owned()),
        resource_type: ResourceType::Volume,
        resource_id: VolumeId::random().to_string(),
        action: MessageAction::CreateVolumeFromBackend,
        detail: MessageDetail::DriverFailedCreate,
        ttl: 2_592_000,
    };
    let id = place.db.message_create(&message).await.unwrap();
    let columns = "event_id, message_level, resource_type, resource_uuid, action_id, detail_id, project_id, request_id";
    let row = place.sql(&format!("SELECT {columns} FROM messages WHERE id = '{id}' AND deleted = false")).await;
    let expected = format!("VOLUME_VOLUME_008_012\tERROR\tVOLUME\t{}\t008\t012\tp\treq-1", message.resource_id);
    assert_eq!(row, expected);
    assert_eq!(place.count("messages", &format!("id = '{id}' AND expires_at > created_at")).await, 1);
}
