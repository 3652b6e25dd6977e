//! `scoria volume`: list, show, create, extend, delete.

use clap::Subcommand;
use reqwest::Method;
use scoria_db::{Database, VolumeFilter};
use scoria_model::{Metadata, SnapshotId, Volume, VolumeId, VolumeStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::time;
use crate::endpoint::Endpoint;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Format, print};
use crate::target::{Source, Target};
use crate::wait::{Kind, Waiting};

/// What about volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Volumes, newest first: those of every project from a database, those of the caller's project from the API.
    List {
        /// Those of every project, from the API too.
        #[arg(long)]
        all_projects: bool,
        /// Only those in this status.
        #[arg(long)]
        status: Option<String>,
    },
    /// Everything about one volume.
    Show {
        /// The volume.
        id: VolumeId,
    },
    /// Make a volume: blank, from a snapshot, or a copy of another volume.
    Create {
        /// In GiB; as large as what it is made from when that is left out.
        #[arg(required_unless_present_any = ["source", "snapshot"], value_parser = clap::value_parser!(u64).range(1..))]
        size: Option<u64>,
        /// Name.
        #[arg(long)]
        name: Option<String>,
        /// Description.
        #[arg(long)]
        description: Option<String>,
        /// Volume type, by name or id.
        #[arg(long = "type", value_name = "TYPE")]
        volume_type: Option<String>,
        /// Copy this volume.
        #[arg(long, value_name = "VOLUME", conflicts_with = "snapshot")]
        source: Option<VolumeId>,
        /// Make it from this snapshot.
        #[arg(long, value_name = "SNAPSHOT")]
        snapshot: Option<SnapshotId>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Make a volume larger.
    Extend {
        /// The volume.
        id: VolumeId,
        /// Its new size in GiB.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        size: u64,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete volumes.
    Delete {
        /// The volumes.
        #[arg(required = true)]
        ids: Vec<VolumeId>,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// A volume, under the names that the API has for its parts (without their prefixes).
#[derive(Debug, Serialize, Deserialize)]
struct View {
    id: String,
    name: Option<String>,
    description: Option<String>,
    status: String,
    size: u64,
    volume_type: Option<String>,
    #[serde(alias = "os-vol-host-attr:host")]
    host: Option<String>,
    cluster_name: Option<String>,
    availability_zone: Option<String>,
    #[serde(alias = "os-vol-tenant-attr:tenant_id")]
    project_id: Option<String>,
    snapshot_id: Option<String>,
    source_volid: Option<String>,
    multiattach: bool,
    created_at: Option<String>,
    updated_at: Option<String>,
    metadata: Metadata,
    attachments: Vec<Attached>,
}

/// Where a volume is attached.
#[derive(Debug, Serialize, Deserialize)]
struct Attached {
    attachment_id: String,
    server_id: Option<String>,
    host_name: Option<String>,
    device: Option<String>,
}

const COLUMNS: [&str; 7] = ["id", "name", "status", "size", "volume_type", "host", "created_at"];

pub(crate) async fn run(command: Command, target: &Target) -> Result {
    let format = target.format();
    match command {
        Command::List { all_projects, status } => {
            format.list(&list(target.source().await?, all_projects, status).await?, &COLUMNS)?;
        }
        Command::Show { id } => format.one(&show(target.source().await?, &id).await?)?,
        Command::Create { size, name, description, volume_type, source, snapshot, waiting } => {
            let mut wish = Map::new();
            let mut set = |key: &str, value: Option<Value>| value.and_then(|value| wish.insert(key.to_owned(), value));
            set("size", size.map(Value::from));
            set("name", name.map(Value::from));
            set("description", description.map(Value::from));
            set("volume_type", volume_type.map(Value::from));
            set("source_volid", source.map(|id| id.as_str().into()));
            set("snapshot_id", snapshot.map(|id| id.as_str().into()));
            create(&target.api()?, wish, &waiting, format).await?;
        }
        Command::Extend { id, size, waiting } => extend(&target.api()?, id.as_str(), size, &waiting, format).await?,
        Command::Delete { ids, waiting } => {
            let ids: Vec<&str> = ids.iter().map(VolumeId::as_str).collect();
            delete(&target.api()?, Kind::Volume, &ids, &waiting, format).await?;
        }
    }
    Ok(Exit::Done)
}

async fn list(source: Source, all_projects: bool, status: Option<String>) -> Result<Vec<View>> {
    match source {
        Source::Api(api) => {
            let mut query = Vec::new();
            if all_projects {
                query.push(("all_tenants", "1"));
            }
            query.extend(status.as_deref().map(|status| ("status", status)));
            api.list("/volumes/detail", &query, "volumes").await
        }
        Source::Database { database, .. } => {
            let status = status.map(VolumeStatus::from).into_iter().collect();
            let filter = VolumeFilter { all_tenants: true, status, ..VolumeFilter::default() };
            views(&database, database.volumes(&filter).await?).await
        }
    }
}

async fn show(source: Source, id: &VolumeId) -> Result<View> {
    match source {
        Source::Api(api) => api.get(&format!("/volumes/{id}"), "volume").await,
        Source::Database { database, .. } => {
            let volume = database.volume_get(id).await?;
            let views = views(&database, volume.into_iter().collect()).await?;
            let missing =
                || Failure::not_found(format!("there is no volume {id} in the database: see scoria volume list"));
            views.into_iter().next().ok_or_else(missing)
        }
    }
}

/// Rows name types by id, people by name.
async fn views(database: &Database, volumes: Vec<Volume>) -> Result<Vec<View>> {
    let types = database.volume_types().await?;
    let name_of = |volume: &Volume| {
        let id = volume.volume_type_id.as_ref()?;
        let named = types.iter().find(|one| one.id == *id).map(|one| one.name.clone());
        Some(named.unwrap_or_else(|| id.to_string()))
    };
    Ok(volumes.into_iter().map(|volume| View::of(name_of(&volume), volume)).collect())
}

impl View {
    fn of(volume_type: Option<String>, volume: Volume) -> Self {
        let attached = volume.attachments.into_iter().map(|attachment| Attached {
            attachment_id: attachment.id.to_string(),
            server_id: attachment.instance_uuid,
            host_name: attachment.attached_host,
            device: attachment.mountpoint,
        });
        Self {
            id: volume.id.to_string(),
            name: volume.display_name,
            description: volume.display_description,
            status: volume.status.to_string(),
            size: volume.size,
            volume_type,
            host: volume.host,
            cluster_name: volume.cluster_name,
            availability_zone: volume.availability_zone,
            project_id: volume.project_id,
            snapshot_id: volume.snapshot_id.map(|id| id.to_string()),
            source_volid: volume.source_volid.map(|id| id.to_string()),
            multiattach: volume.multiattach,
            created_at: time(volume.created_at),
            updated_at: time(volume.updated_at),
            metadata: volume.metadata,
            attachments: attached.collect(),
        }
    }
}

async fn create(api: &Endpoint, wish: Map<String, Value>, waiting: &Waiting, format: Format) -> Result<()> {
    let made: Value = api.post("/volumes", json!({"volume": wish}), "volume").await?;
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    if waiting.wanted() {
        waiting.until_good(api, Kind::Volume, &id, &["creating", "downloading"]).await?;
    }
    format.one(&show(Source::Api(api.clone()), &parse(&id)?).await?)
}

async fn extend(api: &Endpoint, id: &str, size: u64, waiting: &Waiting, format: Format) -> Result<()> {
    let body = json!({"os-extend": {"new_size": size}});
    api.send(Method::POST, &format!("/volumes/{id}/action"), Some(body)).await?;
    if waiting.wanted() {
        let seen = waiting.until_good(api, Kind::Volume, id, &["extending"]).await?;
        if seen["size"].as_u64() != Some(size) {
            let now = &seen["size"];
            return Err(Failure::failed(format!(
                "volume {id} is {now} GiB still: the log of the volume service says why"
            )));
        }
    }
    format.one(&show(Source::Api(api.clone()), &parse(id)?).await?)
}

/// What the API calls a volume goes into addresses again.
fn parse(id: &str) -> Result<VolumeId> {
    id.parse().map_err(|error| Failure::unavailable(format!("the API made a volume without a proper id: {error}")))
}

/// Asks for all of them first, so that they go side by side; then waits. Snapshots go the same way.
pub(super) async fn delete(api: &Endpoint, kind: Kind, ids: &[&str], waiting: &Waiting, format: Format) -> Result<()> {
    let word = kind.word();
    let mut first_failure = None;
    let mut asked = Vec::new();
    for id in ids {
        match api.send(Method::DELETE, &format!("/{word}s/{id}"), None).await {
            Ok(()) => asked.push(*id),
            Err(failure) => keep(&mut first_failure, failure),
        }
    }
    let mut gone = Vec::new();
    for id in asked {
        if !waiting.wanted() {
            gone.push(json!({"id": id, "status": "deleting"}));
            continue;
        }
        match waiting.until_gone(api, kind, id).await {
            Ok(()) => gone.push(json!({"id": id, "status": "deleted"})),
            Err(failure) => keep(&mut first_failure, failure),
        }
    }
    match format {
        Format::Json => format.list(&gone, &[])?,
        Format::Table => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let lines = gone.iter().map(|one| format!("{word} {}: {}\n", text(&one["id"]), text(&one["status"])));
            print(&lines.collect::<String>())?;
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// The first failure ends the command; those after it are told on their way.
fn keep(first: &mut Option<Failure>, failure: Failure) {
    match first {
        None => *first = Some(failure),
        Some(_) => eprintln!("scoria: {failure}"),
    }
}
