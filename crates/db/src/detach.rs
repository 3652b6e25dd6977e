//! Attachments that change their volume: attached, detached (`cinder/db/api.py: volume_attached, volume_detached`).

use scoria_model::{AttachStatus, AttachmentId, Timestamp, VolumeId, VolumeStatus};
use sea_query::UpdateStatement;
use uuid::Uuid;

use crate::pool::Tx;
use crate::rows::{AttachmentRow, VolumeRow};
use crate::statement::{Assignments, ColumnValue, is, live, soft_delete, update};
use crate::{Database, Error, Result};

/// What an attachment becomes when the server has (or is about to have) the volume.
#[derive(Debug, Clone)]
pub struct Attached<'a> {
    /// The server.
    pub instance_uuid: Option<&'a str>,
    /// The host, when no server is named.
    pub host: Option<&'a str>,
    /// Device name in the server.
    pub mountpoint: Option<&'a str>,
    /// `rw` or `ro`.
    pub mode: &'a str,
    /// Attached (true), or only attaching.
    pub mark_attached: bool,
}

/// What became of a volume when an attachment was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// The volume's new status; `None` when it was left alone (a migration or an upload sets it later).
    pub status: Option<VolumeStatus>,
    /// The volume's new attach status.
    pub attach_status: AttachStatus,
    /// Whether the attachment was there.
    pub found: bool,
}

/// Status and attach status of a volume with these attachments (`_get_statuses_from_attachments`): failed ones do not count,
/// and of the others the first in alphabetical order wins, which puts `attached` before `attaching`, `detaching` and `reserved`.
fn statuses(attachments: impl Iterator<Item = AttachStatus>) -> (VolumeStatus, AttachStatus) {
    let counted = attachments.filter(|status| !status.as_str().starts_with("error_"));
    match counted.min_by(|a, b| a.as_str().cmp(b.as_str())) {
        None | Some(AttachStatus::Detached) => (VolumeStatus::Available, AttachStatus::Detached),
        Some(AttachStatus::Attached) => (VolumeStatus::InUse, AttachStatus::Attached),
        Some(other) => (other.as_str().into(), other),
    }
}

/// Writes a volume's or an attachment's state without touching `updated_at`.
fn quiet_update(
    table: &'static str,
    mut values: Assignments,
    updated_at: Option<time::PrimitiveDateTime>,
) -> UpdateStatement {
    values.push(("updated_at", updated_at.map(Timestamp::from).value()));
    update(table, values)
}

impl Database {
    /// Records that a server has the volume, in the attachment and in the volume. Answers the volume's id.
    ///
    /// # Errors
    /// `NotFound` when the attachment is gone, `Config` for a server that is no UUID, `Unavailable`.
    pub async fn volume_attached(&self, id: &AttachmentId, attached: &Attached<'_>) -> Result<VolumeId> {
        if let Some(uuid) = attached.instance_uuid.filter(|uuid| Uuid::parse_str(uuid).is_err()) {
            return Err(Error::Config(format!("'{uuid}' is not the UUID of a server")));
        }
        let (attach_status, status) = match attached.mark_attached {
            true => (AttachStatus::Attached, VolumeStatus::InUse),
            false => (AttachStatus::Attaching, VolumeStatus::Attaching),
        };
        let text = |text: Option<&str>| text.map(str::to_owned).value();
        self.retry("volume_attached", |_| {
            let (attach_status, status) = (&attach_status, &status);
            async move {
                let mut transaction = self.begin().await?;
                let mut query = AttachmentRow::select();
                query.and_where(is("id", id)).and_where(live());
                let Some(row) = transaction.fetch_optional::<AttachmentRow>(&query).await? else {
                    return Err(Error::not_found("attachment", id));
                };
                let volume_id = row.volume_id.clone();
                // The volume's row first: the order in which detaching takes them.
                transaction.lock_row("volumes", "volume", &volume_id).await?;
                let values = vec![
                    ("mountpoint", text(attached.mountpoint)),
                    ("attach_status", attach_status.value()),
                    ("instance_uuid", text(attached.instance_uuid)),
                    ("attached_host", text(attached.host)),
                    ("attach_time", Timestamp::now().value()),
                    ("attach_mode", attached.mode.value()),
                ];
                let mut statement = quiet_update("volume_attachment", values, row.updated_at);
                statement.and_where(is("id", id)).and_where(live());
                transaction.execute(&statement).await?;
                let mut statement =
                    update("volumes", vec![("status", status.value()), ("attach_status", attach_status.value())]);
                statement.and_where(is("id", &volume_id)).and_where(live());
                transaction.execute(&statement).await?;
                transaction.commit().await?;
                crate::rows::id("volume_attachment", id.as_str(), volume_id)
            }
        })
        .await
    }

    /// Takes an attachment away and gives the volume the state that follows from those that remain, with the volume's row
    /// locked. May be run twice.
    ///
    /// # Errors
    /// `NotFound` when the volume is gone, `Unavailable`.
    pub async fn volume_detached(&self, volume_id: &VolumeId, id: &AttachmentId) -> Result<Detached> {
        self.retry("volume_detached", |_| async move {
            let mut transaction = self.begin().await?;
            let detached = transaction.detach(volume_id, id).await?;
            transaction.commit().await?;
            Ok(detached)
        })
        .await
    }

    /// The end of a detach: as [`Database::volume_detached`], and the volume's `attached_mode` is forgotten
    /// (`cinder/objects/volume.py: Volume.finish_detach`).
    ///
    /// # Errors
    /// As `volume_detached`.
    pub async fn finish_detach(&self, volume_id: &VolumeId, id: &AttachmentId) -> Result<Detached> {
        self.retry("finish_detach", |_| async move {
            let mut transaction = self.begin().await?;
            let detached = transaction.detach(volume_id, id).await?;
            let mut statement = soft_delete("volume_admin_metadata", Vec::new());
            statement.and_where(is("volume_id", volume_id)).and_where(is("key", "attached_mode")).and_where(live());
            transaction.execute(&statement).await?;
            transaction.commit().await?;
            Ok(detached)
        })
        .await
    }
}

impl Tx {
    async fn detach(&mut self, volume_id: &VolumeId, id: &AttachmentId) -> Result<Detached> {
        let mut query = VolumeRow::select();
        query.and_where(is("id", volume_id)).and_where(live()).lock_exclusive();
        let Some(volume) = self.fetch_optional::<VolumeRow>(&query).await? else {
            return Err(Error::not_found("volume", volume_id));
        };
        let gone = vec![("attach_status", AttachStatus::Detached.value()), ("detach_time", Timestamp::now().value())];
        let mut statement = soft_delete("volume_attachment", gone);
        statement.and_where(is("id", id)).and_where(live());
        let found = self.execute(&statement).await? > 0;

        let mut query = AttachmentRow::select();
        query.and_where(is("volume_id", volume_id)).and_where(live());
        let rest = self.fetch_all::<AttachmentRow>(&query).await?;
        let (status, attach_status) = statuses(rest.into_iter().filter_map(|row| row.attach_status).map(Into::into));

        let migrating = volume.migration_status.as_deref().filter(|status| !status.is_empty());
        let hidden = attach_status == AttachStatus::Detached
            && (volume.status.as_deref() == Some("uploading") || migrating.is_some())
            && !matches!(migrating, Some("success" | "error"));
        let status = Some(status).filter(|_| !hidden);
        let mut values = vec![("attach_status", attach_status.value())];
        if let Some(status) = &status {
            values.push(("status", status.value()));
        }
        let mut statement = quiet_update("volumes", values, volume.updated_at);
        statement.and_where(is("id", volume_id));
        self.execute(&statement).await?;
        Ok(Detached { status, attach_status, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_attachment_decides() {
        use AttachStatus as A;
        for (attachments, status, attach_status) in [
            (vec![], VolumeStatus::Available, A::Detached),
            (vec![A::Attached, A::Attaching, A::Reserved], VolumeStatus::InUse, A::Attached),
            (vec![A::Reserved, A::Detaching], VolumeStatus::Detaching, A::Detaching),
            (vec![A::Reserved], VolumeStatus::Reserved, A::Reserved),
            (vec![A::ErrorAttaching, A::Detached], VolumeStatus::Available, A::Detached),
            (vec![A::ErrorDetaching], VolumeStatus::Available, A::Detached),
        ] {
            assert_eq!(statuses(attachments.clone().into_iter()), (status, attach_status), "{attachments:?}");
        }
    }
}
