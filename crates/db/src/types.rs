//! Volume types with their extra specs, and QoS specs: read only.

use scoria_model::{Metadata, QosSpecs, VolumeType, VolumeTypeId};
use sea_query::{Condition, ExprTrait, Order, Query, SelectStatement};

use crate::rows::{QosRow, TypeRow};
use crate::statement::{col, is, live, one_of};
use crate::{Database, Result};

/// The type of volumes that were made without one (`[DEFAULT] default_volume_type`'s default).
pub(crate) const DEFAULT_TYPE: &str = "__DEFAULT__";

fn select() -> SelectStatement {
    let mut query = TypeRow::select();
    query.order_by("name", Order::Asc);
    query
}

impl Database {
    /// A type with its extra specs, a deleted one too: its volumes live on.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_type_get(&self, id: &VolumeTypeId) -> Result<Option<VolumeType>> {
        let mut query = select();
        query.and_where(is("id", id));
        Ok(self.type_list(&query).await?.into_iter().next())
    }

    /// The live type of that name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_type_by_name(&self, name: &str) -> Result<Option<VolumeType>> {
        let mut query = select();
        query.and_where(is("name", name)).and_where(live());
        Ok(self.type_list(&query).await?.into_iter().next())
    }

    /// The type named `__DEFAULT__`, which both our own tables and Cinder's have from the beginning.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn default_volume_type(&self) -> Result<Option<VolumeType>> {
        self.volume_type_by_name(DEFAULT_TYPE).await
    }

    /// All live types, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_types(&self) -> Result<Vec<VolumeType>> {
        let mut query = select();
        query.and_where(live());
        self.type_list(&query).await
    }

    async fn type_list(&self, query: &SelectStatement) -> Result<Vec<VolumeType>> {
        self.retry("volume_types", |_| async {
            let mut types = Vec::new();
            for row in self.fetch_all::<TypeRow>(query).await? {
                types.push(row.into_type()?);
            }
            if types.is_empty() {
                return Ok(types);
            }
            let ids: Vec<&VolumeTypeId> = types.iter().map(|volume_type| &volume_type.id).collect();
            let mut specs = Query::select();
            specs.columns(["volume_type_id", "key", "value"]).from("volume_type_extra_specs");
            specs.and_where(one_of("volume_type_id", &ids)).and_where(live());
            for (owner, key, value) in self.fetch_all::<(String, Option<String>, Option<String>)>(&specs).await? {
                if let Some(owner) = types.iter_mut().find(|volume_type| volume_type.id.as_str() == owner) {
                    owner.extra_specs.insert(key.unwrap_or_default(), value.unwrap_or_default());
                }
            }
            Ok(types)
        })
        .await
    }

    /// QoS specs: a root row that carries the name, and one row per spec below it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn qos_specs_get(&self, id: &str) -> Result<Option<QosSpecs>> {
        let mut query = QosRow::select();
        query.and_where(live()).cond_where(Condition::any().add(is("id", id)).add(col("specs_id").eq(id)));
        self.retry("qos_specs_get", |_| async {
            let (mut name, mut consumer, mut specs) = (None, "back-end".to_owned(), Metadata::new());
            for row in self.fetch_all::<QosRow>(&query).await? {
                let value = row.value.unwrap_or_default();
                match (row.specs_id, row.key.as_deref()) {
                    (None, _) if row.id == id => name = Some(value),
                    (Some(_), Some("consumer")) => consumer = value,
                    (Some(_), Some(key)) => drop(specs.insert(key.to_owned(), value)),
                    _ => {}
                }
            }
            Ok(name.map(|name| QosSpecs { id: id.to_owned(), name, consumer, specs }))
        })
        .await
    }
}
