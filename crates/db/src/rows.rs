//! Rows as they stand in the tables, and how they become the words of `scoria_model`.
//!
//! Each struct names its table and the columns that we read, once: the statements select them and a test compares them with
//! Cinder's own schema.

use scoria_model::{
    AttachStatus, Attachment, Cluster, Metadata, Service, Snapshot, Timestamp, Volume, VolumeType, Worker,
};
use serde_json::{Map, Value};
use time::PrimitiveDateTime;

use crate::{Error, Result};

/// Declares a row struct with its `TABLE` and `COLUMNS`.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident of $table:literal { $($field:ident $(as $column:literal)?: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, sqlx::FromRow)]
        pub(crate) struct $name {
            $($(#[sqlx(rename = $column)])? pub(crate) $field: $type,)*
        }

        impl $name {
            pub(crate) const TABLE: &'static str = $table;
            pub(crate) const COLUMNS: &'static [&'static str] = &[$(row!(@column $field $($column)?)),*];

            /// `SELECT` of these columns of all rows.
            pub(crate) fn select() -> sea_query::SelectStatement {
                let mut query = sea_query::Query::select();
                query.columns(Self::COLUMNS.iter().copied()).from(Self::TABLE);
                query
            }
        }
    };
    (@column $field:ident) => { stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}

type Text = Option<String>;
type Date = Option<PrimitiveDateTime>;

fn at(date: Date) -> Option<Timestamp> {
    date.map(Timestamp::from)
}

/// An id out of a column: what does not look like one must not get into a lock's or a file's name.
pub(crate) fn id<T: TryFrom<String>>(table: &'static str, row: &str, value: String) -> Result<T>
where
    T::Error: std::fmt::Display,
{
    T::try_from(value).map_err(|error| Error::corrupt(table, row, error))
}

fn opt_id<T: TryFrom<String>>(table: &'static str, row: &str, value: Text) -> Result<Option<T>>
where
    T::Error: std::fmt::Display,
{
    value.filter(|value| !value.is_empty()).map(|value| id(table, row, value)).transpose()
}

fn gib(table: &'static str, row: &str, size: Option<i32>) -> Result<u64> {
    u64::try_from(size.unwrap_or(0)).map_err(|_| Error::corrupt(table, row, "its size is negative"))
}

row! {
    /// `volumes`.
    VolumeRow of "volumes" {
        id: String,
        name_id as "_name_id": Text,
        use_quota: bool,
        user_id: Text,
        project_id: Text,
        snapshot_id: Text,
        source_volid: Text,
        cluster_name: Text,
        host: Text,
        size: Option<i32>,
        availability_zone: Text,
        status: Text,
        previous_status: Text,
        attach_status: Text,
        migration_status: Text,
        scheduled_at: Date,
        launched_at: Date,
        terminated_at: Date,
        display_name: Text,
        display_description: Text,
        provider_id: Text,
        provider_location: Text,
        provider_auth: Text,
        provider_geometry: Text,
        volume_type_id: Text,
        encryption_key_id: Text,
        consistencygroup_id: Text,
        group_id: Text,
        bootable: Option<bool>,
        multiattach: Option<bool>,
        replication_status: Text,
        replication_extended_status: Text,
        replication_driver_data: Text,
        service_uuid: Text,
        shared_targets: Option<bool>,
        created_at: Date,
        updated_at: Date,
        deleted_at: Date,
        deleted: Option<bool>,
    }
}

impl VolumeRow {
    /// Without metadata, attachments and type: those are other tables'.
    pub(crate) fn into_volume(self) -> Result<Volume> {
        let table = Self::TABLE;
        let row = self.id.clone();
        Ok(Volume {
            id: id(table, &row, self.id)?,
            name_id: self.name_id,
            use_quota: self.use_quota,
            user_id: self.user_id,
            project_id: self.project_id,
            snapshot_id: opt_id(table, &row, self.snapshot_id)?,
            source_volid: opt_id(table, &row, self.source_volid)?,
            cluster_name: self.cluster_name,
            host: self.host,
            size: gib(table, &row, self.size)?,
            availability_zone: self.availability_zone,
            status: self.status.unwrap_or_default().into(),
            previous_status: self.previous_status.map(Into::into),
            attach_status: self.attach_status.map_or(AttachStatus::Detached, Into::into),
            migration_status: self.migration_status,
            scheduled_at: at(self.scheduled_at),
            launched_at: at(self.launched_at),
            terminated_at: at(self.terminated_at),
            display_name: self.display_name,
            display_description: self.display_description,
            provider_id: self.provider_id,
            provider_location: self.provider_location,
            provider_auth: self.provider_auth,
            provider_geometry: self.provider_geometry,
            volume_type_id: opt_id(table, &row, self.volume_type_id)?,
            encryption_key_id: self.encryption_key_id,
            consistencygroup_id: self.consistencygroup_id,
            group_id: opt_id(table, &row, self.group_id)?,
            bootable: self.bootable.unwrap_or(false),
            multiattach: self.multiattach.unwrap_or(false),
            replication_status: self.replication_status,
            replication_extended_status: self.replication_extended_status,
            replication_driver_data: self.replication_driver_data,
            service_uuid: self.service_uuid,
            shared_targets: self.shared_targets,
            created_at: at(self.created_at),
            updated_at: at(self.updated_at),
            deleted_at: at(self.deleted_at),
            deleted: self.deleted.unwrap_or(false),
            metadata: Metadata::new(),
            admin_metadata: Metadata::new(),
            glance_metadata: Metadata::new(),
            attachments: Vec::new(),
            volume_type: None,
        })
    }
}

row! {
    /// `snapshots`.
    SnapshotRow of "snapshots" {
        id: String,
        volume_id: String,
        use_quota: bool,
        user_id: Text,
        project_id: Text,
        cgsnapshot_id: Text,
        group_snapshot_id: Text,
        status: Text,
        progress: Text,
        volume_size: Option<i32>,
        display_name: Text,
        display_description: Text,
        encryption_key_id: Text,
        volume_type_id: Text,
        provider_location: Text,
        provider_id: Text,
        provider_auth: Text,
        created_at: Date,
        updated_at: Date,
        deleted_at: Date,
        deleted: Option<bool>,
    }
}

impl SnapshotRow {
    /// Without metadata.
    pub(crate) fn into_snapshot(self) -> Result<Snapshot> {
        let table = Self::TABLE;
        let row = self.id.clone();
        Ok(Snapshot {
            id: id(table, &row, self.id)?,
            volume_id: id(table, &row, self.volume_id)?,
            use_quota: self.use_quota,
            user_id: self.user_id,
            project_id: self.project_id,
            cgsnapshot_id: self.cgsnapshot_id,
            group_snapshot_id: self.group_snapshot_id,
            status: self.status.unwrap_or_default().into(),
            progress: self.progress,
            volume_size: gib(table, &row, self.volume_size)?,
            display_name: self.display_name,
            display_description: self.display_description,
            encryption_key_id: self.encryption_key_id,
            volume_type_id: opt_id(table, &row, self.volume_type_id)?,
            provider_location: self.provider_location,
            provider_id: self.provider_id,
            provider_auth: self.provider_auth,
            created_at: at(self.created_at),
            updated_at: at(self.updated_at),
            deleted_at: at(self.deleted_at),
            deleted: self.deleted.unwrap_or(false),
            metadata: Metadata::new(),
        })
    }
}

row! {
    /// `volume_attachment`.
    AttachmentRow of "volume_attachment" {
        id: String,
        volume_id: String,
        instance_uuid: Text,
        attached_host: Text,
        mountpoint: Text,
        attach_time: Date,
        detach_time: Date,
        attach_status: Text,
        attach_mode: Text,
        connection_info: Text,
        connector: Text,
        created_at: Date,
        updated_at: Date,
        deleted: Option<bool>,
    }
}

impl AttachmentRow {
    pub(crate) fn into_attachment(self) -> Result<Attachment> {
        let table = Self::TABLE;
        let row = self.id.clone();
        Ok(Attachment {
            id: id(table, &row, self.id)?,
            volume_id: id(table, &row, self.volume_id)?,
            instance_uuid: self.instance_uuid,
            attached_host: self.attached_host,
            mountpoint: self.mountpoint,
            attach_time: at(self.attach_time),
            detach_time: at(self.detach_time),
            attach_status: self.attach_status.unwrap_or_default().into(),
            attach_mode: self.attach_mode,
            connection_info: json(&row, "connection_info", self.connection_info)?,
            connector: json(&row, "connector", self.connector)?,
            created_at: at(self.created_at),
            updated_at: at(self.updated_at),
            deleted: self.deleted.unwrap_or(false),
        })
    }
}

/// A JSON object in a text column; JSON's `null` and the empty text count as absent.
fn json(row: &str, column: &str, text: Text) -> Result<Option<Map<String, Value>>> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => serde_json::from_str(&text)
            .map_err(|error| Error::corrupt(AttachmentRow::TABLE, row, format_args!("{column} is not JSON: {error}"))),
    }
}

row! {
    /// `volume_types`, with names of their own for the join with `volumes`.
    TypeRow of "volume_types" {
        id: String,
        name: Text,
        description: Text,
        is_public: Option<bool>,
        qos_specs_id: Text,
        created_at: Date,
        updated_at: Date,
    }
}

impl TypeRow {
    /// Without extra specs.
    pub(crate) fn into_type(self) -> Result<VolumeType> {
        let row = self.id.clone();
        Ok(VolumeType {
            id: id(Self::TABLE, &row, self.id)?,
            name: self.name.unwrap_or_default(),
            description: self.description,
            is_public: self.is_public.unwrap_or(true),
            extra_specs: Metadata::new(),
            qos_specs_id: self.qos_specs_id,
            created_at: at(self.created_at),
            updated_at: at(self.updated_at),
        })
    }
}

row! {
    /// `workers`.
    WorkerRow of "workers" {
        id: i32,
        resource_type: String,
        resource_id: String,
        status: String,
        service_id: Option<i32>,
        race_preventer: i32,
        created_at: Date,
        updated_at: Date,
    }
}

impl From<WorkerRow> for Worker {
    fn from(row: WorkerRow) -> Self {
        Self {
            id: row.id.into(),
            resource_type: row.resource_type,
            resource_id: row.resource_id,
            status: row.status,
            service_id: row.service_id.map(Into::into),
            race_preventer: row.race_preventer.into(),
            created_at: at(row.created_at),
            updated_at: at(row.updated_at),
        }
    }
}

row! {
    /// `services`.
    ServiceRow of "services" {
        id: i32,
        uuid: Text,
        host: Text,
        binary: Text,
        topic: Text,
        cluster_name: Text,
        report_count: i32,
        disabled: Option<bool>,
        disabled_reason: Text,
        availability_zone: Text,
        rpc_current_version: Text,
        object_current_version: Text,
        replication_status: Text,
        frozen: Option<bool>,
        active_backend_id: Text,
        created_at: Date,
        updated_at: Date,
    }
}

impl From<ServiceRow> for Service {
    fn from(row: ServiceRow) -> Self {
        Self {
            id: row.id.into(),
            uuid: row.uuid,
            host: row.host.unwrap_or_default(),
            binary: row.binary.unwrap_or_default(),
            topic: row.topic,
            cluster_name: row.cluster_name.filter(|name| !name.is_empty()),
            report_count: row.report_count.into(),
            disabled: row.disabled.unwrap_or(false),
            disabled_reason: row.disabled_reason,
            availability_zone: row.availability_zone,
            rpc_current_version: row.rpc_current_version,
            object_current_version: row.object_current_version,
            replication_status: row.replication_status,
            frozen: row.frozen.unwrap_or(false),
            active_backend_id: row.active_backend_id,
            created_at: at(row.created_at),
            updated_at: at(row.updated_at),
        }
    }
}

row! {
    /// `clusters`.
    ClusterRow of "clusters" {
        id: i32,
        name: String,
        binary: String,
        disabled: Option<bool>,
        disabled_reason: Text,
        replication_status: Text,
        active_backend_id: Text,
        frozen: bool,
    }
}

impl From<ClusterRow> for Cluster {
    fn from(row: ClusterRow) -> Self {
        Self {
            id: row.id.into(),
            name: row.name,
            binary: row.binary,
            disabled: row.disabled.unwrap_or(false),
            disabled_reason: row.disabled_reason,
            replication_status: row.replication_status,
            active_backend_id: row.active_backend_id,
            frozen: row.frozen,
        }
    }
}

row! {
    /// `quota_usages`.
    UsageRow of "quota_usages" {
        id: i32,
        resource: Text,
        in_use: i32,
        reserved: i32,
    }
}

row! {
    /// `reservations`.
    ReservationRow of "reservations" {
        id: i32,
        uuid: String,
        usage_id: Option<i32>,
        delta: i32,
    }
}

row! {
    /// `quality_of_service_specs`.
    QosRow of "quality_of_service_specs" {
        id: String,
        specs_id: Text,
        key: Text,
        value: Text,
    }
}
