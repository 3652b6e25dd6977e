//! Key and value tables: the user's metadata of volumes and snapshots, and the service's own of volumes.

use scoria_model::{Metadata, SnapshotId, VolumeId};
use sea_query::{ExprTrait, Query};

use crate::pool::Tx;
use crate::statement::{ColumnValue, born, insert, is, live, one_of, soft_delete, update};
use crate::{Database, Error, Result};

/// One key and value table.
pub(crate) trait MetadataTable {
    /// The table.
    const TABLE: &'static str;
    /// The column that names the owner.
    const OWNER: &'static str;
    /// The owner's table.
    const OWNERS: &'static str;
    /// What an owner is called.
    const KIND: &'static str;
}

/// `volume_metadata`.
pub(crate) struct VolumeMetadata;
/// `volume_admin_metadata`.
pub(crate) struct AdminMetadata;
/// `snapshot_metadata`.
pub(crate) struct SnapshotMetadata;

impl MetadataTable for VolumeMetadata {
    const TABLE: &'static str = "volume_metadata";
    const OWNER: &'static str = "volume_id";
    const OWNERS: &'static str = "volumes";
    const KIND: &'static str = "volume";
}

impl MetadataTable for AdminMetadata {
    const TABLE: &'static str = "volume_admin_metadata";
    const OWNER: &'static str = "volume_id";
    const OWNERS: &'static str = "volumes";
    const KIND: &'static str = "volume";
}

impl MetadataTable for SnapshotMetadata {
    const TABLE: &'static str = "snapshot_metadata";
    const OWNER: &'static str = "snapshot_id";
    const OWNERS: &'static str = "snapshots";
    const KIND: &'static str = "snapshot";
}

type Pair = (Option<String>, Option<String>);

fn collect(pairs: impl IntoIterator<Item = Pair>) -> Metadata {
    pairs.into_iter().map(|(key, value)| (key.unwrap_or_default(), value.unwrap_or_default())).collect()
}

impl Tx {
    async fn read_metadata<T: MetadataTable>(&mut self, owner: &str) -> Result<Metadata> {
        let mut query = Query::select();
        query.columns(["key", "value"]).from(T::TABLE).and_where(is(T::OWNER, owner)).and_where(live());
        Ok(collect(self.fetch_all::<Pair>(&query).await?))
    }

    /// Adds and changes pairs, one statement for each that differs, and answers what is there then.
    ///
    /// The tables have no unique key, so the caller's transaction must already hold the owner's row.
    pub(crate) async fn merge_metadata<T: MetadataTable>(
        &mut self,
        owner: &str,
        wanted: &Metadata,
    ) -> Result<Metadata> {
        let mut present = self.read_metadata::<T>(owner).await?;
        for (key, value) in wanted {
            match present.insert(key.clone(), value.clone()) {
                Some(old) if old == *value => {}
                Some(_) => {
                    let mut statement = update(T::TABLE, vec![("value", value.value())]);
                    statement.and_where(is(T::OWNER, owner)).and_where(is("key", key)).and_where(live());
                    self.execute(&statement).await?;
                }
                None => self.insert_pair::<T>(owner, key, value).await?,
            }
        }
        Ok(present)
    }

    async fn insert_pair<T: MetadataTable>(&mut self, owner: &str, key: &str, value: &str) -> Result<()> {
        let mut values = born();
        values.extend([(T::OWNER, owner.value()), ("key", key.value()), ("value", value.value())]);
        self.execute(&insert(T::TABLE, values)).await.map(drop)
    }

    /// Inserts the pairs of an owner that is new, and so has none.
    pub(crate) async fn insert_metadata<T: MetadataTable>(&mut self, owner: &str, pairs: &Metadata) -> Result<()> {
        for (key, value) in pairs {
            self.insert_pair::<T>(owner, key, value).await?;
        }
        Ok(())
    }

    async fn replace_metadata<T: MetadataTable>(&mut self, owner: &str, wanted: &Metadata) -> Result<Metadata> {
        let keys: Vec<&String> = wanted.keys().collect();
        let mut statement = soft_delete(T::TABLE, Vec::new());
        statement.and_where(is(T::OWNER, owner)).and_where(live());
        if !keys.is_empty() {
            statement.and_where(one_of("key", &keys).not());
        }
        self.execute(&statement).await?;
        self.merge_metadata::<T>(owner, wanted).await
    }

    /// Holds the owner's row until the transaction ends.
    pub(crate) async fn lock_row(&mut self, table: &'static str, kind: &'static str, id: &str) -> Result<()> {
        let mut query = Query::select();
        query.column("id").from(table).and_where(is("id", id)).and_where(live()).lock_exclusive();
        match self.fetch_optional::<(String,)>(&query).await? {
            Some(_) => Ok(()),
            None => Err(Error::not_found(kind, id)),
        }
    }
}

impl Database {
    async fn metadata_update<T: MetadataTable>(
        &self,
        owner: &str,
        wanted: &Metadata,
        delete: bool,
    ) -> Result<Metadata> {
        self.retry(T::TABLE, |_| async move {
            let mut transaction = self.begin().await?;
            transaction.lock_row(T::OWNERS, T::KIND, owner).await?;
            let now = match delete {
                true => transaction.replace_metadata::<T>(owner, wanted).await?,
                false => transaction.merge_metadata::<T>(owner, wanted).await?,
            };
            transaction.commit().await?;
            Ok(now)
        })
        .await
    }

    /// Merges (or, with `delete`, replaces) the user's metadata of a volume and answers what is there then.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Statement` (a key or value of more than 255 characters).
    pub async fn volume_metadata_update(&self, id: &VolumeId, metadata: &Metadata, delete: bool) -> Result<Metadata> {
        self.metadata_update::<VolumeMetadata>(id.as_str(), metadata, delete).await
    }

    /// The same for the service's own metadata of a volume.
    ///
    /// # Errors
    /// As `volume_metadata_update`.
    pub async fn volume_admin_metadata_update(
        &self,
        id: &VolumeId,
        metadata: &Metadata,
        delete: bool,
    ) -> Result<Metadata> {
        self.metadata_update::<AdminMetadata>(id.as_str(), metadata, delete).await
    }

    /// The same for the user's metadata of a snapshot.
    ///
    /// # Errors
    /// As `volume_metadata_update`.
    pub async fn snapshot_metadata_update(
        &self,
        id: &SnapshotId,
        metadata: &Metadata,
        delete: bool,
    ) -> Result<Metadata> {
        self.metadata_update::<SnapshotMetadata>(id.as_str(), metadata, delete).await
    }

    /// Removes keys from the service's own metadata of a volume (`volume_admin_metadata_delete`).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_admin_metadata_delete(&self, id: &VolumeId, keys: &[&str]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut statement = soft_delete("volume_admin_metadata", Vec::new());
        statement.and_where(is("volume_id", id)).and_where(one_of("key", keys)).and_where(live());
        self.retry("volume_admin_metadata_delete", |_| async { self.execute(&statement).await.map(drop) }).await
    }

    /// The live pairs of many owners at once.
    pub(crate) async fn metadata_of<T: MetadataTable>(
        &self,
        owners: &[String],
    ) -> Result<Vec<(String, String, String)>> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = Query::select();
        query.column(T::OWNER).columns(["key", "value"]).from(T::TABLE);
        query.and_where(one_of(T::OWNER, owners)).and_where(live());
        let rows = self.fetch_all::<(String, Option<String>, Option<String>)>(&query).await?;
        let text = |text: Option<String>| text.unwrap_or_default();
        Ok(rows.into_iter().map(|(owner, key, value)| (owner, text(key), text(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_in_a_pair_are_empty_texts() {
        let metadata = collect([(Some("a".to_owned()), None), (Some("b".to_owned()), Some("1".to_owned()))]);
        assert_eq!(metadata, Metadata::from([("a".to_owned(), String::new()), ("b".to_owned(), "1".to_owned())]));
    }
}
