use scoria_db::{CINDER_REVISIONS, Error, SchemaOrigin};
use scoria_model::VolumeTypeId;

use crate::place::{Origin, Place};
use crate::volumes::pairs;

pub(crate) async fn the_origin_is_told(place: &Place) {
    let db = &place.db;
    let origin = db.check_schema().await.unwrap();
    assert_eq!(db.version().await.unwrap(), Some(origin.clone()));
    match place.origin {
        Origin::Cinder => {
            assert_eq!(origin, SchemaOrigin::Cinder { revision: CINDER_REVISIONS[0].to_owned() });
            let error = db.sync().await.unwrap_err();
            assert!(matches!(&error, Error::Schema(text) if text.contains("cinder-manage")), "{error}");
        }
        _ => {
            assert_eq!(origin, SchemaOrigin::Scoria { version: 2 });
            assert_eq!(db.sync().await.unwrap(), origin, "may be run again");
        }
    }
}

pub(crate) async fn types_and_qos_specs_are_read(place: &Place) {
    let db = &place.db;
    let default = db.default_volume_type().await.unwrap().unwrap();
    assert_eq!((default.name.as_str(), default.is_public, default.extra_specs.len()), ("__DEFAULT__", true, 0));
    let (id, qos) = (VolumeTypeId::random(), VolumeTypeId::random());
    let key = match place.server {
        crate::place::Server::MariaDb => "`key`",
        _ => "\"key\"",
    };
    place
        .sql(&format!(
            "INSERT INTO quality_of_service_specs (id, specs_id, {key}, value, deleted) VALUES \
             ('{qos}', NULL, 'QoS_Specs_Name', 'fast', false), ('{id}', '{qos}', 'consumer', 'both', false)"
        ))
        .await;
    let child = VolumeTypeId::random();
    place
        .sql(&format!(
            "INSERT INTO quality_of_service_specs (id, specs_id, {key}, value, deleted) VALUES \
             ('{child}', '{qos}', 'total_iops_sec', '500', false)"
        ))
        .await;
    place
        .sql(&format!(
            "INSERT INTO volume_types (id, name, qos_specs_id, is_public, deleted) VALUES ('{id}', 'gold', '{qos}', false, false)"
        ))
        .await;
    place
        .sql(&format!(
            "INSERT INTO volume_type_extra_specs ({key}, value, volume_type_id, deleted) VALUES ('multiattach', '<is> True', '{id}', false)"
        ))
        .await;
    let gold = db.volume_type_get(&id).await.unwrap().unwrap();
    assert_eq!(gold.extra_specs, pairs(&[("multiattach", "<is> True")]));
    assert_eq!(db.volume_type_by_name("gold").await.unwrap(), Some(gold.clone()));
    assert_eq!(db.volume_type_by_name("none").await.unwrap(), None);
    // Servers disagree on where '_' comes in the order.
    let mut types = db.volume_types().await.unwrap();
    types.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(types, [default, gold.clone()]);
    let specs = db.qos_specs_get(gold.qos_specs_id.as_deref().unwrap()).await.unwrap().unwrap();
    assert_eq!((specs.name.as_str(), specs.consumer.as_str()), ("fast", "both"));
    assert_eq!(specs.specs, pairs(&[("total_iops_sec", "500")]));
    assert_eq!(db.qos_specs_get("none").await.unwrap(), None);
}
