use scoria_db::{Attached, AttachmentChange, AttachmentFilter, Detached, Error};
use scoria_model::{AttachStatus, Attachment, AttachmentId, VolumeId, VolumeStatus};

use crate::place::Place;
use crate::volumes::{pairs, volume};

fn attached(uuid: &str) -> Attached<'_> {
    Attached { instance_uuid: Some(uuid), host: None, mountpoint: Some("/dev/vdb"), mode: "rw", mark_attached: true }
}

pub(crate) async fn an_attachment_lives_and_dies(place: &Place) {
    let db = &place.db;
    let volume_id = volume(place, VolumeStatus::Available).await.id;
    let mut wanted = Attachment::new(AttachmentId::random(), volume_id.clone());
    wanted.instance_uuid = Some(VolumeId::random().to_string());
    wanted.attached_host = Some("node".to_owned());
    let connector = serde_json::json!({"host": "node", "ip": "::1", "multipath": false, "nqn": null});
    wanted.connector = connector.as_object().cloned();
    let made = db.attachment_create(&wanted).await.unwrap();
    wanted.created_at = made.created_at;
    assert_eq!(made, wanted);
    assert!(matches!(db.attachment_create(&wanted).await, Err(Error::Conflict(_))));

    let info = serde_json::json!({"driver_volume_type": "nfs", "name": "volume-1"});
    let change = AttachmentChange {
        attach_status: Some(AttachStatus::Attaching),
        connection_info: Some(info.as_object().cloned().map(Into::into)),
        connector: Some(None),
        ..AttachmentChange::default()
    };
    assert!(db.attachment_update(&made.id, &change).await.unwrap());
    let after = db.attachment_get(&made.id).await.unwrap().unwrap();
    assert_eq!((after.connection_info, after.connector), (info.as_object().cloned(), None));
    assert_eq!(after.attach_status, AttachStatus::Attaching);

    let filter = AttachmentFilter {
        volume_id: Some(volume_id),
        instance_uuid: wanted.instance_uuid.clone(),
        attached_host: Some("node".to_owned()),
        status: vec![AttachStatus::Attaching],
    };
    assert_eq!(db.attachments(&filter).await.unwrap().len(), 1);
    db.attachment_destroy(&made.id).await.unwrap();
    db.attachment_destroy(&made.id).await.unwrap();
    assert_eq!(db.attachment_get(&made.id).await.unwrap(), None);
    assert!(!db.attachment_update(&made.id, &change).await.unwrap());
    let gone = format!("id = '{}' AND attach_status = 'deleted' AND deleted = true", made.id);
    assert_eq!(place.count("volume_attachment", &gone).await, 1);
}

pub(crate) async fn the_rest_decides_after_a_detach(place: &Place) {
    let db = &place.db;
    let volume_id = volume(place, VolumeStatus::Available).await.id;
    let [first, second] = [AttachmentId::random(), AttachmentId::random()];
    for id in [&first, &second] {
        db.attachment_create(&Attachment::new(id.clone(), volume_id.clone())).await.unwrap();
    }
    let uuid = VolumeId::random().to_string();
    assert_eq!(db.volume_attached(&first, &attached(&uuid)).await.unwrap(), volume_id);
    let error = db.volume_attached(&first, &attached("no-uuid")).await.unwrap_err();
    assert!(error.to_string().contains("'no-uuid'"), "{error}");
    let nobody = db.volume_attached(&AttachmentId::random(), &attached(&uuid)).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "attachment", .. })));
    let loaded = db.volume_load(&volume_id).await.unwrap().unwrap().volume;
    assert_eq!((loaded.status, loaded.attach_status), (VolumeStatus::InUse, AttachStatus::Attached));
    assert_eq!(loaded.attachments.len(), 2);
    let row = loaded.attachments.iter().find(|row| row.id == first).unwrap();
    assert_eq!((row.mountpoint.as_deref(), row.attach_mode.as_deref()), (Some("/dev/vdb"), Some("rw")));
    assert!(row.attach_time.is_some() && row.updated_at.is_none());

    let attaching = Attached { mark_attached: false, ..attached(&uuid) };
    db.volume_attached(&second, &attaching).await.unwrap();
    db.volume_admin_metadata_update(&volume_id, &pairs(&[("attached_mode", "rw"), ("readonly", "False")]), false)
        .await
        .unwrap();
    let detached = db.finish_detach(&volume_id, &first).await.unwrap();
    let attaching = AttachStatus::Attaching;
    assert_eq!(detached, Detached { status: Some(VolumeStatus::Attaching), attach_status: attaching, found: true });
    let after = db.volume_get(&volume_id).await.unwrap().unwrap();
    assert_eq!(after.admin_metadata, pairs(&[("readonly", "False")]));
    let again = db.finish_detach(&volume_id, &first).await.unwrap();
    assert_eq!((again.found, again.status), (false, detached.status), "twice is once");

    // During an upload the status is the upload's business.
    place.sql(&format!("UPDATE volumes SET status = 'uploading' WHERE id = '{volume_id}'")).await;
    let detached = db.volume_detached(&volume_id, &second).await.unwrap();
    assert_eq!(detached, Detached { status: None, attach_status: AttachStatus::Detached, found: true });
    let after = db.volume_get(&volume_id).await.unwrap().unwrap();
    assert_eq!((after.status, after.attach_status), (VolumeStatus::Uploading, AttachStatus::Detached));
    let error = db.volume_detached(&VolumeId::random(), &second).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { what: "volume", .. }));
}
