//! Volumes (`cinder/api/v3/views/volumes.py`, and the extensions that add to them).

use scoria_model::{AttachStatus, Attachment, Volume, VolumeStatus};
use serde_json::{Map, Value, json};

use super::{Links, time};
use crate::volume::microversion::Microversion;

/// Keys of the admin metadata that users see among their own.
const VISIBLE: [&str; 2] = ["readonly", "attached_mode"];

/// Key for a fixed-key encryption, which is no id to show (`cinder/common/constants.py: FIXED_KEY_ID`).
const FIXED_KEY: &str = "00000000-0000-0000-0000-000000000000";

/// One line of a list without details.
pub(crate) fn summary(volume: &Volume, links: &Links) -> Value {
    json!({
        "id": volume.id.as_str(),
        "name": volume.display_name,
        "links": links.of("volumes", &volume.id),
    })
}

/// A volume as it stands in answers to create and update.
pub(crate) fn detail(volume: &Volume, links: &Links, version: Microversion) -> Map<String, Value> {
    let mut view = base(volume, links);
    let mut set = |key: &str, value: Value| view.insert(key.to_owned(), value);
    if version.has(13) {
        set("group_id", volume.group_id.as_ref().map(|id| id.as_str()).into());
    }
    if version.has(21) {
        set("provider_id", volume.provider_id.clone().into());
    }
    if version.has(48) {
        // Null came with 3.69; before, it was true.
        set(
            "shared_targets",
            if version.has(69) { volume.shared_targets.into() } else { volume.shared_targets.unwrap_or(true).into() },
        );
        set("service_uuid", volume.service_uuid.clone().into());
    }
    if version.has(61) {
        set("cluster_name", volume.cluster_name.clone().into());
    }
    if version.has(63) {
        set("volume_type_id", volume.volume_type_id.as_ref().map(|id| id.as_str()).into());
    }
    if version.has(64)
        && let Some(key) = volume.encryption_key_id.as_deref().filter(|key| *key != FIXED_KEY)
    {
        set("encryption_key_id", key.into());
    }
    if version.has(65) {
        set("consumes_quota", volume.use_quota.into());
    }
    view
}

/// A volume as it stands in answers to show and in detailed lists: with what the extensions add.
pub(crate) fn full(volume: &Volume, links: &Links, version: Microversion) -> Map<String, Value> {
    let mut view = detail(volume, links, version);
    let mut set = |key: &str, value: Value| view.insert(key.to_owned(), value);
    set("os-vol-host-attr:host", volume.host.clone().into());
    set("os-vol-tenant-attr:tenant_id", volume.project_id.clone().into());
    set("os-vol-mig-status-attr:migstat", volume.migration_status.clone().into());
    set("os-vol-mig-status-attr:name_id", volume.name_id.clone().into());
    if !volume.glance_metadata.is_empty() {
        set("volume_image_metadata", json!(volume.glance_metadata));
    }
    view
}

fn base(volume: &Volume, links: &Links) -> Map<String, Value> {
    let mut metadata = volume.metadata.clone();
    let visible = volume.admin_metadata.iter().filter(|(key, _)| VISIBLE.contains(&key.as_str()));
    metadata.extend(visible.map(|(key, value)| (key.clone(), value.clone())));
    let type_name = volume.volume_type.as_ref().map(|of| of.name.clone());
    let type_id = volume.volume_type_id.as_ref().map(|id| id.as_str().to_owned());
    let view = json!({
        "id": volume.id.as_str(),
        "status": status(&volume.status),
        "size": volume.size,
        "availability_zone": volume.availability_zone,
        "created_at": time(volume.created_at),
        "updated_at": time(volume.updated_at),
        "name": volume.display_name,
        "description": volume.display_description,
        "volume_type": type_name.or(type_id),
        "snapshot_id": volume.snapshot_id.as_ref().map(|id| id.as_str()),
        "source_volid": volume.source_volid.as_ref().map(|id| id.as_str()),
        "metadata": metadata,
        "links": links.of("volumes", &volume.id),
        "user_id": volume.user_id,
        "bootable": volume.bootable.to_string(),
        "encrypted": volume.encryption_key_id.is_some(),
        "replication_status": volume.replication_status,
        "consistencygroup_id": volume.consistencygroup_id,
        "multiattach": volume.multiattach,
        "attachments": volume.attachments.iter().filter_map(attachment).collect::<Vec<_>>(),
        "migration_status": volume.migration_status,
    });
    match view {
        Value::Object(view) => view,
        _ => Map::new(),
    }
}

/// Statuses of managing existing volumes are shown as those that clients know.
fn status(status: &VolumeStatus) -> &str {
    match status {
        VolumeStatus::Managing => "creating",
        VolumeStatus::ErrorManaging => "error",
        VolumeStatus::ErrorManagingDeleting => "deleting",
        other => other.as_str(),
    }
}

fn attachment(attachment: &Attachment) -> Option<Value> {
    (attachment.attach_status == AttachStatus::Attached).then(|| {
        json!({
            "id": attachment.volume_id.as_str(),
            "attachment_id": attachment.id.as_str(),
            "volume_id": attachment.volume_id.as_str(),
            "server_id": attachment.instance_uuid,
            "host_name": attachment.attached_host,
            "device": attachment.mountpoint,
            "attached_at": time(attachment.attach_time),
        })
    })
}

#[cfg(test)]
mod tests {
    use scoria_model::{AttachmentId, Timestamp};

    use super::*;

    fn volume() -> Volume {
        let mut volume = Volume::new("3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11".parse().unwrap(), 2);
        volume.display_name = Some("data".to_owned());
        volume.created_at = Timestamp::parse("2026-11-22T04:59:27");
        volume.metadata.insert("a".to_owned(), "b".to_owned());
        volume.admin_metadata.insert("readonly".to_owned(), "True".to_owned());
        volume.admin_metadata.insert("format".to_owned(), "raw".to_owned());
        volume.shared_targets = None;
        volume
    }

    fn links() -> Links {
        Links::new("http://h", None)
    }

    #[test]
    fn fields_come_with_their_microversions() {
        let has = |minor, key| detail(&volume(), &links(), Microversion::minor(minor)).contains_key(key);
        for (minor, key) in [
            (13, "group_id"),
            (21, "provider_id"),
            (48, "shared_targets"),
            (48, "service_uuid"),
            (61, "cluster_name"),
            (63, "volume_type_id"),
            (65, "consumes_quota"),
        ] {
            assert!(!has(minor - 1, key) && has(minor, key), "{key} comes with 3.{minor}");
        }
        let shared = |minor| detail(&volume(), &links(), Microversion::minor(minor))["shared_targets"].clone();
        assert_eq!((shared(68), shared(69)), (json!(true), Value::Null));
    }

    #[test]
    fn a_fixed_key_is_encryption_without_an_id() {
        let mut volume = volume();
        volume.encryption_key_id = Some(FIXED_KEY.to_owned());
        let view = detail(&volume, &links(), Microversion::MAX);
        assert_eq!(view["encrypted"], true);
        assert!(!view.contains_key("encryption_key_id"));
    }

    #[test]
    fn users_see_two_keys_of_the_service_s_metadata() {
        let view = full(&volume(), &links(), Microversion::MIN);
        assert_eq!(view["metadata"], json!({"a": "b", "readonly": "True"}));
        assert_eq!(view["bootable"], "false");
        assert_eq!(view["created_at"], "2026-11-22T04:59:27.000000");
    }

    #[test]
    fn only_attached_attachments_are_listed() {
        let mut volume = volume();
        let mut attached = Attachment::new(AttachmentId::random(), volume.id.clone());
        attached.attach_status = AttachStatus::Attached;
        attached.mountpoint = Some("/dev/vdb".to_owned());
        let reserved = Attachment::new(AttachmentId::random(), volume.id.clone());
        volume.attachments = vec![attached, reserved];
        let view = detail(&volume, &links(), Microversion::MAX);
        assert_eq!(view["attachments"].as_array().unwrap().len(), 1);
        assert_eq!(view["attachments"][0]["device"], "/dev/vdb");
    }

    #[test]
    fn managing_looks_like_creating() {
        assert_eq!(status(&VolumeStatus::Managing), "creating");
        assert_eq!(status(&VolumeStatus::ErrorManaging), "error");
        assert_eq!(status(&VolumeStatus::InUse), "in-use");
    }
}
