//! Limits of single projects (`cinder/db/api.py: quota_update`, `quota_create`, `quota_destroy_by_project`).

use std::collections::BTreeMap;

use crate::statement::{ColumnValue, born, insert, is, live, soft_delete, update};
use crate::{Database, Result};

impl Database {
    /// Sets limits of a project, by resource; -1 is none. Those that are not named stay as they are.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_set_limits(&self, project: &str, limits: &BTreeMap<String, i64>) -> Result<()> {
        self.retry("quota_set_limits", |_| async move {
            let mut transaction = self.begin().await?;
            for (resource, limit) in limits {
                let mut change = update("quotas", vec![("hard_limit", limit.value())]);
                change.and_where(is("project_id", project)).and_where(is("resource", resource)).and_where(live());
                if transaction.execute(&change).await? == 0 {
                    let mut values = born();
                    values.extend([
                        ("project_id", project.value()),
                        ("resource", resource.value()),
                        ("hard_limit", limit.value()),
                        ("allocated", 0_i64.value()),
                    ]);
                    transaction.execute(&insert("quotas", values)).await?;
                }
            }
            transaction.commit().await
        })
        .await
    }

    /// Takes a project's own limits away: the defaults hold again.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn quota_reset_limits(&self, project: &str) -> Result<()> {
        let mut statement = soft_delete("quotas", Vec::new());
        statement.and_where(is("project_id", project)).and_where(live());
        self.retry("quota_reset_limits", |_| async { self.execute(&statement).await.map(drop) }).await
    }
}
