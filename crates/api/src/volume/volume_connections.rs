//! The older way to connect: reserve, initialize the connection, attach, and back (`cinder/volume/api.py`).

use scoria_db::{Expect, VolumeChange};
use scoria_model::{AttachStatus, Fault, FaultClass, Metadata, Volume, VolumeStatus};
use serde_json::{Map, Value};

use super::FrontDoor;
use super::body::{Fields, invalid};
use super::errors::{ApiError, ApiResult};
use super::request::Caller;

/// Admin metadata that says whether a volume may be written to.
const READONLY: &str = "readonly";

/// What `os-attach` asks for.
#[derive(Debug)]
pub(crate) struct Attach<'a> {
    instance: Option<String>,
    host: Option<&'a str>,
    mountpoint: &'a str,
    mode: &'a str,
}

impl<'a> Attach<'a> {
    /// `cinder/api/schemas/volume_actions.py: attach`.
    pub(crate) fn read(fields: Fields<'a>) -> ApiResult<Self> {
        let fields = fields.only(&["instance_uuid", "host_name", "mountpoint", "mode"])?;
        let mountpoint = fields.require("mountpoint")?;
        if !fields.contains("instance_uuid") && !fields.contains("host_name") {
            return Err(fields.complain("{} is not valid under any of the given schemas"));
        }
        Ok(Self {
            instance: fields.uuid("instance_uuid")?,
            host: fields.text("host_name")?,
            mountpoint: match fields.text("mountpoint")? {
                Some(path) if !path.is_empty() => path,
                _ => return Err(invalid("mountpoint", mountpoint, "'' is too short")),
            },
            mode: fields.word("mode", &["rw", "ro"])?.unwrap_or("rw"),
        })
    }
}

impl FrontDoor {
    /// `API.attach`: asks the volume service to note who has the volume.
    pub(crate) async fn attach(&self, caller: &Caller, volume: &Volume, attach: Attach<'_>) -> ApiResult<()> {
        not_in_maintenance(volume, "The volume cannot be attached in maintenance mode.")?;
        if !volume.admin_metadata.contains_key(READONLY) {
            let readonly = Metadata::from([(READONLY.to_owned(), "False".to_owned())]);
            self.database.volume_admin_metadata_update(&volume.id, &readonly, false).await?;
        }
        if volume.admin_metadata.get(READONLY).is_some_and(|readonly| readonly == "True") && attach.mode != "ro" {
            return Err(Fault::new(
                FaultClass::InvalidVolumeAttachMode,
                format!("Invalid attaching mode '{}' for volume {}.", attach.mode, volume.id),
            )
            .into());
        }
        let Attach { instance, host, mountpoint, mode } = attach;
        let attached =
            self.rpc.attach_volume(&caller.context, volume, instance.as_deref(), host, mountpoint, mode).await?;
        tracing::debug!(volume = %volume.id, attachment = %attached["versioned_object.data"]["id"], "attached");
        Ok(())
    }

    /// `API.detach`: the end of an attachment.
    pub(crate) async fn end_attachment(
        &self,
        caller: &Caller,
        volume: &Volume,
        attachment: Option<&str>,
    ) -> ApiResult<()> {
        not_in_maintenance(volume, "The volume cannot be detached in maintenance mode.")?;
        Ok(self.rpc.detach_volume(&caller.context, volume, attachment).await?)
    }

    /// The actions that change how a volume is attached and answer nothing.
    pub(crate) async fn attach_action(&self, volume: &Volume, action: &str) -> ApiResult<()> {
        match action {
            "os-reserve" => self.reserve_volume(volume).await,
            "os-unreserve" => self.unreserve_volume(volume).await,
            "os-begin_detaching" => self.begin_detaching(volume).await,
            _ => {
                let expect = Expect::status(VolumeStatus::Detaching);
                self.change_volume(volume, &expect, &VolumeChange::status(VolumeStatus::InUse)).await?;
                Ok(())
            }
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
