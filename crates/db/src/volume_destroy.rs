//! The end of a volume: row, dependents, quota and worker in one transaction (`cinder/db/api.py: volume_destroy`).

use scoria_model::{Metadata, VolumeStatus};
use sea_query::UpdateStatement;

use crate::cas::{Expect, Swap, Why, expecting};
use crate::quotas::QuotaRelease;
use crate::statement::{Assignments, ColumnValue, is, live, soft_delete};
use crate::volume_load::Loaded;
use crate::workers::WorkerClaim;
use crate::{Database, Result};

impl Database {
    /// Soft-deletes a volume as it was loaded, if it is as `expect` says, together with the rows that hang on it; takes it out of
    /// the project's usage; removes `claim`'s `workers` row. One transaction, at most six round trips.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volume_destroy(
        &self,
        loaded: &Loaded,
        expect: &Expect<'_>,
        quota: Option<&QuotaRelease>,
        claim: Option<&WorkerClaim>,
    ) -> Result<Swap> {
        let id = loaded.volume.id.as_str();
        let dependents = dependents(loaded);
        self.retry("volume_destroy", |attempt| {
            let dependents = &dependents;
            async move {
                let mut transaction = self.begin().await?;
                if transaction.execute(&destroy(id, expect)).await? == 0 {
                    transaction.rollback().await?;
                    let gone = Some(&VolumeStatus::Deleted);
                    return match self.why(id, expect, gone, attempt.ambiguous, claim.is_some()).await? {
                        Why::AlreadyDone => Ok(Swap::Done),
                        Why::Refused(swap) => Ok(swap),
                    };
                }
                transaction.execute_together(dependents).await?;
                if let Some(quota) = quota {
                    transaction.release_quota(quota).await?;
                }
                if let Some(claim) = claim {
                    transaction.execute(&claim.delete()).await?;
                }
                transaction.commit().await?;
                Ok(Swap::Done)
            }
        })
        .await
    }
}

fn destroy(id: &str, expect: &Expect<'_>) -> UpdateStatement {
    let values: Assignments =
        vec![("status", VolumeStatus::Deleted.value()), ("migration_status", None::<String>.value())];
    let mut statement = soft_delete("volumes", values);
    expecting(&mut statement, id, expect);
    statement
}

/// Soft deletions of the dependent rows that are known to be there. A row that came into being since then belongs to somebody who
/// ignores the volume's status; Cinder leaves such a row behind as well.
fn dependents(loaded: &Loaded) -> Vec<UpdateStatement> {
    let volume = &loaded.volume;
    let some = |metadata: &Metadata| !metadata.is_empty();
    [
        ("volume_metadata", some(&volume.metadata)),
        ("volume_admin_metadata", some(&volume.admin_metadata)),
        ("transfers", loaded.has_transfers),
        ("volume_glance_metadata", some(&volume.glance_metadata)),
        ("volume_attachment", !volume.attachments.is_empty()),
        ("snapshots", loaded.has_snapshots),
    ]
    .into_iter()
    .filter(|(_, present)| *present)
    .map(|(table, _)| {
        let mut statement = soft_delete(table, Vec::new());
        statement.and_where(is("volume_id", &volume.id)).and_where(live());
        statement
    })
    .collect()
}
