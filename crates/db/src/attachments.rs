//! `volume_attachment`: rows by themselves. What happens to the volume along with them is in `detach.rs`.

use scoria_model::{AttachStatus, Attachment, AttachmentId, Connector, Timestamp, VolumeId};
use sea_query::{Order, SelectStatement};
use serde_json::{Map, Value};

use crate::rows::AttachmentRow;
use crate::statement::{Assignments, ColumnValue, born, insert, is, live, one_of, soft_delete, update};
use crate::volume_update::change;
use crate::{Database, Error, Result};

/// A JSON object in a text column.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(Map<String, Value>);

impl From<Map<String, Value>> for Json {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl ColumnValue for Json {
    const NULL: sea_query::Value = sea_query::Value::String(None);
    fn value(&self) -> sea_query::Value {
        Value::Object(self.0.clone()).to_string().value()
    }
}

change! {
    /// What to write into an attachment's row: `None` leaves a column as it is, `Some(None)` makes it null.
    AttachmentChange {
        /// The server.
        instance_uuid as "instance_uuid": Option<String>,
        /// The host.
        attached_host as "attached_host": Option<String>,
        /// Device name in the server.
        mountpoint as "mountpoint": Option<String>,
        /// When it became attached.
        attach_time as "attach_time": Option<Timestamp>,
        /// Its state.
        attach_status as "attach_status": AttachStatus,
        /// `rw` or `ro`.
        attach_mode as "attach_mode": Option<String>,
        /// What the server needs to reach the volume (`map.into()`).
        connection_info as "connection_info": Option<Json>,
        /// What the server says of itself (`map.into()`).
        connector as "connector": Option<Json>,
        /// The volume (after a migration).
        volume_id as "volume_id": VolumeId,
    }
}

/// Which attachments a list shows; the default is all live ones.
#[derive(Debug, Clone, Default)]
pub struct AttachmentFilter {
    /// Of this volume.
    pub volume_id: Option<VolumeId>,
    /// Of this server.
    pub instance_uuid: Option<String>,
    /// On this host.
    pub attached_host: Option<String>,
    /// In one of these states; empty is any.
    pub status: Vec<AttachStatus>,
}

fn assignments(attachment: &Attachment) -> Assignments {
    let json = |map: &Option<Connector>| map.clone().map(Json).value();
    let mut values = born();
    values.extend([
        ("id", attachment.id.value()),
        ("volume_id", attachment.volume_id.value()),
        ("instance_uuid", attachment.instance_uuid.value()),
        ("attached_host", attachment.attached_host.value()),
        ("mountpoint", attachment.mountpoint.value()),
        ("attach_time", attachment.attach_time.value()),
        ("detach_time", attachment.detach_time.value()),
        ("attach_status", attachment.attach_status.value()),
        ("attach_mode", attachment.attach_mode.value()),
        ("connection_info", json(&attachment.connection_info)),
        ("connector", json(&attachment.connector)),
    ]);
    values
}

fn select() -> SelectStatement {
    let mut query = AttachmentRow::select();
    query.and_where(live());
    query
}

impl Database {
    /// Makes an attachment's row and reads it back (`volume_attach`).
    ///
    /// # Errors
    /// `Conflict` when the id is taken, `Unavailable`.
    pub async fn attachment_create(&self, attachment: &Attachment) -> Result<Attachment> {
        let statement = insert("volume_attachment", assignments(attachment));
        self.retry("attachment_create", |attempt| {
            let statement = &statement;
            async move {
                match self.execute(statement).await {
                    Err(Error::Conflict(_)) if attempt.ambiguous => Ok(()),
                    other => other.map(drop),
                }
            }
        })
        .await?;
        let made = self.attachment_get(&attachment.id).await?;
        made.ok_or_else(|| Error::not_found("attachment", &attachment.id))
    }

    /// One live attachment; `None` if it is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn attachment_get(&self, id: &AttachmentId) -> Result<Option<Attachment>> {
        let mut query = select();
        query.and_where(is("id", id));
        Ok(self.attachment_list(&query).await?.into_iter().next())
    }

    /// The live attachments that match, oldest first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn attachments(&self, filter: &AttachmentFilter) -> Result<Vec<Attachment>> {
        let mut query = select();
        query
            .and_where_option(filter.volume_id.as_ref().map(|id| is("volume_id", id)))
            .and_where_option(filter.instance_uuid.as_ref().map(|uuid| is("instance_uuid", uuid)))
            .and_where_option(filter.attached_host.as_ref().map(|host| is("attached_host", host)))
            .and_where_option((!filter.status.is_empty()).then(|| one_of("attach_status", &filter.status)))
            .order_by("created_at", Order::Asc)
            .order_by("id", Order::Asc);
        self.attachment_list(&query).await
    }

    async fn attachment_list(&self, query: &SelectStatement) -> Result<Vec<Attachment>> {
        self.retry("attachments", |_| async {
            self.fetch_all::<AttachmentRow>(query).await?.into_iter().map(AttachmentRow::into_attachment).collect()
        })
        .await
    }

    /// Changes a live attachment. False: it is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn attachment_update(&self, id: &AttachmentId, change: &AttachmentChange) -> Result<bool> {
        let mut statement = update("volume_attachment", change.assignments());
        statement.and_where(is("id", id)).and_where(live());
        self.retry("attachment_update", |_| async { Ok(self.execute(&statement).await? > 0) }).await
    }

    /// Soft-deletes an attachment that never was in use, with its specs; the volume stays as it is. May be run twice.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn attachment_destroy(&self, id: &AttachmentId) -> Result<()> {
        let mut row = soft_delete("volume_attachment", vec![("attach_status", AttachStatus::Deleted.value())]);
        row.and_where(is("id", id)).and_where(live());
        let mut specs = soft_delete("attachment_specs", Vec::new());
        specs.and_where(is("attachment_id", id)).and_where(live());
        let statements = [row, specs];
        self.retry("attachment_destroy", |_| async {
            let mut transaction = self.begin().await?;
            transaction.execute_together(&statements).await?;
            transaction.commit().await
        })
        .await
    }
}
