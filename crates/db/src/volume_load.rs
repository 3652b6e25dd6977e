//! One volume with all that belongs to it, in two round trips.

use scoria_model::{Volume, VolumeId, Worker};
use sea_query::{Expr, ExprTrait, Query, SelectStatement, UnionType};
use time::PrimitiveDateTime;

use crate::rows::{AttachmentRow, TypeRow, VolumeRow, WorkerRow};
use crate::statement::{of, val};
use crate::{Database, Error, Result};

/// A volume and what an operation on it wants to know first.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The row with all three kinds of metadata, its live attachments, and its type with extra specs.
    pub volume: Volume,
    /// Its `workers` row.
    pub worker: Option<Worker>,
    /// Whether it has live snapshots.
    pub has_snapshots: bool,
    /// Whether a transfer is under way.
    pub has_transfers: bool,
}

/// The first round trip: the row, its type, its worker, and one row per live attachment (or one without).
#[derive(sqlx::FromRow)]
struct JoinedRow {
    #[sqlx(flatten)]
    volume: VolumeRow,
    #[sqlx(flatten)]
    volume_type: JoinedType,
    #[sqlx(flatten)]
    worker: JoinedWorker,
    #[sqlx(flatten)]
    attachment: JoinedAttachment,
}

/// Declares what a left join yields: the columns of another row struct behind a prefix, all of which may be null.
macro_rules! joined {
    ($name:ident of $row:ident { $($field:ident as $column:literal: $type:ty $(= $required:tt)?,)* }) => {
        #[derive(sqlx::FromRow)]
        pub(crate) struct $name {
            $(#[sqlx(rename = $column)] $field: Option<$type>,)*
        }

        impl $name {
            pub(crate) const ALIASES: &'static [&'static str] = &[$($column),*];

            /// The joined row, if there was one.
            pub(crate) fn into_row(self) -> Option<$row> {
                self.id.as_ref()?;
                Some($row { $($field: joined!(@value self.$field $(, $required)?),)* })
            }
        }
    };
    (@value $value:expr) => { $value };
    (@value $value:expr, required) => { $value? };
}

joined!(JoinedType of TypeRow {
    id as "type_id": String = required,
    name as "type_name": String,
    description as "type_description": String,
    is_public as "type_is_public": bool,
    qos_specs_id as "type_qos_specs_id": String,
    created_at as "type_created_at": PrimitiveDateTime,
    updated_at as "type_updated_at": PrimitiveDateTime,
});

joined!(JoinedWorker of WorkerRow {
    id as "worker_id": i32 = required,
    resource_type as "worker_resource_type": String = required,
    resource_id as "worker_resource_id": String = required,
    status as "worker_status": String = required,
    service_id as "worker_service_id": i32,
    race_preventer as "worker_race_preventer": i32 = required,
    created_at as "worker_created_at": PrimitiveDateTime,
    updated_at as "worker_updated_at": PrimitiveDateTime,
});

joined!(JoinedAttachment of AttachmentRow {
    id as "attachment_id": String = required,
    volume_id as "attachment_volume_id": String = required,
    instance_uuid as "attachment_instance_uuid": String,
    attached_host as "attachment_attached_host": String,
    mountpoint as "attachment_mountpoint": String,
    attach_time as "attachment_attach_time": PrimitiveDateTime,
    detach_time as "attachment_detach_time": PrimitiveDateTime,
    attach_status as "attachment_attach_status": String,
    attach_mode as "attachment_attach_mode": String,
    connection_info as "attachment_connection_info": String,
    connector as "attachment_connector": String,
    created_at as "attachment_created_at": PrimitiveDateTime,
    updated_at as "attachment_updated_at": PrimitiveDateTime,
    deleted as "attachment_deleted": bool,
});

/// The second round trip: one kind of fact per row.
#[derive(sqlx::FromRow)]
struct FactRow {
    kind: String,
    name: Option<String>,
    value: Option<String>,
}

const VOLUME_METADATA: &str = "metadata";
const ADMIN_METADATA: &str = "admin";
const GLANCE_METADATA: &str = "glance";
const EXTRA_SPECS: &str = "spec";
const SNAPSHOTS: &str = "snapshot";
const TRANSFERS: &str = "transfer";

fn select_joined(id: &VolumeId) -> SelectStatement {
    let column = |table: &'static str, name: &'static str| Expr::col((table, name));
    let id_is = |table: &'static str, name: &'static str| column(table, name).equals(("volumes", "id"));
    let mut query = Query::select();
    query.columns(of("volumes", VolumeRow::COLUMNS));
    for (table, columns, aliases) in [
        ("volume_types", TypeRow::COLUMNS, JoinedType::ALIASES),
        ("workers", WorkerRow::COLUMNS, JoinedWorker::ALIASES),
        ("volume_attachment", AttachmentRow::COLUMNS, JoinedAttachment::ALIASES),
    ] {
        for (name, alias) in columns.iter().zip(aliases) {
            query.expr_as(column(table, name), *alias);
        }
    }
    query
        .from("volumes")
        // A type's row is joined even when the type has been deleted: its volumes live on.
        .left_join("volume_types", column("volume_types", "id").equals(("volumes", "volume_type_id")))
        .left_join("workers", id_is("workers", "resource_id").and(column("workers", "resource_type").eq("Volume")))
        .left_join(
            "volume_attachment",
            id_is("volume_attachment", "volume_id").and(column("volume_attachment", "deleted").eq(val(&false))),
        )
        .and_where(column("volumes", "id").eq(val(id)))
        .and_where(column("volumes", "deleted").eq(val(&false)))
        .order_by(("volume_attachment", "id"), sea_query::Order::Asc);
    query
}

/// A constant for the `kind` column; ours, so it may stand in the text.
fn kind(kind: &str) -> Expr {
    Expr::cust(format!("'{kind}'"))
}

/// `SELECT 'kind', key, value FROM table WHERE owner = id AND NOT deleted`.
fn select_pairs(name: &str, table: &'static str, owner: &'static str, id: &str) -> SelectStatement {
    let mut query = Query::select();
    query
        .expr_as(kind(name), "kind")
        .expr_as(Expr::col("key"), "name")
        .expr_as(Expr::col("value"), "value")
        .from(table)
        .and_where(Expr::col(owner).eq(id))
        .and_where(Expr::col("deleted").eq(val(&false)));
    query
}

/// One row whose value is null when the table has no live row of this volume.
fn select_existence(name: &str, table: &'static str, id: &str) -> SelectStatement {
    let mut query = Query::select();
    query
        .expr_as(kind(name), "kind")
        .expr_as(Expr::cust("NULL"), "name")
        .expr_as(Expr::col("id").min(), "value")
        .from(table)
        .and_where(Expr::col("volume_id").eq(id))
        .and_where(Expr::col("deleted").eq(val(&false)));
    query
}

fn select_facts(volume: &VolumeRow) -> SelectStatement {
    let mut query = select_pairs(VOLUME_METADATA, "volume_metadata", "volume_id", &volume.id);
    let mut more = vec![
        select_pairs(ADMIN_METADATA, "volume_admin_metadata", "volume_id", &volume.id),
        select_pairs(GLANCE_METADATA, "volume_glance_metadata", "volume_id", &volume.id),
        select_existence(SNAPSHOTS, "snapshots", &volume.id),
        select_existence(TRANSFERS, "transfers", &volume.id),
    ];
    if let Some(volume_type) = &volume.volume_type_id {
        more.push(select_pairs(EXTRA_SPECS, "volume_type_extra_specs", "volume_type_id", volume_type));
    }
    query.unions(more.into_iter().map(|select| (UnionType::All, select)));
    query
}

impl Database {
    /// One live volume with all that belongs to it; `None` if it is gone. Two round trips.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn volume_load(&self, id: &VolumeId) -> Result<Option<Loaded>> {
        self.retry("volume_load", |_| self.load_once(id)).await
    }

    async fn load_once(&self, id: &VolumeId) -> Result<Option<Loaded>> {
        let mut rows = self.fetch_all::<JoinedRow>(&select_joined(id)).await?.into_iter();
        let Some(first) = rows.next() else {
            return Ok(None);
        };
        let facts = self.fetch_all::<FactRow>(&select_facts(&first.volume)).await?;
        let volume_type = first.volume_type.into_row().map(TypeRow::into_type).transpose()?;
        let mut volume = Volume { volume_type, ..first.volume.into_volume()? };
        for attachment in std::iter::once(first.attachment).chain(rows.map(|row| row.attachment)) {
            if let Some(row) = attachment.into_row() {
                volume.attachments.push(row.into_attachment()?);
            }
        }
        let (mut has_snapshots, mut has_transfers) = (false, false);
        for fact in facts {
            let (name, value) = (fact.name.unwrap_or_default(), fact.value);
            match fact.kind.as_str() {
                SNAPSHOTS => has_snapshots = value.is_some(),
                TRANSFERS => has_transfers = value.is_some(),
                VOLUME_METADATA => drop(volume.metadata.insert(name, value.unwrap_or_default())),
                ADMIN_METADATA => drop(volume.admin_metadata.insert(name, value.unwrap_or_default())),
                GLANCE_METADATA => drop(volume.glance_metadata.insert(name, value.unwrap_or_default())),
                EXTRA_SPECS => {
                    if let Some(volume_type) = &mut volume.volume_type {
                        volume_type.extra_specs.insert(name, value.unwrap_or_default());
                    }
                }
                other => return Err(Error::corrupt("volumes", id, format_args!("unknown fact '{other}'"))),
            }
        }
        let worker = first.worker.into_row().map(Worker::from);
        Ok(Some(Loaded { volume, worker, has_snapshots, has_transfers }))
    }

    /// One live volume with its metadata, attachments and type; `None` if it is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn volume_get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        Ok(self.volume_load(id).await?.map(|loaded| loaded.volume))
    }

    /// Whether the volume is there.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_exists(&self, id: &VolumeId) -> Result<bool> {
        let mut query = Query::select();
        query.column("id").from("volumes").and_where(Expr::col("id").eq(val(id)));
        query.and_where(Expr::col("deleted").eq(val(&false)));
        self.retry("volume_exists", |_| async { Ok(self.fetch_optional::<(String,)>(&query).await?.is_some()) }).await
    }
}
