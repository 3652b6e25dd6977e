//! The versioned objects of the block-storage services, by class (`cinder/objects/*.py`, object history 1.39).

use super::schema::{
    Fallback, Field, Schema, any_map, boolean, int, nullable_text_map, object, objects, text, text_map, texts, time,
    word,
};

/// The class of that name.
pub(super) fn find(name: &str) -> Option<&'static Schema> {
    SCHEMAS.iter().find(|schema| schema.name == name)
}

const fn row(name: &'static str, version: &'static str, own_fields: &'static [Field]) -> Schema {
    Schema { name, version, version_1_38: version, persistent: true, own_fields }
}

const fn plain(name: &'static str, version: &'static str, own_fields: &'static [Field]) -> Schema {
    Schema { name, version, version_1_38: version, persistent: false, own_fields }
}

impl Schema {
    const fn formerly(self, version_1_38: &'static str) -> Self {
        Self { version_1_38, ..self }
    }
}

/// Every class that may come over the wire.
pub(super) const SCHEMAS: &[Schema] = &[
    row("Volume", "1.9", VOLUME).formerly("1.8"),
    row("Snapshot", "1.6", SNAPSHOT).formerly("1.5"),
    row("VolumeAttachment", "1.3", VOLUME_ATTACHMENT),
    plain("RequestSpec", "1.5", REQUEST_SPEC),
    plain("VolumeProperties", "1.1", VOLUME_PROPERTIES),
    row("VolumeType", "1.3", VOLUME_TYPE),
    row("QualityOfServiceSpecs", "1.0", QUALITY_OF_SERVICE_SPECS),
    row("Group", "1.2", GROUP),
    row("GroupSnapshot", "1.0", GROUP_SNAPSHOT),
    row("GroupType", "1.0", GROUP_TYPE),
    row("ConsistencyGroup", "1.4", CONSISTENCY_GROUP),
    row("CGSnapshot", "1.1", CGSNAPSHOT),
    row("Backup", "1.7", BACKUP),
    row("BackupImport", "1.7", BACKUP),
    plain("BackupDeviceInfo", "1.0", BACKUP_DEVICE_INFO),
    row("Service", "1.6", SERVICE),
    row("Cluster", "1.1", CLUSTER),
    plain("CleanupRequest", "1.0", CLEANUP_REQUEST),
    plain("LogLevel", "1.0", LOG_LEVEL),
    plain("ManageableVolume", "1.0", MANAGEABLE_VOLUME),
    plain("ManageableSnapshot", "1.0", MANAGEABLE_SNAPSHOT),
    plain("BackupList", "1.0", &[objects("objects", "Backup").required()]),
    plain("CGSnapshotList", "1.0", &[objects("objects", "CGSnapshot").required()]),
    plain("ClusterList", "1.0", &[objects("objects", "Cluster").required()]),
    plain("ConsistencyGroupList", "1.1", &[objects("objects", "ConsistencyGroup").required()]),
    plain("GroupList", "1.0", &[objects("objects", "Group").required()]),
    plain("GroupSnapshotList", "1.0", &[objects("objects", "GroupSnapshot").required()]),
    plain("GroupTypeList", "1.0", &[objects("objects", "GroupType").required()]),
    plain("LogLevelList", "1.0", &[objects("objects", "LogLevel").required()]),
    plain("ManageableSnapshotList", "1.0", &[objects("objects", "ManageableSnapshot").required()]),
    plain("ManageableVolumeList", "1.0", &[objects("objects", "ManageableVolume").required()]),
    plain("QualityOfServiceSpecsList", "1.0", &[objects("objects", "QualityOfServiceSpecs").required()]),
    plain("ServiceList", "1.1", &[objects("objects", "Service").required()]),
    plain("SnapshotList", "1.0", &[objects("objects", "Snapshot").required()]),
    plain("VolumeAttachmentList", "1.1", &[objects("objects", "VolumeAttachment").required()]),
    plain("VolumeList", "1.1", &[objects("objects", "Volume").required()]),
    plain("VolumeTypeList", "1.1", &[objects("objects", "VolumeType").required()]),
];

const ATTACH_STATUS: &[&str] =
    &["attached", "attaching", "detached", "error_attaching", "error_detaching", "reserved", "deleted"];
const SNAPSHOT_STATUS: &[&str] = &[
    "error",
    "available",
    "creating",
    "deleting",
    "deleted",
    "updating",
    "error_deleting",
    "unmanaging",
    "backing-up",
    "restoring",
];
const QOS_CONSUMER: &[&str] = &["back-end", "front-end", "both"];
const GROUP_STATUS: &[&str] =
    &["error", "available", "creating", "deleting", "deleted", "updating", "in-use", "error_deleting"];
const REPLICATION_STATUS: &[&str] = &[
    "error",
    "enabled",
    "disabled",
    "not-capable",
    "failover-error",
    "failing-over",
    "failed-over",
    "enabling",
    "disabling",
];
const CONSISTENCY_GROUP_STATUS: &[&str] =
    &["error", "available", "creating", "deleting", "deleted", "updating", "error_deleting"];
const BACKUP_STATUS: &[&str] =
    &["error", "error_deleting", "creating", "available", "deleting", "deleted", "restoring"];

const VOLUME: &[Field] = &[
    text("id").required(),
    text("_name_id"),
    text("ec2_id"),
    text("user_id"),
    text("project_id"),
    boolean("use_quota").null_means(Fallback::Yes),
    text("snapshot_id"),
    text("cluster_name"),
    object("cluster", "Cluster"),
    text("host"),
    int("size"),
    text("availability_zone"),
    text("status"),
    word("attach_status", ATTACH_STATUS),
    text("migration_status"),
    time("scheduled_at"),
    time("launched_at"),
    time("terminated_at"),
    text("display_name"),
    text("display_description"),
    text("provider_id"),
    text("provider_location"),
    text("provider_auth"),
    text("provider_geometry"),
    text("volume_type_id"),
    text("source_volid"),
    text("encryption_key_id"),
    text("consistencygroup_id"),
    text("group_id"),
    boolean("bootable"),
    boolean("multiattach"),
    text("replication_status"),
    text("replication_extended_status"),
    text("replication_driver_data"),
    text("previous_status"),
    text_map("metadata"),
    text_map("admin_metadata"),
    text_map("glance_metadata"),
    object("volume_type", "VolumeType"),
    object("volume_attachment", "VolumeAttachmentList"),
    object("consistencygroup", "ConsistencyGroup"),
    object("snapshots", "SnapshotList"),
    object("group", "Group"),
    text("service_uuid"),
    boolean("shared_targets"),
];

const SNAPSHOT: &[Field] = &[
    text("id").required(),
    text("user_id"),
    text("project_id"),
    boolean("use_quota").null_means(Fallback::Yes),
    text("volume_id"),
    text("cgsnapshot_id"),
    text("group_snapshot_id"),
    word("status", SNAPSHOT_STATUS),
    text("progress"),
    int("volume_size"),
    text("display_name"),
    text("display_description"),
    text("encryption_key_id"),
    text("volume_type_id"),
    text("provider_location"),
    text("provider_id"),
    text_map("metadata").required(),
    text("provider_auth"),
    object("volume", "Volume"),
    object("cgsnapshot", "CGSnapshot"),
    object("group_snapshot", "GroupSnapshot"),
];

const VOLUME_ATTACHMENT: &[Field] = &[
    text("id").required(),
    text("volume_id").required(),
    text("instance_uuid"),
    text("attached_host"),
    text("mountpoint"),
    time("attach_time"),
    time("detach_time"),
    word("attach_status", ATTACH_STATUS),
    text("attach_mode"),
    object("volume", "Volume").required(),
    any_map("connection_info"),
    any_map("connector"),
];

const REQUEST_SPEC: &[Field] = &[
    text("consistencygroup_id"),
    text("group_id"),
    text("cgsnapshot_id"),
    text("image_id"),
    text("snapshot_id"),
    text("source_replicaid"),
    text("source_volid"),
    text("volume_id"),
    object("volume", "Volume"),
    object("volume_type", "VolumeType"),
    object("volume_properties", "VolumeProperties"),
    text("CG_backend"),
    text("group_backend"),
    text("resource_backend"),
    text("backup_id"),
    text("operation"),
    texts("availability_zones"),
];

const VOLUME_PROPERTIES: &[Field] = &[
    text("attach_status"),
    text("availability_zone"),
    text("cgsnapshot_id"),
    text("consistencygroup_id"),
    text("group_id"),
    text("display_description"),
    text("display_name"),
    text("encryption_key_id"),
    text_map("metadata"),
    boolean("multiattach"),
    text("project_id"),
    text_map("qos_specs"),
    text("replication_status"),
    texts("reservations"),
    int("size"),
    text("snapshot_id"),
    text("source_replicaid"),
    text("source_volid"),
    text("status"),
    text("user_id"),
    text("volume_type_id"),
    text("group_type_id"),
];

const VOLUME_TYPE: &[Field] = &[
    text("id").required(),
    text("name"),
    text("description"),
    boolean("is_public"),
    texts("projects"),
    nullable_text_map("extra_specs"),
    text("qos_specs_id"),
    object("qos_specs", "QualityOfServiceSpecs"),
];

const QUALITY_OF_SERVICE_SPECS: &[Field] = &[
    text("id").required(),
    text("name").required(),
    word("consumer", QOS_CONSUMER).null_means(Fallback::Text("back-end")),
    nullable_text_map("specs"),
    object("volume_types", "VolumeTypeList"),
];

const GROUP: &[Field] = &[
    text("id").required(),
    text("user_id").required(),
    text("project_id").required(),
    text("cluster_name"),
    text("host"),
    text("availability_zone"),
    text("name"),
    text("description"),
    text("group_type_id").required(),
    texts("volume_type_ids"),
    word("status", GROUP_STATUS),
    text("group_snapshot_id"),
    text("source_group_id"),
    word("replication_status", REPLICATION_STATUS),
    object("volumes", "VolumeList"),
    object("volume_types", "VolumeTypeList"),
    object("group_snapshots", "GroupSnapshotList"),
];

const GROUP_SNAPSHOT: &[Field] = &[
    text("id").required(),
    text("group_id").required(),
    text("project_id"),
    text("user_id"),
    text("name"),
    text("description"),
    text("status"),
    text("group_type_id"),
    object("group", "Group"),
    object("snapshots", "SnapshotList"),
];

const GROUP_TYPE: &[Field] = &[
    text("id").required(),
    text("name"),
    text("description"),
    boolean("is_public"),
    texts("projects"),
    nullable_text_map("group_specs"),
];

const CONSISTENCY_GROUP: &[Field] = &[
    text("id").required(),
    text("user_id").required(),
    text("project_id").required(),
    text("cluster_name"),
    object("cluster", "Cluster"),
    text("host"),
    text("availability_zone"),
    text("name"),
    text("description"),
    text("volume_type_id"),
    word("status", CONSISTENCY_GROUP_STATUS),
    text("cgsnapshot_id"),
    text("source_cgid"),
    object("cgsnapshots", "CGSnapshotList"),
    object("volumes", "VolumeList"),
];

const CGSNAPSHOT: &[Field] = &[
    text("id").required(),
    text("consistencygroup_id"),
    text("project_id").required(),
    text("user_id").required(),
    text("name"),
    text("description"),
    text("status"),
    object("consistencygroup", "ConsistencyGroup"),
    object("snapshots", "SnapshotList"),
];

const BACKUP: &[Field] = &[
    text("id").required(),
    text("user_id").required(),
    text("project_id").required(),
    text("volume_id").required(),
    text("host"),
    text("availability_zone"),
    text("container"),
    text("parent_id"),
    object("parent", "Backup"),
    word("status", BACKUP_STATUS),
    text("fail_reason"),
    int("size"),
    text("display_name"),
    text("display_description"),
    text("service_metadata"),
    text("service"),
    int("object_count"),
    text("temp_volume_id"),
    text("temp_snapshot_id"),
    int("num_dependent_backups"),
    text("snapshot_id"),
    time("data_timestamp"),
    text("restore_volume_id"),
    text_map("metadata"),
    text("encryption_key_id"),
];

const BACKUP_DEVICE_INFO: &[Field] =
    &[object("volume", "Volume"), object("snapshot", "Snapshot"), boolean("secure_enabled").null_means(Fallback::No)];

const SERVICE: &[Field] = &[
    int("id").required(),
    text("host"),
    text("binary"),
    text("cluster_name"),
    object("cluster", "Cluster"),
    text("topic"),
    int("report_count").null_means(Fallback::Zero),
    boolean("disabled"),
    text("availability_zone"),
    text("disabled_reason"),
    time("modified_at"),
    text("rpc_current_version"),
    text("object_current_version"),
    word("replication_status", REPLICATION_STATUS),
    boolean("frozen").null_means(Fallback::No),
    text("active_backend_id"),
    text("uuid").required(),
];

const CLUSTER: &[Field] = &[
    int("id").required(),
    text("name").required(),
    text("binary").required(),
    boolean("disabled"),
    text("disabled_reason"),
    int("num_hosts").null_means(Fallback::Zero),
    int("num_down_hosts").null_means(Fallback::Zero),
    time("last_heartbeat"),
    object("services", "ServiceList"),
    word("replication_status", REPLICATION_STATUS),
    boolean("frozen").null_means(Fallback::No),
    text("active_backend_id"),
];

const CLEANUP_REQUEST: &[Field] = &[
    int("service_id"),
    text("cluster_name"),
    text("host"),
    text("binary"),
    boolean("is_up"),
    boolean("disabled"),
    text("resource_id"),
    text("resource_type"),
    time("until"),
];

const LOG_LEVEL: &[Field] = &[text("prefix"), text("level")];

const MANAGEABLE_VOLUME: &[Field] = &[
    nullable_text_map("reference").required(),
    int("size"),
    boolean("safe_to_manage"),
    text("reason_not_safe"),
    text("cinder_id"),
    nullable_text_map("extra_info"),
];

const MANAGEABLE_SNAPSHOT: &[Field] = &[
    nullable_text_map("source_reference").required(),
    nullable_text_map("reference").required(),
    int("size"),
    boolean("safe_to_manage"),
    text("reason_not_safe"),
    text("cinder_id"),
    nullable_text_map("extra_info"),
];
