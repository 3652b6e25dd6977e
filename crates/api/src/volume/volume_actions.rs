//! `POST /volumes/{id}/action` (`cinder/api/contrib/volume_actions.py`, `admin_actions.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use scoria_db::{Expect, SnapshotChange, Swap, VolumeChange};
use scoria_model::{AttachStatus, Fault, Metadata, ResourceType, SnapshotStatus, Volume, VolumeStatus};
use serde_json::{Value, json};

use super::FrontDoor;
use super::body::{Body, Fields, invalid};
use super::errors::{ApiError, ApiResult};
use super::lookup::IdPath;
use super::quota::Kind;
use super::request::Caller;
use super::snapshots::unknown_action;
use super::volume_connections::Attach;
use super::volume_delete::Extent;

/// Every action: its name is the body's only key.
pub(crate) async fn act(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult {
    let (action, arguments) = body.action()?;
    let id = path.id.as_str();
    match action {
        "os-extend" => {
            let fields = Fields::of_action(action, arguments)?.only(&["new_size"])?;
            fields.require("new_size")?;
            let size = fields.size("new_size")?.unwrap_or_default();
            let volume = door.volume(id).await?;
            door.extend_volume(&caller, volume, size).await?;
        }
        "os-reset_status" => {
            let reset = Reset::read(Fields::of_action(action, arguments)?)?;
            let volume = door.volume(id).await?;
            door.reset_volume(&volume, reset).await?;
        }
        "os-force_delete" => {
            let volume = door.volume(id).await?;
            door.delete_volume(&caller, volume, Extent { cascade: false, force: true }).await?;
        }
        "os-set_bootable" => {
            let bootable = flag(action, arguments, "bootable")?;
            let volume = door.volume(id).await?;
            if volume.status == VolumeStatus::Maintenance {
                return Err(Fault::invalid_volume("The volume cannot be updated during maintenance.").into());
            }
            let change = VolumeChange { bootable: Some(bootable), ..VolumeChange::default() };
            door.change_volume(&volume, &Expect::any(), &change).await?;
            return Ok(StatusCode::OK.into_response());
        }
        "os-update_readonly_flag" => {
            let readonly = flag(action, arguments, "readonly")?;
            let volume = door.volume(id).await?;
            door.set_readonly(&volume, readonly).await?;
        }
        "os-initialize_connection" => {
            let fields = Fields::of_action(action, arguments)?.only(&["connector"])?;
            let connector = fields.object("connector")?.map;
            let volume = door.volume(id).await?;
            let mut info = door.initialize_connection(&caller, &volume, connector).await?;
            if let Value::Object(info) = &mut info {
                let multipath = connector.get("enforce_multipath").cloned().unwrap_or(false.into());
                info.insert("enforce_multipath".to_owned(), multipath);
            }
            return Ok(Json(json!({"connection_info": info})).into_response());
        }
        "os-terminate_connection" => {
            let fields = Fields::of_action(action, arguments)?.only(&["connector"])?;
            fields.require("connector")?;
            let connector = fields.optional_object("connector")?;
            let volume = door.volume(id).await?;
            door.terminate_connection(&caller, &volume, connector).await?;
        }
        "os-attach" => {
            let attach = Attach::read(Fields::of_action(action, arguments)?)?;
            let volume = door.volume(id).await?;
            door.attach(&caller, &volume, attach).await?;
        }
        "os-detach" => {
            let attachment = match arguments {
                Value::Null => None,
                given => Fields::of_action(action, given)?.only(&["attachment_id"])?.uuid("attachment_id")?,
            };
            let volume = door.volume(id).await?;
            door.end_attachment(&caller, &volume, attachment.as_deref()).await?;
        }
        "os-reserve" | "os-unreserve" | "os-begin_detaching" | "os-roll_detaching" => {
            let volume = door.volume(id).await?;
            door.attach_action(&volume, action).await?;
        }
        "revert" if caller.version.has(40) => {
            let snapshot = Fields::of_action(action, arguments)?.text("snapshot_id")?;
            let volume = door.volume(id).await?;
            door.revert_volume(&caller, volume, snapshot).await?;
        }
        other => return Err(unknown_action(other)),
    }
    Ok(accepted())
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

fn flag(action: &str, arguments: &Value, key: &str) -> ApiResult<bool> {
    let fields = Fields::of_action(action, arguments)?.only(&[key])?;
    fields.require(key)?;
    Ok(fields.boolean(key)?.unwrap_or(false))
}

/// What `os-reset_status` is to write.
#[derive(Debug, Default, PartialEq)]
struct Reset {
    status: Option<VolumeStatus>,
    attach_status: Option<AttachStatus>,
    migration_status: Option<Option<String>>,
}

impl Reset {
    fn read(fields: Fields<'_>) -> ApiResult<Self> {
        let fields = fields.only(&["status", "attach_status", "migration_status"])?;
        let word = |key: &str, known: &[&str]| -> ApiResult<Option<String>> {
            let Some(text) = fields.text(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
            let word = text.to_lowercase();
            if known.contains(&word.as_str()) {
                return Ok(Some(word));
            }
            Err(invalid(key, &text.into(), format_args!("'{text}' is not one of: {}", known.join(", "))))
        };
        let migrations = ["migrating", "error", "success", "completing", "none", "starting"];
        let reset = Self {
            status: word("status", VolumeStatus::KNOWN)?.map(VolumeStatus::from),
            attach_status: word("attach_status", &["attached", "detached"])?.map(AttachStatus::from),
            migration_status: word("migration_status", &migrations)?
                .map(|word| Some(word).filter(|word| word != "none")),
        };
        if reset == Self::default() {
            return Err(ApiError::bad_request(
                "Must specify 'status', 'attach_status' or 'migration_status' for update.",
            ));
        }
        if let Some(status) = &reset.status
            && [VolumeStatus::Deleting, VolumeStatus::ErrorDeleting, VolumeStatus::Detaching].contains(status)
        {
            return Err(ApiError::bad_request(format!("Cannot reset-state to {status}")));
        }
        Ok(reset)
    }
}

impl FrontDoor {
    /// One compare-and-swap whose failure says only that the volume is gone.
    pub(crate) async fn change_volume(
        &self,
        volume: &Volume,
        expect: &Expect<'_>,
        change: &VolumeChange,
    ) -> ApiResult<bool> {
        match self.database.volume_update(&volume.id, expect, change).await? {
            Swap::Done => Ok(true),
            Swap::Gone => Err(Fault::volume_not_found(&volume.id).into()),
            Swap::Unexpected { .. } | Swap::Replaced => Ok(false),
        }
    }

    /// `cinder/volume/api.py: API._extend`; volumes in use since 3.42.
    async fn extend_volume(&self, caller: &Caller, volume: Volume, size: u64) -> ApiResult<()> {
        let attached = caller.version.has(42) && volume.status == VolumeStatus::InUse;
        let before = if attached { VolumeStatus::InUse } else { VolumeStatus::Available };
        let Some(more) = size.checked_sub(volume.size).filter(|more| *more > 0) else {
            let now = volume.size;
            return Err(Fault::invalid_input(format_args!(
                "New size for extend must be greater than current size. (current: {now}, extended: {size})."
            ))
            .into());
        };
        let change = VolumeChange {
            status: Some(VolumeStatus::Extending),
            previous_status: Some(Some(before.clone())),
            ..VolumeChange::default()
        };
        if !self.change_volume(&volume, &Expect::status(before.clone()), &change).await? {
            return Err(Fault::invalid_volume(format_args!(
                "Volume {} status must be '{{'status': '{before}'}}' to extend, currently {}.",
                volume.id, volume.status
            ))
            .into());
        }
        if let Err(error) = self.send_extend(caller, &volume, size, more).await {
            let back = VolumeChange::status(before);
            if !self.change_volume(&volume, &Expect::status(VolumeStatus::Extending), &back).await? {
                tracing::error!(volume = %volume.id, "could not be returned to its status before the extension");
            }
            return Err(error);
        }
        Ok(())
    }

    /// The reservation travels with the message: the volume service commits it.
    async fn send_extend(&self, caller: &Caller, volume: &Volume, size: u64, more: u64) -> ApiResult<()> {
        let project = volume.project_id.as_deref().unwrap_or(&caller.project);
        self.check_volume_size(project, size).await?;
        let of_type = volume.volume_type.as_ref();
        let reservation = self.reserve(project, Kind::Volume, &[("gigabytes", more)], of_type).await?;
        let sent = async {
            let now = self.volume(volume.id.as_str()).await?;
            let reservations: Vec<String> = reservation.ids.iter().map(ToString::to_string).collect();
            Ok::<_, ApiError>(self.rpc.extend_volume(&caller.context, &now, size, &reservations).await?)
        };
        if let Err(error) = sent.await {
            self.roll_back(reservation).await;
            return Err(error);
        }
        Ok(())
    }

    /// Back to the latest snapshot (`cinder/api/v3/volumes.py: VolumeController.revert`).
    async fn revert_volume(&self, caller: &Caller, volume: Volume, wanted: Option<&str>) -> ApiResult<()> {
        let snapshots = self.database.snapshots_of_volume(&volume.id).await?;
        let id = &volume.id;
        let Some(latest) = snapshots.into_iter().max_by_key(|snapshot| snapshot.created_at) else {
            return Err(ApiError::bad_request(format!("Volume {id} doesn't have any snapshots.")));
        };
        if wanted != Some(latest.id.as_str()) {
            let wanted = wanted.unwrap_or("None");
            return Err(ApiError::bad_request(format!(
                "Specified snapshot {wanted} is None or not the latest one of volume {id}."
            )));
        }
        if volume.size != latest.volume_size {
            return Err(ApiError::bad_request(format!(
                "Can't revert volume {id} to its latest snapshot {}. The volume size must be equal to the snapshot size.",
                latest.id
            )));
        }
        let refused = |what: &str| {
            let message = format!(
                "Can't revert volume {id} to its latest snapshot {}. {what}'s status must be 'available'.",
                latest.id
            );
            ApiError::new(StatusCode::CONFLICT, message)
        };
        let (available, reverting) = (VolumeStatus::Available, VolumeStatus::Reverting);
        let begin = VolumeChange::status(reverting.clone());
        if !self.change_volume(&volume, &Expect::status(available.clone()), &begin).await? {
            return Err(refused("Volume"));
        }
        let sent = async {
            let begin = SnapshotChange { status: Some(SnapshotStatus::Restoring), ..SnapshotChange::default() };
            let expect = Expect::status(SnapshotStatus::Available);
            if !self.database.snapshot_update(&latest.id, &expect, &begin).await?.is_done() {
                return Err(refused("Snapshot"));
            }
            let now = (self.volume(id.as_str()).await?, self.snapshot(latest.id.as_str()).await?);
            if let Err(error) = self.rpc.revert_to_snapshot(&caller.context, &now.0, &now.1).await {
                let back = SnapshotChange { status: Some(SnapshotStatus::Available), ..SnapshotChange::default() };
                self.database.snapshot_update(&latest.id, &Expect::status(SnapshotStatus::Restoring), &back).await?;
                return Err(error.into());
            }
            Ok(())
        };
        if let Err(error) = sent.await {
            self.change_volume(&volume, &Expect::status(reverting), &VolumeChange::status(available)).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn reset_volume(&self, volume: &Volume, reset: Reset) -> ApiResult<()> {
        if reset.status == Some(VolumeStatus::InUse) && self.attachments_of(volume).await?.is_empty() {
            return Err(ApiError::bad_request(
                "Cannot reset-state to in-use because volume does not have any attachments.",
            ));
        }
        let detached = reset.attach_status == Some(AttachStatus::Detached);
        let change = VolumeChange {
            status: reset.status,
            attach_status: reset.attach_status,
            migration_status: reset.migration_status,
            ..VolumeChange::default()
        };
        self.change_volume(volume, &Expect::any(), &change).await?;
        // Whoever was at work on it has been overruled.
        if let Some(worker) = self.database.worker_get(ResourceType::Volume, volume.id.as_str()).await? {
            self.database.worker_remove(&worker).await?;
        }
        if detached {
            for attachment in self.attachments_of(volume).await? {
                self.detach(volume, &attachment.id).await?;
            }
        }
        Ok(())
    }

    async fn set_readonly(&self, volume: &Volume, readonly: bool) -> ApiResult<()> {
        let text = if readonly { "True" } else { "False" };
        let change = VolumeChange {
            admin_metadata: Some(Metadata::from([("readonly".to_owned(), text.to_owned())])),
            ..VolumeChange::default()
        };
        if !self.change_volume(volume, &Expect::status(VolumeStatus::Available), &change).await? {
            return Err(Fault::invalid_volume(format_args!(
                "Volume {} status must be available to update readonly flag, but current status is: {}.",
                volume.id, volume.status
            ))
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(value: Value) -> Result<Reset, String> {
        Reset::read(Fields::of_action("os-reset_status", &value)?).map_err(|error| error.message)
    }

    impl From<ApiError> for String {
        fn from(error: ApiError) -> Self {
            error.message
        }
    }

    #[test]
    fn a_reset_names_known_words_and_at_least_one() {
        let wanted = reset(json!({"status": "Error", "migration_status": "none"})).unwrap();
        assert_eq!((wanted.status, wanted.migration_status), (Some(VolumeStatus::Error), Some(None)));
        for bad in [json!({}), json!({"status": null}), json!({"status": "odd"}), json!({"attach_status": "attaching"})]
        {
            assert!(reset(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(reset(json!({"status": "deleting"})), Err("Cannot reset-state to deleting".to_owned()));
    }
}
