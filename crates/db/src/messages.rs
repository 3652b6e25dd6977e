//! Messages for users (`cinder/message/api.py: API.create`).

use scoria_model::{Timestamp, UserMessage, UserMessageId};

use crate::statement::{ColumnValue, born, insert};
use crate::{Database, Error, Result};

impl Database {
    /// Writes a message. The caller decides what a failure means; Cinder only logs it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn message_create(&self, message: &UserMessage) -> Result<UserMessageId> {
        let id = UserMessageId::random();
        let mut values = born();
        values.extend([
            ("id", id.value()),
            ("project_id", message.project_id.value()),
            ("message_level", "ERROR".value()),
            ("request_id", message.request_id.value()),
            ("resource_type", message.resource_type.message_type().value()),
            ("resource_uuid", message.resource_id.value()),
            ("event_id", message.event_id().value()),
            ("action_id", message.action_id().value()),
            ("detail_id", message.detail_id().value()),
            ("expires_at", Timestamp::now().plus_seconds(message.ttl).value()),
        ]);
        let statement = insert("messages", values);
        self.retry("message_create", |attempt| {
            let statement = &statement;
            async move {
                match self.execute(statement).await {
                    Err(Error::Conflict(_)) if attempt.ambiguous => Ok(()),
                    other => other.map(drop),
                }
            }
        })
        .await?;
        Ok(id)
    }
}
