-- The part of Cinder's schema (revision 9c74c1c6971f) that Scoria uses, for a database without a cinder-manage.
-- Names, types and nullability are Cinder's, so that tools which read its tables read these. Columns that point at
-- tables outside this part (groups, consistency groups) are plain columns here.

CREATE TABLE `services` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `host` VARCHAR(255),
    `binary` VARCHAR(255),
    `topic` VARCHAR(255),
    `report_count` INTEGER NOT NULL,
    `disabled` TINYINT(1),
    `availability_zone` VARCHAR(255),
    `disabled_reason` VARCHAR(255),
    `modified_at` DATETIME,
    `rpc_current_version` VARCHAR(36),
    `object_current_version` VARCHAR(36),
    `replication_status` VARCHAR(36),
    `frozen` TINYINT(1),
    `active_backend_id` VARCHAR(255),
    `cluster_name` VARCHAR(255),
    `uuid` VARCHAR(36),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE UNIQUE INDEX `services_uuid_idx` ON `services` (`uuid`);

CREATE TABLE `clusters` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `name` VARCHAR(255) NOT NULL,
    `binary` VARCHAR(255) NOT NULL,
    `disabled` TINYINT(1),
    `disabled_reason` VARCHAR(255),
    `race_preventer` INTEGER NOT NULL,
    `replication_status` VARCHAR(36),
    `active_backend_id` VARCHAR(255),
    `frozen` TINYINT(1) NOT NULL DEFAULT 0,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    UNIQUE (`name`, `binary`, `race_preventer`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE `quality_of_service_specs` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `specs_id` VARCHAR(36),
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`specs_id`) REFERENCES `quality_of_service_specs` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_quality_of_service_specs_specs_id` ON `quality_of_service_specs` (`specs_id`);

CREATE TABLE `volume_types` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `name` VARCHAR(255),
    `qos_specs_id` VARCHAR(36),
    `is_public` TINYINT(1),
    `description` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`qos_specs_id`) REFERENCES `quality_of_service_specs` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_types_qos_specs_id` ON `volume_types` (`qos_specs_id`);

CREATE TABLE `volume_type_extra_specs` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `volume_type_id` VARCHAR(36) NOT NULL,
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_type_id`) REFERENCES `volume_types` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_type_extra_specs_volume_type_id` ON `volume_type_extra_specs` (`volume_type_id`);

CREATE TABLE `volumes` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `ec2_id` VARCHAR(255),
    `user_id` VARCHAR(255),
    `project_id` VARCHAR(255),
    `host` VARCHAR(255),
    `size` INTEGER,
    `availability_zone` VARCHAR(255),
    `status` VARCHAR(255),
    `attach_status` VARCHAR(255),
    `scheduled_at` DATETIME,
    `launched_at` DATETIME,
    `terminated_at` DATETIME,
    `display_name` VARCHAR(255),
    `display_description` VARCHAR(255),
    `provider_location` VARCHAR(256),
    `provider_auth` VARCHAR(256),
    `snapshot_id` VARCHAR(36),
    `volume_type_id` VARCHAR(36) NOT NULL,
    `source_volid` VARCHAR(36),
    `bootable` TINYINT(1),
    `provider_geometry` VARCHAR(255),
    `_name_id` VARCHAR(36),
    `encryption_key_id` VARCHAR(36),
    `migration_status` VARCHAR(255),
    `replication_status` VARCHAR(255),
    `replication_extended_status` VARCHAR(255),
    `replication_driver_data` VARCHAR(255),
    `consistencygroup_id` VARCHAR(36),
    `provider_id` VARCHAR(255),
    `multiattach` TINYINT(1),
    `previous_status` VARCHAR(255),
    `cluster_name` VARCHAR(255),
    `group_id` VARCHAR(36),
    `service_uuid` VARCHAR(36),
    `shared_targets` TINYINT(1),
    `use_quota` TINYINT(1) NOT NULL DEFAULT 1,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`service_uuid`) REFERENCES `services` (`uuid`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volumes_consistencygroup_id` ON `volumes` (`consistencygroup_id`);
CREATE INDEX `ix_volumes_group_id` ON `volumes` (`group_id`);
CREATE INDEX `volumes_deleted_host_idx` ON `volumes` (`deleted`, `host`);
CREATE INDEX `volumes_deleted_project_id_idx` ON `volumes` (`deleted`, `project_id`);
CREATE INDEX `volumes_service_uuid_idx` ON `volumes` (`service_uuid`, `deleted`);

CREATE TABLE `volume_metadata` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `volume_id` VARCHAR(36) NOT NULL,
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_metadata_volume_id` ON `volume_metadata` (`volume_id`);

CREATE TABLE `volume_admin_metadata` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `volume_id` VARCHAR(36) NOT NULL,
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_admin_metadata_volume_id` ON `volume_admin_metadata` (`volume_id`);

CREATE TABLE `snapshots` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `volume_id` VARCHAR(36) NOT NULL,
    `user_id` VARCHAR(255),
    `project_id` VARCHAR(255),
    `status` VARCHAR(255),
    `progress` VARCHAR(255),
    `volume_size` INTEGER,
    `scheduled_at` DATETIME,
    `display_name` VARCHAR(255),
    `display_description` VARCHAR(255),
    `provider_location` VARCHAR(255),
    `encryption_key_id` VARCHAR(36),
    `volume_type_id` VARCHAR(36) NOT NULL,
    `cgsnapshot_id` VARCHAR(36),
    `provider_id` VARCHAR(255),
    `provider_auth` VARCHAR(255),
    `group_snapshot_id` VARCHAR(36),
    `use_quota` TINYINT(1) NOT NULL DEFAULT 1,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_snapshots_cgsnapshot_id` ON `snapshots` (`cgsnapshot_id`);
CREATE INDEX `ix_snapshots_group_snapshot_id` ON `snapshots` (`group_snapshot_id`);
CREATE INDEX `ix_snapshots_volume_id` ON `snapshots` (`volume_id`);
CREATE INDEX `snapshots_deleted_project_id_idx` ON `snapshots` (`deleted`, `project_id`);

CREATE TABLE `snapshot_metadata` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `snapshot_id` VARCHAR(36) NOT NULL,
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`snapshot_id`) REFERENCES `snapshots` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_snapshot_metadata_snapshot_id` ON `snapshot_metadata` (`snapshot_id`);

CREATE TABLE `volume_glance_metadata` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `volume_id` VARCHAR(36),
    `snapshot_id` VARCHAR(36),
    `key` VARCHAR(255),
    `value` TEXT,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`snapshot_id`) REFERENCES `snapshots` (`id`),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_glance_metadata_snapshot_id` ON `volume_glance_metadata` (`snapshot_id`);
CREATE INDEX `ix_volume_glance_metadata_volume_id` ON `volume_glance_metadata` (`volume_id`);

CREATE TABLE `volume_attachment` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `volume_id` VARCHAR(36) NOT NULL,
    `attached_host` VARCHAR(255),
    `instance_uuid` VARCHAR(36),
    `mountpoint` VARCHAR(255),
    `attach_time` DATETIME,
    `detach_time` DATETIME,
    `attach_mode` VARCHAR(36),
    `attach_status` VARCHAR(255),
    `connection_info` TEXT,
    `connector` TEXT,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_volume_attachment_volume_id` ON `volume_attachment` (`volume_id`);

CREATE TABLE `attachment_specs` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `attachment_id` VARCHAR(36) NOT NULL,
    `key` VARCHAR(255),
    `value` VARCHAR(255),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`attachment_id`) REFERENCES `volume_attachment` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_attachment_specs_attachment_id` ON `attachment_specs` (`attachment_id`);

CREATE TABLE `transfers` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `volume_id` VARCHAR(36) NOT NULL,
    `display_name` VARCHAR(255),
    `salt` VARCHAR(255),
    `crypt_hash` VARCHAR(255),
    `expires_at` DATETIME,
    `no_snapshots` TINYINT(1),
    `source_project_id` VARCHAR(255),
    `destination_project_id` VARCHAR(255),
    `accepted` TINYINT(1),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`volume_id`) REFERENCES `volumes` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_transfers_volume_id` ON `transfers` (`volume_id`);

CREATE TABLE `workers` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `resource_type` VARCHAR(40) NOT NULL,
    `resource_id` VARCHAR(36) NOT NULL,
    `status` VARCHAR(255) NOT NULL,
    `service_id` INTEGER,
    `race_preventer` INTEGER NOT NULL DEFAULT 0,
    `created_at` DATETIME,
    `updated_at` DATETIME(6),
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    UNIQUE (`resource_type`, `resource_id`),
    FOREIGN KEY (`service_id`) REFERENCES `services` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_workers_service_id` ON `workers` (`service_id`);

CREATE TABLE `quotas` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `project_id` VARCHAR(255),
    `resource` VARCHAR(300) NOT NULL,
    `hard_limit` INTEGER,
    `allocated` INTEGER,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE `quota_classes` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `class_name` VARCHAR(255),
    `resource` VARCHAR(300),
    `hard_limit` INTEGER,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_quota_classes_class_name` ON `quota_classes` (`class_name`);

CREATE TABLE `quota_usages` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `project_id` VARCHAR(255),
    `resource` VARCHAR(300),
    `in_use` INTEGER NOT NULL,
    `reserved` INTEGER NOT NULL,
    `until_refresh` INTEGER,
    `race_preventer` TINYINT(1),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    UNIQUE (`project_id`, `resource`, `race_preventer`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_quota_usages_project_id` ON `quota_usages` (`project_id`);
CREATE INDEX `quota_usage_project_resource_idx` ON `quota_usages` (`project_id`, `resource`);

CREATE TABLE `reservations` (
    `id` INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `uuid` VARCHAR(36) NOT NULL,
    `usage_id` INTEGER,
    `project_id` VARCHAR(255),
    `resource` VARCHAR(300),
    `delta` INTEGER NOT NULL,
    `expire` DATETIME,
    `allocated_id` INTEGER,
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1),
    FOREIGN KEY (`usage_id`) REFERENCES `quota_usages` (`id`),
    FOREIGN KEY (`allocated_id`) REFERENCES `quotas` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_reservations_allocated_id` ON `reservations` (`allocated_id`);
CREATE INDEX `ix_reservations_project_id` ON `reservations` (`project_id`);
CREATE INDEX `ix_reservations_usage_id` ON `reservations` (`usage_id`);
CREATE INDEX `reservations_deleted_expire_idx` ON `reservations` (`deleted`, `expire`);
CREATE INDEX `reservations_deleted_uuid_idx` ON `reservations` (`deleted`, `uuid`);

CREATE TABLE `messages` (
    `id` VARCHAR(36) NOT NULL PRIMARY KEY,
    `project_id` VARCHAR(255) NOT NULL,
    `request_id` VARCHAR(255),
    `resource_type` VARCHAR(36),
    `resource_uuid` VARCHAR(255),
    `event_id` VARCHAR(255) NOT NULL,
    `message_level` VARCHAR(255) NOT NULL,
    `expires_at` DATETIME,
    `detail_id` VARCHAR(10),
    `action_id` VARCHAR(10),
    `created_at` DATETIME,
    `updated_at` DATETIME,
    `deleted_at` DATETIME,
    `deleted` TINYINT(1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE INDEX `ix_messages_expires_at` ON `messages` (`expires_at`);

-- The rows that a fresh database starts with: the type of volumes without a type, and the default quotas.
INSERT INTO `volume_types` (`id`, `name`, `description`, `is_public`, `deleted`, `created_at`, `updated_at`)
VALUES (UUID(),
    '__DEFAULT__', 'Default Volume Type', 1, 0, UTC_TIMESTAMP(), UTC_TIMESTAMP());
INSERT INTO `quota_classes` (`class_name`, `resource`, `hard_limit`, `deleted`, `created_at`) VALUES
    ('default', 'volumes', 10, 0, UTC_TIMESTAMP()),
    ('default', 'snapshots', 10, 0, UTC_TIMESTAMP()),
    ('default', 'gigabytes', 1000, 0, UTC_TIMESTAMP()),
    ('default', 'per_volume_gigabytes', -1, 0, UTC_TIMESTAMP()),
    ('default', 'groups', 10, 0, UTC_TIMESTAMP()),
    ('default', 'backups', 10, 0, UTC_TIMESTAMP()),
    ('default', 'backup_gigabytes', 1000, 0, UTC_TIMESTAMP());
