//! `services`: registering, heartbeat, and who else is there (`cinder/service.py`, `cinder/objects/service.py`).

use std::time::Duration;

use scoria_model::{OBJECT_VERSION, Service, Timestamp, VOLUME_RPC_VERSION};
use sea_query::{Condition, ExprTrait, Query, SelectStatement};
use uuid::Uuid;

use crate::cas::one_more;
use crate::retry::within;
use crate::rows::ServiceRow;
use crate::statement::{Assignments, ColumnValue, at_place, born, col, insert, is, live, update, val};
use crate::volume_update::change;
use crate::{Database, Error, Result};

/// After how long a heartbeat counts as failed: by then the next one is due.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(10);

/// A service that has just been added to a cluster takes the cluster's replication state, unless it is in one of these.
const ERROR_STATES: &[&str] = &["error", "failover-error"];

/// A service that starts.
#[derive(Debug, Clone)]
pub struct NewService {
    /// `host@backend`.
    pub host: String,
    /// `cinder-volume`.
    pub binary: String,
    /// `cinder-volume`.
    pub topic: String,
    /// Availability zone.
    pub availability_zone: String,
    /// `cluster@backend`, when it belongs to a cluster.
    pub cluster_name: Option<String>,
    /// `[DEFAULT] enable_new_services`: whether a service that was unknown may be used at once.
    pub enable_new_services: bool,
}

/// Which services are wanted; the default is all live ones.
#[derive(Debug, Clone, Default)]
pub struct ServiceFilter {
    /// At or below this place (`_filter_host`).
    pub host: Option<String>,
    /// Of this binary.
    pub binary: Option<String>,
    /// On this topic.
    pub topic: Option<String>,
    /// In this cluster, exactly.
    pub cluster_name: Option<String>,
    /// Heard of since this time.
    pub up_since: Option<Timestamp>,
}

change! {
    /// What to write into a service's row; `None` leaves a column as it is.
    ServiceChange {
        /// Availability zone.
        availability_zone as "availability_zone": Option<String>,
        /// Whether the scheduler must not use it. Writing it is no heartbeat: `updated_at` stays.
        disabled as "disabled": bool,
        /// Why.
        disabled_reason as "disabled_reason": Option<String>,
        /// Replication state.
        replication_status as "replication_status": Option<String>,
        /// Replication target in use.
        active_backend_id as "active_backend_id": Option<String>,
        /// Frozen by an administrator.
        frozen as "frozen": bool,
    }
}

fn select(filter: &ServiceFilter, dialect: crate::Dialect) -> SelectStatement {
    let mut query = ServiceRow::select();
    query
        .and_where(live())
        .and_where_option(filter.host.as_ref().map(|host| at_place(dialect, "host", host)))
        .and_where_option(filter.binary.as_ref().map(|binary| is("binary", binary)))
        .and_where_option(filter.topic.as_ref().map(|topic| is("topic", topic)))
        .and_where_option(filter.cluster_name.as_ref().map(|name| is("cluster_name", name)))
        .order_by("id", sea_query::Order::Asc);
    if let Some(since) = filter.up_since {
        query.cond_where(
            Condition::any().add(col("created_at").gte(val(&since))).add(col("updated_at").gte(val(&since))),
        );
    }
    query
}

fn select_one(host: &str, binary: &str) -> SelectStatement {
    let mut query = ServiceRow::select();
    query
        .and_where(is("host", host))
        .and_where(is("binary", binary))
        .and_where(live())
        .order_by("id", sea_query::Order::Asc)
        .limit(1);
    query
}

impl Database {
    /// Finds or makes the row of a service that starts, and its cluster's. A known row gets our versions; one without a
    /// cluster joins the configured one; one in *another* cluster keeps it, which is only logged, as Cinder does.
    ///
    /// # Errors
    /// `Unavailable`, `Schema`.
    pub async fn service_register(&self, new: &NewService) -> Result<Service> {
        self.retry("service_register", |_| async move {
            match self.fetch_optional::<ServiceRow>(&select_one(&new.host, &new.binary)).await? {
                Some(row) => self.service_renew(new, row.into()).await,
                None => self.service_insert(new).await,
            }
        })
        .await
    }

    async fn service_renew(&self, new: &NewService, service: Service) -> Result<Service> {
        let mut values = vec![
            ("rpc_current_version", VOLUME_RPC_VERSION.value()),
            ("object_current_version", OBJECT_VERSION.value()),
        ];
        match (&service.cluster_name, &new.cluster_name) {
            (None, Some(cluster)) => values.extend(self.join_cluster(cluster, &service).await?),
            (in_row, configured) if in_row != configured => tracing::warn!(
                host = new.host,
                ?in_row,
                ?configured,
                "the service is registered in another cluster than the configured one: its row and its resources stay there"
            ),
            _ => {}
        }
        self.service_write(service.id, values).await?;
        self.service_by_id(service.id).await
    }

    async fn service_insert(&self, new: &NewService) -> Result<Service> {
        let mut values = born();
        values.extend([
            ("uuid", Uuid::new_v4().to_string().value()),
            ("host", new.host.value()),
            ("binary", new.binary.value()),
            ("topic", new.topic.value()),
            ("report_count", 0_i64.value()),
            ("disabled", (!new.enable_new_services).value()),
            ("availability_zone", new.availability_zone.value()),
            ("rpc_current_version", VOLUME_RPC_VERSION.value()),
            ("object_current_version", OBJECT_VERSION.value()),
            ("replication_status", "not-capable".value()),
            ("frozen", false.value()),
            ("cluster_name", new.cluster_name.value()),
            ("updated_at", Timestamp::now().value()),
        ]);
        let id = self.insert(insert("services", values)).await?;
        if let Some(cluster) = &new.cluster_name {
            let service = self.service_by_id(id).await?;
            let values = self.join_cluster(cluster, &service).await?;
            self.service_write(id, values).await?;
        }
        self.volumes_adopt_service_uuids().await?;
        self.service_by_id(id).await
    }

    /// What a service takes over from the cluster that it joins.
    async fn join_cluster(&self, name: &str, service: &Service) -> Result<Assignments> {
        let cluster = self.cluster_ensure(name, service).await?;
        let mut values = vec![("cluster_name", name.value())];
        if !service.replication_status.as_deref().is_some_and(|status| ERROR_STATES.contains(&status)) {
            values.extend([
                ("replication_status", cluster.replication_status.value()),
                ("active_backend_id", cluster.active_backend_id.value()),
                ("frozen", cluster.frozen.value()),
            ]);
        }
        Ok(values)
    }

    /// Volumes of a place whose service row was made anew point to the new row (`volume_update_all_by_service`): only those
    /// that point to some row already.
    async fn volumes_adopt_service_uuids(&self) -> Result<()> {
        let filter = ServiceFilter { binary: Some("cinder-volume".to_owned()), ..ServiceFilter::default() };
        for row in self.fetch_all::<ServiceRow>(&select(&filter, self.dialect())).await? {
            let (Some(uuid), Some(host)) = (row.uuid, row.host) else {
                continue;
            };
            let mut statement = update("volumes", vec![("service_uuid", uuid.value())]);
            statement
                .and_where(live())
                .and_where(at_place(self.dialect(), "host", &host))
                .and_where(col("service_uuid").ne(val(&uuid)));
            self.execute(&statement).await?;
        }
        Ok(())
    }

    async fn service_write(&self, id: i64, values: Assignments) -> Result<bool> {
        let mut statement = update("services", values);
        statement.and_where(is("id", &id)).and_where(live());
        Ok(self.execute(&statement).await? > 0)
    }

    async fn service_by_id(&self, id: i64) -> Result<Service> {
        let mut query = ServiceRow::select();
        query.and_where(is("id", &id));
        let row = self.fetch_optional::<ServiceRow>(&query).await?;
        row.map(Service::from).ok_or_else(|| Error::not_found("service", id))
    }

    /// One sign of life. Not tried again: the next one is due soon. False: the row is gone and wants registering again.
    ///
    /// # Errors
    /// `Unavailable`, `Busy`.
    pub async fn service_heartbeat(&self, id: i64) -> Result<bool> {
        let mut statement = update("services", Vec::new());
        statement.value("report_count", one_more("report_count")).and_where(is("id", &id)).and_where(live());
        match within(HEARTBEAT_LIMIT, self.execute(&statement)).await {
            Err(error @ Error::Unavailable(_)) => {
                self.inner.suspicion.lost_one();
                Err(error)
            }
            other => Ok(other? > 0),
        }
    }

    /// The live service of that host and binary.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn service_get(&self, host: &str, binary: &str) -> Result<Option<Service>> {
        let query = select_one(host, binary);
        self.retry("service_get", |_| async { Ok(self.fetch_optional::<ServiceRow>(&query).await?.map(Service::from)) })
            .await
    }

    /// The live services that match, oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn services(&self, filter: &ServiceFilter) -> Result<Vec<Service>> {
        let query = select(filter, self.dialect());
        self.retry("services", |_| async {
            Ok(self.fetch_all::<ServiceRow>(&query).await?.into_iter().map(Service::from).collect())
        })
        .await
    }

    /// Changes a service. False: the row is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn service_update(&self, id: i64, change: &ServiceChange) -> Result<bool> {
        let mut values = change.assignments();
        let enabling = change.disabled.is_some();
        if enabling {
            values.push(("modified_at", Timestamp::now().value()));
        }
        let mut statement = if enabling { keep_updated_at(values) } else { update("services", values) };
        statement.and_where(is("id", &id)).and_where(live());
        self.retry("service_update", |_| async { Ok(self.execute(&statement).await? > 0) }).await
    }
}

/// `updated_at` is the sign of life: enabling a dead service must not make it look alive.
fn keep_updated_at(values: Assignments) -> sea_query::UpdateStatement {
    let mut statement = Query::update();
    statement
        .table("services")
        .values(values.into_iter().map(|(column, value)| (column, sea_query::Expr::Value(value))))
        .value("updated_at", col("updated_at"));
    statement
}
