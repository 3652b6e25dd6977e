//! Volumes: making a row, and lists.

use std::collections::HashMap;

use scoria_model::{Metadata, Timestamp, Volume, VolumeId, VolumeStatus};
use sea_query::{Condition, Expr, ExprTrait, Order, Query, SelectStatement};

use crate::metadata::{AdminMetadata, VolumeMetadata};
use crate::rows::{AttachmentRow, VolumeRow, id};
use crate::statement::{Assignments, ColumnValue, at_place, col, insert, is, live, one_of, update, val};
use crate::{Database, Dialect, Error, Result};

/// Which way a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortDirection {
    /// Smallest first.
    Ascending,
    /// Largest first: Cinder's default.
    #[default]
    Descending,
}

/// Which volumes a list shows; the default is all of them, newest first.
#[derive(Debug, Clone, Default)]
pub struct VolumeFilter {
    /// Of this project, unless `all_tenants`.
    pub project_id: Option<String>,
    /// Of every project.
    pub all_tenants: bool,
    /// In one of these states; empty is any.
    pub status: Vec<VolumeStatus>,
    /// With this name.
    pub name: Option<String>,
    /// At or below this place.
    pub host: Option<String>,
    /// Of this cluster, at or below.
    pub cluster_name: Option<String>,
    /// One of these; empty is any.
    pub ids: Vec<VolumeId>,
    /// With all of these pairs.
    pub metadata: Metadata,
    /// With (true) or without a live attachment.
    pub attached: Option<bool>,
    /// Made from this snapshot.
    pub snapshot_id: Option<String>,
    /// Cloned from this volume.
    pub source_volid: Option<String>,
    /// Bootable or not.
    pub bootable: Option<bool>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Behind this volume in the order: the last one of the page before.
    pub marker: Option<VolumeId>,
    /// Without so many at the beginning.
    pub offset: Option<u64>,
    /// Column to sort by; only `created_at`, `updated_at`, `display_name`, `size`, `status`, `host`, `id`. Default `created_at`.
    pub sort_key: Option<String>,
    /// Which way.
    pub sort_dir: SortDirection,
}

const SORT_KEYS: &[&str] = &["created_at", "updated_at", "display_name", "size", "status", "host", "id"];

/// A service's own volumes: by cluster if it has one, else by host.
#[derive(Debug, Clone, Copy)]
pub enum VolumeOwner<'a> {
    /// `cluster@backend`.
    Cluster(&'a str),
    /// `host@backend`.
    Host(&'a str),
}

impl VolumeOwner<'_> {
    pub(crate) fn condition(self, dialect: Dialect) -> Expr {
        match self {
            Self::Cluster(name) => at_place(dialect, "cluster_name", name),
            Self::Host(host) => at_place(dialect, "host", host),
        }
    }
}

/// What a service that starts wants to know of each of its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceVolume {
    /// The volume.
    pub id: VolumeId,
    /// `host@backend#pool`.
    pub host: Option<String>,
    /// Size in GiB.
    pub size: u64,
    /// Status.
    pub status: VolumeStatus,
}

/// The columns of a new row.
fn assignments(volume: &Volume, now: Timestamp) -> Assignments {
    vec![
        ("id", volume.id.value()),
        ("_name_id", volume.name_id.value()),
        ("use_quota", volume.use_quota.value()),
        ("user_id", volume.user_id.value()),
        ("project_id", volume.project_id.value()),
        ("snapshot_id", volume.snapshot_id.value()),
        ("source_volid", volume.source_volid.value()),
        ("cluster_name", volume.cluster_name.value()),
        ("host", volume.host.value()),
        ("size", volume.size.value()),
        ("availability_zone", volume.availability_zone.value()),
        ("status", volume.status.value()),
        ("previous_status", volume.previous_status.value()),
        ("attach_status", volume.attach_status.value()),
        ("migration_status", volume.migration_status.value()),
        ("scheduled_at", volume.scheduled_at.value()),
        ("launched_at", volume.launched_at.value()),
        ("display_name", volume.display_name.value()),
        ("display_description", volume.display_description.value()),
        ("provider_id", volume.provider_id.value()),
        ("provider_location", volume.provider_location.value()),
        ("provider_auth", volume.provider_auth.value()),
        ("provider_geometry", volume.provider_geometry.value()),
        ("volume_type_id", volume.volume_type_id.value()),
        ("encryption_key_id", volume.encryption_key_id.value()),
        ("consistencygroup_id", volume.consistencygroup_id.value()),
        ("group_id", volume.group_id.value()),
        ("bootable", volume.bootable.value()),
        ("multiattach", volume.multiattach.value()),
        ("replication_status", volume.replication_status.value()),
        ("replication_extended_status", volume.replication_extended_status.value()),
        ("replication_driver_data", volume.replication_driver_data.value()),
        ("service_uuid", volume.service_uuid.value()),
        ("shared_targets", volume.shared_targets.value()),
        ("created_at", now.value()),
        ("deleted", false.value()),
    ]
}

impl Database {
    /// Makes a volume's row with its metadata, in one transaction, and reads it back. A volume without a type gets the default
    /// one: the column may not be null.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, `NotFound` without a default type, `Unavailable`.
    pub async fn volume_create(&self, volume: &Volume) -> Result<Volume> {
        let mut volume = volume.clone();
        if volume.volume_type_id.is_none() {
            let default = self.default_volume_type().await?;
            volume.volume_type_id = Some(default.ok_or_else(|| Error::not_found("volume type", "__DEFAULT__"))?.id);
        }
        let now = Timestamp::now();
        self.retry("volume_create", |attempt| {
            let volume = &volume;
            async move {
                let mut transaction = self.begin().await?;
                match transaction.execute(&insert("volumes", assignments(volume, now))).await {
                    Ok(_) => {}
                    // Ours, from a try whose answer got lost.
                    Err(Error::Conflict(_)) if attempt.ambiguous => return Ok(()),
                    Err(error) => return Err(error),
                }
                let owner = volume.id.as_str();
                transaction.insert_metadata::<VolumeMetadata>(owner, &volume.metadata).await?;
                transaction.insert_metadata::<AdminMetadata>(owner, &volume.admin_metadata).await?;
                transaction.insert_glance("volume_id", owner, &volume.glance_metadata).await?;
                transaction.commit().await
            }
        })
        .await?;
        self.volume_get(&volume.id).await?.ok_or_else(|| Error::not_found("volume", &volume.id))
    }

    /// The volumes that match, with their metadata and attachments (types are not joined).
    ///
    /// # Errors
    /// `NotFound` for a marker that is gone, `Config` for an unknown sort key, `Unavailable`.
    pub async fn volumes(&self, filter: &VolumeFilter) -> Result<Vec<Volume>> {
        let key = filter.sort_key.as_deref().unwrap_or("created_at");
        let Some(key) = SORT_KEYS.iter().copied().find(|known| *known == key) else {
            return Err(Error::Config(format!(
                "volumes cannot be sorted by '{key}', only by {}",
                SORT_KEYS.join(", ")
            )));
        };
        let query = select_volumes(filter, key, self.dialect());
        self.retry("volumes", |_| async {
            if let Some(marker) = &filter.marker
                && !self.row_exists("volumes", marker.as_str()).await?
            {
                return Err(Error::not_found("volume", marker));
            }
            let mut volumes = Vec::new();
            for row in self.fetch_all::<VolumeRow>(&query).await? {
                volumes.push(row.into_volume()?);
            }
            self.join_lists(&mut volumes).await?;
            Ok(volumes)
        })
        .await
    }

    /// Fetches metadata and attachments of a list of volumes, one query per table.
    async fn join_lists(&self, volumes: &mut [Volume]) -> Result<()> {
        let ids: Vec<String> = volumes.iter().map(|volume| volume.id.to_string()).collect();
        let mut by_id: HashMap<String, &mut Volume> =
            volumes.iter_mut().map(|volume| (volume.id.to_string(), volume)).collect();
        for (owner, key, value) in self.metadata_of::<VolumeMetadata>(&ids).await? {
            by_id.get_mut(&owner).map(|volume| volume.metadata.insert(key, value));
        }
        for (owner, key, value) in self.metadata_of::<AdminMetadata>(&ids).await? {
            by_id.get_mut(&owner).map(|volume| volume.admin_metadata.insert(key, value));
        }
        for (owner, key, value) in self.glance_metadata_of(&ids).await? {
            by_id.get_mut(&owner).map(|volume| volume.glance_metadata.insert(key, value));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let mut query = AttachmentRow::select();
        query.and_where(one_of("volume_id", &ids)).and_where(live()).order_by("id", Order::Asc);
        for row in self.fetch_all::<AttachmentRow>(&query).await? {
            let attachment = row.into_attachment()?;
            if let Some(volume) = by_id.get_mut(attachment.volume_id.as_str()) {
                volume.attachments.push(attachment);
            }
        }
        Ok(())
    }

    pub(crate) async fn row_exists(&self, table: &'static str, id: &str) -> Result<bool> {
        let mut query = Query::select();
        query.column("id").from(table).and_where(is("id", id)).and_where(live());
        Ok(self.fetch_optional::<(String,)>(&query).await?.is_some())
    }

    /// A service's own volumes, by id; at most `limit` of them behind `after`, so that a big back end is read in batches.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn volumes_of_service(
        &self,
        owner: VolumeOwner<'_>,
        after: Option<&VolumeId>,
        limit: Option<u64>,
    ) -> Result<Vec<ServiceVolume>> {
        let mut query = Query::select();
        query
            .columns(["id", "host", "size", "status"])
            .from("volumes")
            .and_where(live())
            .and_where(owner.condition(self.dialect()))
            .and_where_option(after.map(|after| col("id").gt(val(after))))
            .order_by("id", Order::Asc);
        if let Some(limit) = limit {
            query.limit(limit);
        }
        self.retry("volumes_of_service", |_| async {
            let rows = self.fetch_all::<(String, Option<String>, Option<i32>, Option<String>)>(&query).await?;
            let volume = |(row, host, size, status): (String, Option<String>, Option<i32>, Option<String>)| {
                Ok(ServiceVolume {
                    id: id("volumes", &row, row.clone())?,
                    host,
                    size: u64::try_from(size.unwrap_or(0)).unwrap_or(0),
                    status: status.unwrap_or_default().into(),
                })
            };
            rows.into_iter().map(volume).collect()
        })
        .await
    }

    /// Puts the volumes of a host that has just joined a cluster into it, keeping their pools (`volume_include_in_cluster`).
    /// How many there were.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volumes_include_in_cluster(&self, host: &str, cluster: &str) -> Result<u64> {
        let mut query = Query::select();
        query.columns(["id", "host"]).from("volumes").and_where(live()).and_where(at_place(
            self.dialect(),
            "host",
            host,
        ));
        self.retry("volumes_include_in_cluster", |_| async {
            // Grouped by pool: the new value depends on it.
            let mut pools: HashMap<Option<String>, Vec<String>> = HashMap::new();
            for (id, host) in self.fetch_all::<(String, Option<String>)>(&query).await? {
                let pool = host.as_deref().and_then(|host| host.split_once('#')).map(|(_, pool)| pool.to_owned());
                pools.entry(pool).or_default().push(id);
            }
            let mut count = 0;
            for (pool, ids) in pools {
                let name = pool.map_or_else(|| cluster.to_owned(), |pool| format!("{cluster}#{pool}"));
                let mut statement = update("volumes", vec![("cluster_name", name.value())]);
                statement.and_where(one_of("id", &ids)).and_where(live());
                count += self.execute(&statement).await?;
            }
            Ok(count)
        })
        .await
    }

    /// Whether there is no volume at all, deleted ones aside (`is_vol_db_empty`).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volumes_empty(&self) -> Result<bool> {
        let mut query = Query::select();
        query.column("id").from("volumes").and_where(live()).limit(1);
        self.retry("volumes_empty", |_| async { Ok(self.fetch_optional::<(String,)>(&query).await?.is_none()) }).await
    }
}

fn select_volumes(filter: &VolumeFilter, key: &'static str, dialect: Dialect) -> SelectStatement {
    let mut query = Query::select();
    let project = filter.project_id.as_ref().filter(|_| !filter.all_tenants);
    query
        .columns(VolumeRow::COLUMNS.iter().copied())
        .from("volumes")
        .and_where(live())
        .and_where_option(project.map(|project| is("project_id", project)))
        .and_where_option((!filter.status.is_empty()).then(|| one_of("status", &filter.status)))
        .and_where_option(filter.name.as_ref().map(|name| is("display_name", name)))
        .and_where_option(filter.host.as_ref().map(|host| at_place(dialect, "host", host)))
        .and_where_option(filter.cluster_name.as_ref().map(|name| at_place(dialect, "cluster_name", name)))
        .and_where_option((!filter.ids.is_empty()).then(|| one_of("id", &filter.ids)))
        .and_where_option(filter.snapshot_id.as_ref().map(|id| is("snapshot_id", id)))
        .and_where_option(filter.source_volid.as_ref().map(|id| is("source_volid", id)))
        .and_where_option(filter.bootable.map(|bootable| is("bootable", &bootable)));
    let of_volume = |table: &'static str| {
        let mut select = Query::select();
        select
            .expr(Expr::cust("1"))
            .from(table)
            .and_where(Expr::col((table, "volume_id")).equals(("volumes", "id")))
            .and_where(Expr::col((table, "deleted")).eq(val(&false)));
        select
    };
    for (name, value) in &filter.metadata {
        let mut pair = of_volume("volume_metadata");
        pair.and_where(is("key", name)).and_where(is("value", value));
        query.and_where(Expr::exists(pair));
    }
    if let Some(attached) = filter.attached {
        let exists = Expr::exists(of_volume("volume_attachment"));
        query.and_where(if attached { exists } else { exists.not() });
    }
    let order = match filter.sort_dir {
        SortDirection::Ascending => Order::Asc,
        SortDirection::Descending => Order::Desc,
    };
    if let Some(marker) = &filter.marker {
        query.cond_where(behind(marker, key, filter.sort_dir));
    }
    query.order_by(key, order.clone()).order_by("id", order);
    // Only PostgreSQL takes an OFFSET without a LIMIT.
    match (filter.limit, filter.offset) {
        (Some(limit), _) => drop(query.limit(limit)),
        (None, Some(_)) => drop(query.limit(i64::MAX.unsigned_abs())),
        (None, None) => {}
    }
    if let Some(offset) = filter.offset {
        query.offset(offset);
    }
    query
}

/// Behind the marker's row in the order (key, id).
fn behind(marker: &VolumeId, key: &'static str, direction: SortDirection) -> Condition {
    let mut of_marker = Query::select();
    of_marker.column(key).from("volumes").and_where(is("id", marker));
    let mark = Expr::from(of_marker.clone());
    let further = match direction {
        SortDirection::Ascending => col(key).gt(mark.clone()),
        SortDirection::Descending => col(key).lt(mark.clone()),
    };
    let later = match direction {
        SortDirection::Ascending => col("id").gt(val(marker)),
        SortDirection::Descending => col("id").lt(val(marker)),
    };
    Condition::any().add(further).add(col(key).eq(mark).and(later))
}
