//! Creating volumes: blank, from a snapshot, from another volume (`cinder/volume/flows/api/create_volume.py`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use scoria_db::{Expect, VolumeChange};
use scoria_model::object::RequestSpec;
use scoria_model::{
    Fault, FaultClass, Metadata, ResourceType, Snapshot, SnapshotStatus, Timestamp, Volume, VolumeId, VolumeStatus,
    VolumeType,
};
use serde_json::json;

use super::FrontDoor;
use super::body::{Body, Fields};
use super::errors::{ApiError, ApiResult};
use super::microversion::Microversion;
use super::quota::Kind;
use super::request::Caller;
use super::views;

/// What the caller wants.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    name: Option<String>,
    description: Option<String>,
    volume_type: Option<String>,
    metadata: Metadata,
    snapshot: Option<String>,
    source: Option<String>,
    size: Option<u64>,
    zone: Option<String>,
}

/// What it is made of, looked up and checked.
#[derive(Debug, Default)]
struct Origin {
    snapshot: Option<Snapshot>,
    /// The volume to clone, or the snapshot's volume.
    volume: Option<Volume>,
}

/// `POST /volumes`.
pub(crate) async fn create(State(door): State<Arc<FrontDoor>>, caller: Caller, body: Body) -> ApiResult {
    let wish = Wish::read(&body, caller.version)?;
    let volume = door.create_volume(&caller, wish).await?;
    let view = views::volume_detail(&volume, &caller.links, caller.version);
    Ok((StatusCode::ACCEPTED, Json(json!({"volume": view}))).into_response())
}

impl Wish {
    fn read(body: &Body, version: Microversion) -> ApiResult<Self> {
        let fields = body.object("volume", &["OS-SCH-HNT:scheduler_hints"])?;
        if version.has(53) {
            fields.only(&[
                "name",
                "description",
                "display_name",
                "display_description",
                "volume_type",
                "metadata",
                "snapshot_id",
                "source_volid",
                "consistencygroup_id",
                "size",
                "availability_zone",
                "multiattach",
                "image_id",
                "imageRef",
                "group_id",
                "backup_id",
            ])?;
        }
        let wish = Self {
            name: fields.label("name", "display_name")?.flatten(),
            description: fields.label("description", "display_description")?.flatten(),
            volume_type: fields.text("volume_type")?.filter(|text| !text.is_empty()).map(str::to_owned),
            metadata: fields.metadata("metadata")?.unwrap_or_default(),
            snapshot: fields.uuid("snapshot_id")?,
            source: fields.uuid("source_volid")?,
            size: fields.size("size")?,
            zone: fields.text("availability_zone")?.map(str::to_owned),
        };
        refuse_what_is_not_here(fields)?;
        if wish.snapshot.is_some() && wish.source.is_some() {
            let message = "May specify only one of snapshot, imageRef, source volume, backup";
            return Err(Fault::invalid_input(message).into());
        }
        Ok(wish)
    }
}

/// Images, backups and groups belong to services that stand-alone mode does not have.
fn refuse_what_is_not_here(fields: Fields<'_>) -> ApiResult<()> {
    if fields.text("imageRef")?.is_some() || fields.text("image_id")?.is_some() {
        return Err(ApiError::bad_request("Invalid image identifier or unable to access requested image."));
    }
    if let Some(id) = fields.uuid("backup_id")? {
        return Err(Fault::new(FaultClass::NotFound, format!("Backup {id} could not be found.")).into());
    }
    for key in ["group_id", "consistencygroup_id"] {
        if let Some(id) = fields.text(key)? {
            return Err(Fault::new(FaultClass::NotFound, format!("Group {id} could not be found.")).into());
        }
    }
    if fields.boolean("multiattach")?.unwrap_or(false) {
        return Err(ApiError::bad_request(
            "multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. \
             Contact your administrator to create a multiattach enabled volume type and use it to create multiattach \
             volumes.",
        ));
    }
    Ok(())
}

impl FrontDoor {
    async fn create_volume(&self, caller: &Caller, wish: Wish) -> ApiResult<Volume> {
        let wanted_type = match &wish.volume_type {
            Some(name) => Some(self.volume_type_by_any(name).await?),
            None => None,
        };
        let origin = self.origin(&wish).await?;
        let size = size(&wish, &origin)?;
        let volume_type = self.type_for(wanted_type, &origin).await?;
        let zone = self.zone_for(&wish, &origin)?;

        self.check_volume_size(&caller.project, size).await?;
        let resources = [("volumes", 1), ("gigabytes", size)];
        let reservation = self.reserve(&caller.project, Kind::Volume, &resources, Some(&volume_type)).await?;
        let volume = match self.database.volume_create(&self.row(caller, wish, &origin, size, volume_type, zone)).await
        {
            Ok(volume) => volume,
            Err(error) => {
                self.roll_back(reservation).await;
                return Err(error.into());
            }
        };
        self.commit(reservation).await?;
        self.send_create(caller, &volume).await?;
        Ok(volume)
    }

    /// The worker row stands before the message goes: if the message is lost, whoever sweeps finds the work.
    async fn send_create(&self, caller: &Caller, volume: &Volume) -> ApiResult<()> {
        let sent = async {
            self.worker_for_volume(volume).await?;
            Ok::<_, ApiError>(
                self.rpc.create_volume(&caller.context, volume, Some(&RequestSpec::for_volume(volume)), false).await?,
            )
        };
        let Err(error) = sent.await else { return Ok(()) };
        if self.forget_work(ResourceType::Volume, volume.id.as_str()).await? {
            let expect = Expect::status(VolumeStatus::Creating);
            let failed = VolumeChange::status(VolumeStatus::Error);
            self.database.volume_update(&volume.id, &expect, &failed).await?;
        }
        Err(error)
    }

    async fn origin(&self, wish: &Wish) -> ApiResult<Origin> {
        let mut origin = Origin::default();
        if let Some(id) = &wish.snapshot {
            let snapshot = self.snapshot(id).await?;
            if snapshot.status != SnapshotStatus::Available {
                let reason = "Originating snapshot status must be one of 'available' values";
                return Err(Fault::invalid_snapshot(reason).into());
            }
            origin.volume = Some(self.volume(snapshot.volume_id.as_str()).await?);
            origin.snapshot = Some(snapshot);
        }
        if let Some(id) = &wish.source {
            let volume = self.volume(id).await?;
            if ![VolumeStatus::Available, VolumeStatus::InUse].contains(&volume.status) {
                let reason = "Originating source volume status must be one of 'available, in-use' values";
                return Err(Fault::invalid_volume(reason).into());
            }
            origin.volume = Some(volume);
        }
        Ok(origin)
    }

    /// The wanted type, else the origin's, else the default one. A type other than the origin's would need a retype.
    async fn type_for(&self, wanted: Option<VolumeType>, origin: &Origin) -> ApiResult<VolumeType> {
        let of_origin = match (&origin.snapshot, &origin.volume) {
            (Some(snapshot), _) => snapshot.volume_type_id.as_ref(),
            (None, Some(volume)) => volume.volume_type_id.as_ref(),
            (None, None) => None,
        };
        match (wanted, of_origin) {
            (Some(wanted), Some(of_origin)) if wanted.id != *of_origin => {
                let advice = match origin.snapshot {
                    Some(_) => "recommend omitting the type argument",
                    None => "either match source volume, or omit type argument",
                };
                let id = wanted.id;
                Err(Fault::invalid_input(format_args!(
                    "Invalid volume_type provided: {id} (requested type is not compatible; {advice})."
                ))
                .into())
            }
            (Some(wanted), _) => Ok(wanted),
            (None, Some(id)) => self.volume_type(id.as_str()).await,
            (None, None) => self.volume_type_by_any(&self.default_volume_type).await,
        }
    }

    fn zone_for(&self, wish: &Wish, origin: &Origin) -> ApiResult<String> {
        let of_origin = origin.volume.as_ref().and_then(|volume| volume.availability_zone.clone());
        let zone = wish.zone.clone().or(of_origin).unwrap_or_else(|| self.availability_zone.clone());
        if zone == self.availability_zone {
            return Ok(zone);
        }
        Err(Fault::new(FaultClass::Invalid, format!("Availability zone '{zone}' is invalid.")).into())
    }

    fn row(
        &self,
        caller: &Caller,
        wish: Wish,
        origin: &Origin,
        size: u64,
        volume_type: VolumeType,
        zone: String,
    ) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        volume.user_id = caller.context.user_id.clone();
        volume.project_id = Some(caller.project.clone());
        volume.display_name = wish.name;
        volume.display_description = wish.description;
        volume.metadata = wish.metadata;
        volume.snapshot_id = origin.snapshot.as_ref().map(|snapshot| snapshot.id.clone());
        volume.source_volid = match origin.snapshot {
            Some(_) => None,
            None => origin.volume.as_ref().map(|source| source.id.clone()),
        };
        volume.bootable = origin.volume.as_ref().is_some_and(|source| source.bootable);
        volume.multiattach = volume_type.extra_specs.get("multiattach").is_some_and(|spec| spec == "<is> True");
        volume.volume_type_id = Some(volume_type.id.clone());
        volume.volume_type = Some(volume_type);
        volume.availability_zone = Some(zone);
        // There is one back end and no scheduler: its choice is made here.
        volume.host = Some(self.host.to_string());
        volume.cluster_name = self.cluster.as_ref().map(ToString::to_string);
        volume.scheduled_at = Some(Timestamp::now());
        volume
    }
}

/// The wanted size, else the origin's; never smaller than it.
fn size(wish: &Wish, origin: &Origin) -> ApiResult<u64> {
    let least = match (&origin.snapshot, &origin.volume) {
        (Some(snapshot), _) => Some(snapshot.volume_size),
        (None, volume) => volume.as_ref().map(|volume| volume.size),
    };
    match (wish.size, least) {
        (Some(size), Some(least)) if size < least => {
            let reason = match origin.snapshot {
                Some(_) => format!(
                    "Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. They must be >= original \
                     snapshot size."
                ),
                None => format!(
                    "Volume size '{size}'GB cannot be smaller than original volume size  {least}GB. They must be >= \
                     original volume size."
                ),
            };
            Err(Fault::invalid_input(reason).into())
        }
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => Err(Fault::invalid_input("Volume size 'None' must be an integer and greater than 0").into()),
    }
}
