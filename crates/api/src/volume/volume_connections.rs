//! The older way to attach: reserve, initialize the connection, attach, and back (`cinder/volume/api.py`).

use scoria_db::{Expect, VolumeChange};
use scoria_model::{AttachStatus, Fault, FaultClass, Metadata, Volume, VolumeStatus};
use serde_json::{Map, Value};

use super::FrontDoor;
use super::body::Fields;
use super::errors::{ApiError, ApiResult};
use super::request::Caller;

impl FrontDoor {
    /// The actions that change how a volume is attached and answer nothing.
    pub(crate) async fn attach_action(
        &self,
        caller: &Caller,
        volume: &Volume,
        action: &str,
        arguments: &Value,
    ) -> ApiResult<()> {
        match action {
            "os-reserve" => self.reserve_volume(volume).await,
            "os-unreserve" => self.unreserve_volume(volume).await,
            "os-begin_detaching" => self.begin_detaching(volume).await,
            "os-roll_detaching" => {
                let expect = Expect::status(VolumeStatus::Detaching);
                self.change_volume(volume, &expect, &VolumeChange::status(VolumeStatus::InUse)).await?;
                Ok(())
            }
            "os-attach" => self.attach(caller, volume, Fields::of_action(action, arguments)?).await,
            _ => self.detach_by_action(caller, volume, action, arguments).await,
        }
    }

    /// Asks the volume service how a server reaches the volume.
    pub(crate) async fn initialize_connection(
        &self,
        caller: &Caller,
        volume: &Volume,
        connector: &Map<String, Value>,
    ) -> ApiResult<Value> {
        not_in_maintenance(volume, "The volume connection cannot be initialized in maintenance mode.")?;
        let answer = self.rpc.initialize_connection(&caller.context, volume, connector).await;
        answer.map_err(|error| told(error, "Unable to fetch connection information from backend."))
    }

    /// Tells the volume service that a server needs the volume no longer.
    pub(crate) async fn terminate_connection(
        &self,
        caller: &Caller,
        volume: &Volume,
        connector: Option<&Map<String, Value>>,
    ) -> ApiResult<()> {
        let answer = self.rpc.terminate_connection(&caller.context, volume, connector, false).await;
        answer.map_err(|error| told(error, "Unable to terminate volume connection from backend."))?;
        self.unreserve_volume(volume).await
    }

    async fn reserve_volume(&self, volume: &Volume) -> ApiResult<()> {
        let expected = match volume.multiattach {
            true => vec![VolumeStatus::Available, VolumeStatus::InUse],
            false => vec![VolumeStatus::Available],
        };
        let words = super::lookup::or(&expected);
        let expect = Expect { status: expected, worker: None };
        if self.change_volume(volume, &expect, &VolumeChange::status(VolumeStatus::Attaching)).await? {
            return Ok(());
        }
        Err(Fault::invalid_volume(format_args!(
            "Volume status must be {words} to reserve, but the status is {}.",
            volume.status
        ))
        .into())
    }

    /// What was not reserved is left as it is.
    async fn unreserve_volume(&self, volume: &Volume) -> ApiResult<()> {
        let status = match self.attachments_of(volume).await?.is_empty() {
            true => VolumeStatus::Available,
            false => VolumeStatus::InUse,
        };
        let expect = Expect::status(VolumeStatus::Attaching);
        self.change_volume(volume, &expect, &VolumeChange::status(status)).await?;
        Ok(())
    }

    async fn begin_detaching(&self, volume: &Volume) -> ApiResult<()> {
        let expect = Expect::status(VolumeStatus::InUse);
        let change = VolumeChange::status(VolumeStatus::Detaching);
        if volume.attach_status == AttachStatus::Attached && self.change_volume(volume, &expect, &change).await? {
            return Ok(());
        }
        let reason =
            "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach.";
        Err(Fault::invalid_volume(reason).into())
    }

    async fn attach(&self, caller: &Caller, volume: &Volume, fields: Fields<'_>) -> ApiResult<()> {
        let fields = fields.only(&["instance_uuid", "host_name", "mountpoint", "mode"])?;
        fields.require("mountpoint")?;
        let instance = fields.uuid("instance_uuid")?;
        let host = fields.text("host_name")?;
        if instance.is_none() && host.is_none() {
            return Err(ApiError::bad_request("'instance_uuid' or 'host_name' is a required property"));
        }
        let mountpoint = fields.text("mountpoint")?.unwrap_or_default();
        let mode = fields.word("mode", &["rw", "ro"])?.unwrap_or("rw");
        not_in_maintenance(volume, "The volume cannot be attached in maintenance mode.")?;

        let readonly = volume.admin_metadata.get("readonly").map(String::as_str);
        if readonly == Some("True") && mode != "ro" {
            let message = format!("Invalid attaching mode '{mode}' for volume {}.", volume.id);
            return Err(Fault::new(FaultClass::InvalidVolumeAttachMode, message).into());
        }
        if readonly.is_none() {
            let readonly = Metadata::from([("readonly".to_owned(), "False".to_owned())]);
            let change = VolumeChange { admin_metadata: Some(readonly), ..VolumeChange::default() };
            self.change_volume(volume, &Expect::any(), &change).await?;
        }
        self.rpc.attach_volume(&caller.context, volume, instance.as_deref(), host, mountpoint, mode).await?;
        Ok(())
    }

    async fn detach_by_action(
        &self,
        caller: &Caller,
        volume: &Volume,
        action: &str,
        arguments: &Value,
    ) -> ApiResult<()> {
        let none = Map::new();
        let fields = match arguments {
            Value::Null => Fields(&none),
            given => Fields::of_action(action, given)?.only(&["attachment_id", "connector"])?,
        };
        let attachment = fields.uuid("attachment_id")?;
        let connector = fields.optional_object("connector")?;
        if action == "os-force_detach" {
            self.terminate_connection(caller, volume, connector).await?;
        }
        not_in_maintenance(volume, "The volume cannot be detached in maintenance mode.")?;
        Ok(self.rpc.detach_volume(&caller.context, volume, attachment.as_deref()).await?)
    }
}

fn not_in_maintenance(volume: &Volume, reason: &str) -> ApiResult<()> {
    match volume.status {
        VolumeStatus::Maintenance => Err(Fault::invalid_volume(reason).into()),
        _ => Ok(()),
    }
}

/// Cinder tells the caller that the back end failed, not how.
fn told(error: scoria_rpc::Error, message: &str) -> ApiError {
    match error {
        scoria_rpc::Error::Remote(fault) if fault.class == FaultClass::VolumeBackendAPIException => {
            tracing::error!(%fault, "the volume service failed");
            ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        other => other.into(),
    }
}
