//! `volume_glance_metadata`: the image's properties of bootable volumes and of their snapshots.

use scoria_model::{Metadata, SnapshotId, VolumeId};
use sea_query::Query;

use crate::pool::Tx;
use crate::statement::{ColumnValue, born, insert, is, live, one_of, soft_delete};
use crate::{Database, Error, Result};

const TABLE: &str = "volume_glance_metadata";

type Pair = (Option<String>, Option<String>);

impl Tx {
    async fn read_glance(&mut self, owner: &'static str, id: &str) -> Result<Metadata> {
        let mut query = Query::select();
        query.columns(["key", "value"]).from(TABLE).and_where(is(owner, id)).and_where(live());
        let pairs = self.fetch_all::<Pair>(&query).await?;
        Ok(pairs.into_iter().map(|(key, value)| (key.unwrap_or_default(), value.unwrap_or_default())).collect())
    }

    pub(crate) async fn insert_glance(&mut self, owner: &'static str, id: &str, pairs: &Metadata) -> Result<()> {
        for (key, value) in pairs {
            let mut values = born();
            values.extend([(owner, id.value()), ("key", key.value()), ("value", value.value())]);
            self.execute(&insert(TABLE, values)).await?;
        }
        Ok(())
    }

    /// Adds pairs; one that is there with the same value is skipped.
    async fn add_glance(&mut self, owner: &'static str, id: &str, pairs: &Metadata) -> Result<()> {
        let present = self.read_glance(owner, id).await?;
        let mut missing = Metadata::new();
        for (key, value) in pairs {
            match present.get(key) {
                Some(old) if old == value => {}
                Some(_) => return Err(Error::Conflict(format!("glance metadata '{key}' of {id} has another value"))),
                None => drop(missing.insert(key.clone(), value.clone())),
            }
        }
        self.insert_glance(owner, id, &missing).await
    }
}

impl Database {
    /// Writes the image's properties of a volume (`volume_glance_metadata_bulk_create`).
    ///
    /// # Errors
    /// `Conflict` when a key is there with another value, `NotFound` when the volume is gone, `Unavailable`.
    pub async fn volume_glance_metadata_create(&self, id: &VolumeId, pairs: &Metadata) -> Result<()> {
        self.retry("volume_glance_metadata_create", |_| async move {
            let mut transaction = self.begin().await?;
            transaction.lock_row("volumes", "volume", id.as_str()).await?;
            transaction.add_glance("volume_id", id.as_str(), pairs).await?;
            transaction.commit().await
        })
        .await
    }

    /// From a volume to its snapshot (`volume_glance_metadata_copy_to_snapshot`).
    ///
    /// # Errors
    /// `NotFound` when the volume has none (it is not bootable), `Unavailable`.
    pub async fn glance_metadata_copy_to_snapshot(&self, snapshot: &SnapshotId, volume: &VolumeId) -> Result<Metadata> {
        self.copy_glance(("volume_id", volume.as_str()), ("snapshot_id", snapshot.as_str())).await
    }

    /// From a snapshot to a volume made of it (`volume_glance_metadata_copy_to_volume`).
    ///
    /// # Errors
    /// `NotFound` when the snapshot has none, `Unavailable`.
    pub async fn glance_metadata_copy_to_volume(&self, volume: &VolumeId, snapshot: &SnapshotId) -> Result<Metadata> {
        self.copy_glance(("snapshot_id", snapshot.as_str()), ("volume_id", volume.as_str())).await
    }

    /// From a volume to its clone (`volume_glance_metadata_copy_from_volume_to_volume`).
    ///
    /// # Errors
    /// `NotFound` when the source has none, `Unavailable`.
    pub async fn glance_metadata_copy_from_volume(&self, source: &VolumeId, volume: &VolumeId) -> Result<Metadata> {
        self.copy_glance(("volume_id", source.as_str()), ("volume_id", volume.as_str())).await
    }

    /// Copies and answers what was copied. May be run twice: pairs that are there already are left alone.
    async fn copy_glance(&self, from: (&'static str, &str), to: (&'static str, &str)) -> Result<Metadata> {
        self.retry("copy_glance", |_| async move {
            let mut transaction = self.begin().await?;
            let pairs = transaction.read_glance(from.0, from.1).await?;
            if pairs.is_empty() {
                return Err(Error::not_found("glance metadata of", from.1));
            }
            transaction.add_glance(to.0, to.1, &pairs).await?;
            transaction.commit().await?;
            Ok(pairs)
        })
        .await
    }

    /// Removes a snapshot's pairs.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_glance_metadata_delete_by_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.delete_glance("snapshot_id", id.as_str()).await
    }

    /// Removes a volume's pairs.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_glance_metadata_delete_by_volume(&self, id: &VolumeId) -> Result<()> {
        self.delete_glance("volume_id", id.as_str()).await
    }

    async fn delete_glance(&self, owner: &'static str, id: &str) -> Result<()> {
        let mut statement = soft_delete(TABLE, Vec::new());
        statement.and_where(is(owner, id)).and_where(live());
        self.retry("delete_glance", |_| async { self.execute(&statement).await.map(drop) }).await
    }

    /// The pairs of many volumes at once.
    pub(crate) async fn glance_metadata_of(&self, ids: &[String]) -> Result<Vec<(String, String, String)>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = Query::select();
        query.columns(["volume_id", "key", "value"]).from(TABLE).and_where(one_of("volume_id", ids)).and_where(live());
        let rows = self.fetch_all::<(String, Option<String>, Option<String>)>(&query).await?;
        let text = |text: Option<String>| text.unwrap_or_default();
        Ok(rows.into_iter().map(|(owner, key, value)| (owner, text(key), text(value))).collect())
    }

    /// The pairs of one snapshot.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn snapshot_glance_metadata(&self, id: &SnapshotId) -> Result<Metadata> {
        let mut query = Query::select();
        query.columns(["key", "value"]).from(TABLE).and_where(is("snapshot_id", id)).and_where(live());
        self.retry("snapshot_glance_metadata", |_| async {
            let pairs = self.fetch_all::<Pair>(&query).await?;
            Ok(pairs.into_iter().map(|(key, value)| (key.unwrap_or_default(), value.unwrap_or_default())).collect())
        })
        .await
    }
}
