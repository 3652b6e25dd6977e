//! `clusters`: one row per `cluster@backend` (`cinder/objects/cluster.py`).

use scoria_model::{Cluster, Service};

use crate::rows::ClusterRow;
use crate::statement::{ColumnValue, born, insert, is, live, update};
use crate::volume_update::change;
use crate::{Database, Error, Result};

change! {
    /// What to write into a cluster's row; `None` leaves a column as it is.
    ClusterChange {
        /// Whether the scheduler must not use it.
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

impl Database {
    /// The live cluster of that name (`cluster@backend`) and binary.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn cluster_get(&self, name: &str, binary: &str) -> Result<Option<Cluster>> {
        self.retry("cluster_get", |_| self.cluster_find(name, binary)).await
    }

    pub(crate) async fn cluster_find(&self, name: &str, binary: &str) -> Result<Option<Cluster>> {
        let mut query = ClusterRow::select();
        query.and_where(is("name", name)).and_where(is("binary", binary)).and_where(live());
        Ok(self.fetch_optional::<ClusterRow>(&query).await?.map(Cluster::from))
    }

    /// All live clusters, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn clusters(&self) -> Result<Vec<Cluster>> {
        let mut query = ClusterRow::select();
        query.and_where(live());
        query.order_by("name", sea_query::Order::Asc);
        self.retry("clusters", |_| async {
            Ok(self.fetch_all::<ClusterRow>(&query).await?.into_iter().map(Cluster::from).collect())
        })
        .await
    }

    /// Makes the cluster of a service, with the service's own state, if it is not there (`Service._ensure_cluster_exists`).
    pub(crate) async fn cluster_ensure(&self, name: &str, service: &Service) -> Result<Cluster> {
        loop {
            if let Some(cluster) = self.cluster_find(name, &service.binary).await? {
                return Ok(cluster);
            }
            let mut values = born();
            values.extend([
                ("name", name.value()),
                ("binary", service.binary.value()),
                ("race_preventer", 0_i64.value()),
                ("disabled", service.disabled.value()),
                ("replication_status", service.replication_status.value()),
                ("active_backend_id", service.active_backend_id.value()),
                ("frozen", service.frozen.value()),
            ]);
            // Another service may have made it in between: then it is read again.
            match self.insert(insert("clusters", values)).await {
                Ok(_) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes a cluster. False: there is none of that name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn cluster_update(&self, name: &str, binary: &str, change: &ClusterChange) -> Result<bool> {
        let mut statement = update("clusters", change.assignments());
        statement.and_where(is("name", name)).and_where(is("binary", binary)).and_where(live());
        self.retry("cluster_update", |_| async { Ok(self.execute(&statement).await? > 0) }).await
    }
}
