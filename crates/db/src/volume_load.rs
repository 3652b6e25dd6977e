//! One volume with all that belongs to it, in one round trip.

use scoria_model::{Volume, VolumeId, Worker};
use sea_query::{Expr, ExprTrait, JoinType, Query, SelectStatement, UnionType};
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

/// The row, its type, its worker, one of its live attachments and one fact about it: what there is several of makes several
/// rows, as in Cinder's own joined loads.
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
    fact_kind: String,
    fact_name: Option<String>,
    fact_value: Option<String>,
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
    for (name, alias) in [("kind", "fact_kind"), ("name", "fact_name"), ("value", "fact_value")] {
        query.expr_as(column("fact", name), alias);
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
        // There are always facts: whether it has snapshots and transfers.
        .join_subquery(JoinType::InnerJoin, select_facts(id.as_str()), "fact", Expr::cust("1 = 1"))
        .and_where(column("volumes", "id").eq(val(id)))
        .and_where(column("volumes", "deleted").eq(val(&false)))
        .order_by(("volume_attachment", "id"), sea_query::Order::Asc);
    query
}

/// A constant for the `kind` column; ours, so it may stand in the text.
fn kind(kind: &str) -> Expr {
    Expr::cust(format!("'{kind}'"))
}

/// `SELECT 'kind', key, value FROM table WHERE owner AND NOT deleted`.
fn select_pairs(name: &str, table: &'static str, owner: Expr) -> SelectStatement {
    let mut query = Query::select();
    query
        .expr_as(kind(name), "kind")
        .expr_as(Expr::col("key"), "name")
        .expr_as(Expr::col("value"), "value")
        .from(table)
        .and_where(owner)
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

/// Everything there is any number of, one per row.
fn select_facts(id: &str) -> SelectStatement {
    let of_volume = || Expr::col("volume_id").eq(id);
    let mut its_type = Query::select();
    its_type.column("volume_type_id").from("volumes").and_where(Expr::col("id").eq(id));
    let mut query = select_pairs(VOLUME_METADATA, "volume_metadata", of_volume());
    let more = [
        select_pairs(ADMIN_METADATA, "volume_admin_metadata", of_volume()),
        select_pairs(GLANCE_METADATA, "volume_glance_metadata", of_volume()),
        select_existence(SNAPSHOTS, "snapshots", id),
        select_existence(TRANSFERS, "transfers", id),
        select_pairs(EXTRA_SPECS, "volume_type_extra_specs", Expr::col("volume_type_id").in_subquery(its_type)),
    ];
    query.unions(more.into_iter().map(|select| (UnionType::All, select)));
    query
}

impl Loaded {
    /// Puts one fact in its place; hearing it again changes nothing.
    fn note(&mut self, kind: &str, name: String, value: Option<String>) -> Result<()> {
        let volume = &mut self.volume;
        let pairs = match kind {
            SNAPSHOTS => {
                self.has_snapshots = value.is_some();
                return Ok(());
            }
            TRANSFERS => {
                self.has_transfers = value.is_some();
                return Ok(());
            }
            VOLUME_METADATA => &mut volume.metadata,
            ADMIN_METADATA => &mut volume.admin_metadata,
            GLANCE_METADATA => &mut volume.glance_metadata,
            EXTRA_SPECS => match &mut volume.volume_type {
                Some(volume_type) => &mut volume_type.extra_specs,
                None => return Ok(()),
            },
            other => return Err(Error::corrupt("volumes", &volume.id, format_args!("unknown fact '{other}'"))),
        };
        pairs.insert(name, value.unwrap_or_default());
        Ok(())
    }
}

impl Database {
    /// One live volume with all that belongs to it; `None` if it is gone. One round trip.
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
        let volume_type = first.volume_type.into_row().map(TypeRow::into_type).transpose()?;
        let mut loaded = Loaded {
            volume: Volume { volume_type, ..first.volume.into_volume()? },
            worker: first.worker.into_row().map(Worker::from),
            has_snapshots: false,
            has_transfers: false,
        };
        let facts = |row: JoinedRow| (row.attachment, (row.fact_kind, row.fact_name, row.fact_value));
        let first = (first.attachment, (first.fact_kind, first.fact_name, first.fact_value));
        for (attachment, (kind, name, value)) in std::iter::once(first).chain(rows.map(facts)) {
            // Rows are in the order of attachments: each comes with all facts.
            if let Some(row) = attachment.into_row()
                && loaded.volume.attachments.last().is_none_or(|last| last.id.as_str() != row.id)
            {
                loaded.volume.attachments.push(row.into_attachment()?);
            }
            loaded.note(&kind, name.unwrap_or_default(), value)?;
        }
        Ok(Some(loaded))
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
