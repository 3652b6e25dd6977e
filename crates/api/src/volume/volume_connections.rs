//! The older way to connect: reserve, initialize the connection, and back (`cinder/volume/api.py`). Its `os-attach` and
//! `os-detach` are not here: attachments are made and ended at `/attachments`.

use scoria_db::{Expect, VolumeChange};
use scoria_model::{AttachStatus, Fault, FaultClass, Volume, VolumeStatus};
use serde_json::{Map, Value};

use super::FrontDoor;
use super::errors::{ApiError, ApiResult};
use super::request::Caller;

impl FrontDoor {
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
