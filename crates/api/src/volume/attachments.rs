//! Attachments, since 3.27 (`cinder/api/v3/attachments.py`, `cinder/volume/api.py: API.attachment_*`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use scoria_coordination::{LockRequest, Owner};
use scoria_db::{AttachmentChange, AttachmentFilter, Expect, VolumeChange, VolumeFilter};
use scoria_model::{AttachStatus, Attachment, AttachmentId, Fault, FaultClass, Volume, VolumeStatus};
use serde_json::{Map, Value, json};

use super::FrontDoor;
use super::body::Body;
use super::errors::{ApiError, ApiResult};
use super::lookup::{IdPath, or};
use super::request::Caller;
use super::snapshots::unknown_action;
use super::{views, volume_filter};

/// Mode of an attachment whose creator named none: the connector may still name one.
const NO_MODE: &str = "null";

type Connector = Map<String, Value>;

/// `GET /attachments`.
pub(crate) async fn list(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_attachments(&caller).await?;
    Ok(Json(json!({"attachments": found.iter().map(views::attachment_summary).collect::<Vec<_>>()})))
}

/// `GET /attachments/detail`.
pub(crate) async fn list_detailed(State(door): State<Arc<FrontDoor>>, caller: Caller) -> ApiResult<Json<Value>> {
    let found = door.find_attachments(&caller).await?;
    Ok(Json(json!({"attachments": found.iter().map(views::attachment_detail).collect::<Vec<_>>()})))
}

/// `GET /attachments/{id}`.
pub(crate) async fn show(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    caller.version.require(27)?;
    let mut attachment = door.attachment(&path.id).await?;
    let volume = door.volume(attachment.volume_id.as_str()).await?;
    if let Some(format) = volume.admin_metadata.get("format") {
        let info = attachment.connection_info.get_or_insert_default();
        info.insert("format".to_owned(), format.clone().into());
    }
    Ok(answer(&attachment))
}

/// `POST /attachments`: reserves the volume, and with a connector connects it too.
pub(crate) async fn create(State(door): State<Arc<FrontDoor>>, caller: Caller, body: Body) -> ApiResult<Json<Value>> {
    caller.version.require(27)?;
    let mut known = vec!["instance_uuid", "connector", "volume_uuid"];
    if caller.version.has(54) {
        known.push("mode");
    }
    let fields = body.object("attachment", &[])?.only(&known)?;
    fields.require("volume_uuid")?;
    let id = fields.uuid("volume_uuid")?.unwrap_or_default();
    let instance = fields.uuid("instance_uuid")?;
    let connector = fields.optional_object("connector")?.filter(|connector| !connector.is_empty());
    let mode = fields.word("mode", &["rw", "ro"])?.unwrap_or(NO_MODE);

    let volume = door.volume(&id).await?;
    if volume.status.as_str().contains("error") {
        return Err(Fault::invalid_volume(format_args!(
            "Volume attachments can not be created if the volume is in an error state. The Volume {} currently has a \
             status of: {} ",
            volume.id, volume.status
        ))
        .into());
    }
    let attachment = door.reserve_attachment(&volume, instance, mode).await?;
    if let Some(connector) = connector {
        let what = "create attachment for volume";
        door.connect(&caller, &volume, &attachment.id, connector).await.map_err(|error| told(error, what))?;
    }
    Ok(answer(&door.attachment(attachment.id.as_str()).await?))
}

/// `PUT /attachments/{id}`: connects a reserved attachment.
pub(crate) async fn update(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult<Json<Value>> {
    caller.version.require(27)?;
    let fields = body.object("attachment", &[])?.only(&["connector"])?;
    let connector = fields.object("connector")?;
    connector.require("host")?;
    let attachment = door.attachment(&path.id).await?;
    door.update_attachment(&caller, &attachment, connector.map).await?;
    Ok(answer(&door.attachment(&path.id).await?))
}

/// `DELETE /attachments/{id}`: disconnects; the answer is what is left.
pub(crate) async fn delete(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
) -> ApiResult<Json<Value>> {
    caller.version.require(27)?;
    let attachment = door.attachment(&path.id).await?;
    let volume = door.volume(attachment.volume_id.as_str()).await?;
    if attachment.attach_status != AttachStatus::Reserved {
        door.rpc.attachment_delete(&caller.context, &volume, &attachment.id).await?;
    }
    door.detach(&volume, &attachment.id).await?;
    let left = door.attachments_of(&volume).await?;
    Ok(Json(json!({"attachments": left.iter().map(views::attachment_summary).collect::<Vec<_>>()})))
}

/// `POST /attachments/{id}/action` with `os-complete` (since 3.44): the server has the volume now.
pub(crate) async fn act(
    State(door): State<Arc<FrontDoor>>,
    caller: Caller,
    Path(path): Path<IdPath>,
    body: Body,
) -> ApiResult {
    caller.version.require(44)?;
    let (action, _) = body.action()?;
    if action != "os-complete" {
        return Err(unknown_action(action));
    }
    let attachment = door.attachment(&path.id).await?;
    let volume = door.volume(attachment.volume_id.as_str()).await?;
    let attached = AttachmentChange { attach_status: Some(AttachStatus::Attached), ..AttachmentChange::default() };
    door.database.attachment_update(&attachment.id, &attached).await?;
    let change = VolumeChange {
        status: Some(VolumeStatus::InUse),
        attach_status: Some(AttachStatus::Attached),
        ..VolumeChange::default()
    };
    door.change_volume(&volume, &Expect::any(), &change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn answer(attachment: &Attachment) -> Json<Value> {
    Json(json!({"attachment": views::attachment_detail(attachment)}))
}

impl FrontDoor {
    /// The live attachments of a volume.
    pub(crate) async fn attachments_of(&self, volume: &Volume) -> ApiResult<Vec<Attachment>> {
        let filter = AttachmentFilter { volume_id: Some(volume.id.clone()), ..AttachmentFilter::default() };
        Ok(self.database.attachments(&filter).await?)
    }

    async fn find_attachments(&self, caller: &Caller) -> ApiResult<Vec<Attachment>> {
        caller.version.require(27)?;
        let mut query = caller.query();
        let page = query.take_page(self.page_limit)?;
        let project = volume_filter::project(caller, &mut query)?;
        let status = query.take("status").or_else(|| query.take("attach_status"));
        let filter = AttachmentFilter {
            volume_id: query.take("volume_id").map(|id| id.parse()).transpose()?,
            instance_uuid: query.take("instance_id"),
            status: status.map(AttachStatus::from).into_iter().collect(),
            ..AttachmentFilter::default()
        };
        query.done()?;
        let mut found = self.database.attachments(&filter).await?;
        if let Some(project) = project {
            // An attachment has no project of its own: it is its volume's.
            let of_project =
                VolumeFilter { project_id: Some(project), attached: Some(true), ..VolumeFilter::default() };
            let volumes = self.database.volumes(&of_project).await?;
            found.retain(|attachment| volumes.iter().any(|volume| volume.id == attachment.volume_id));
        }
        match page.sort.first().map(|(key, descending)| (key.as_str(), *descending)) {
            None | Some(("created_at", true)) => found.reverse(),
            Some(("created_at", false)) => {}
            Some(_) => return Err(Fault::invalid_input("Invalid sort key").into()),
        }
        page.cut(found, |attachment| attachment.id.as_str())
    }

    /// Reserves the volume and writes the attachment's row (`_attachment_reserve`).
    async fn reserve_attachment(&self, volume: &Volume, instance: Option<String>, mode: &str) -> ApiResult<Attachment> {
        let mut expected = vec![VolumeStatus::Available, VolumeStatus::Downloading];
        if volume.multiattach {
            expected.insert(1, VolumeStatus::InUse);
        }
        let words = or(&expected);
        let expect = Expect { status: expected, worker: None };
        let reserved = self.change_volume(volume, &expect, &VolumeChange::status(VolumeStatus::Reserved)).await?;
        if !reserved && !self.moves_to_another_host(volume, instance.as_deref()).await? {
            return Err(Fault::invalid_volume(format_args!(
                "Volume {} status must be {words} to reserve, but the current status is {}.",
                volume.id, volume.status
            ))
            .into());
        }
        let mut attachment = Attachment::new(AttachmentId::random(), volume.id.clone());
        attachment.instance_uuid = instance;
        let readonly = volume.admin_metadata.get("readonly").is_some_and(|readonly| readonly == "True");
        attachment.attach_mode = Some(if readonly { "ro" } else { mode }.to_owned());
        Ok(self.database.attachment_create(&attachment).await?)
    }

    /// A server that has the volume already may reserve it again: it is moving to another host.
    async fn moves_to_another_host(&self, volume: &Volume, instance: Option<&str>) -> ApiResult<bool> {
        let Some(instance) = instance else { return Ok(false) };
        if ![VolumeStatus::InUse, VolumeStatus::Reserved].contains(&volume.status) {
            return Ok(false);
        }
        let attachments = self.attachments_of(volume).await?;
        Ok(attachments.iter().any(|attachment| attachment.instance_uuid.as_deref() == Some(instance)))
    }

    /// Cinder's lock keeps two updates for one volume and host from both finding no connection.
    async fn update_attachment(
        &self,
        caller: &Caller,
        attachment: &Attachment,
        connector: &Connector,
    ) -> ApiResult<()> {
        let host = connector.get("host").and_then(Value::as_str).unwrap_or_default();
        let owner = Owner {
            operation: "attachment_update".to_owned(),
            request_id: caller.context.request_id.clone(),
            resource: Some(attachment.id.to_string()),
        };
        let name = format!("attachment_update-{}-{host}", attachment.volume_id);
        let lock = self.coordinator.acquire(LockRequest::new(owner).exclusive(name)).await?;
        let outcome = self.update_locked(caller, attachment, connector).await;
        if let Err(error) = lock.release().await {
            tracing::warn!(%error, "the lock around an attachment's update was lost");
        }
        outcome
    }

    async fn update_locked(&self, caller: &Caller, attachment: &Attachment, connector: &Connector) -> ApiResult<()> {
        let volume = self.volume(attachment.volume_id.as_str()).await?;
        if volume.status.as_str().contains("error") {
            return Err(ApiError::conflict(format_args!(
                "Volume attachments can not be updated if the volume is in an error state. The Volume {} currently has a \
                 status of: {} ",
                volume.id, volume.status
            )));
        }
        let attachments = self.attachments_of(&volume).await?;
        let connected = |one: &Attachment| one.connection_info.as_ref().is_some_and(|info| !info.is_empty());
        if attachments.len() > 1 && !volume.multiattach && attachments.iter().any(connected) {
            return Err(ApiError::conflict(format_args!("duplicate connectors detected on volume {}", volume.id)));
        }
        let what = "update attachment";
        self.connect(caller, &volume, &attachment.id, connector).await.map_err(|error| told(error, what))
    }

    /// Asks the volume service for the connection and keeps its answer.
    async fn connect(
        &self,
        caller: &Caller,
        volume: &Volume,
        attachment: &AttachmentId,
        connector: &Connector,
    ) -> Result<(), ConnectError> {
        let info = self.rpc.attachment_update(&caller.context, volume, connector, attachment).await?;
        let Value::Object(info) = info else { return Err(ApiError::hidden("connection info is no object").into()) };
        let change = AttachmentChange { connection_info: Some(Some(info.into())), ..AttachmentChange::default() };
        self.database.attachment_update(attachment, &change).await.map_err(ApiError::from)?;
        Ok(())
    }

    /// Ends an attachment; the volume's status follows from those that are left (`Volume.finish_detach`).
    pub(crate) async fn detach(&self, volume: &Volume, attachment: &AttachmentId) -> ApiResult<()> {
        self.database.finish_detach(&volume.id, attachment).await?;
        Ok(())
    }
}

/// Why a connection could not be had.
#[derive(Debug)]
enum ConnectError {
    Service(scoria_rpc::Error),
    Here(ApiError),
}

impl From<scoria_rpc::Error> for ConnectError {
    fn from(error: scoria_rpc::Error) -> Self {
        Self::Service(error)
    }
}

impl From<ApiError> for ConnectError {
    fn from(error: ApiError) -> Self {
        Self::Here(error)
    }
}

/// What is wrong with the request is told as it is; what the back end says, inside Cinder's sentence.
fn told(error: ConnectError, what: &str) -> ApiError {
    match error {
        ConnectError::Here(error) => error,
        ConnectError::Service(scoria_rpc::Error::Remote(fault))
            if fault.class.code() == 500 && fault.class != FaultClass::TypeError =>
        {
            tracing::error!(%fault, "the volume service failed to {what}");
            let message = format!("Unable to {what} ({}).", fault.message);
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        ConnectError::Service(other) => other.into(),
    }
}
