//! `scoria snapshot`: list, show, create, delete.

use clap::Subcommand;
use scoria_db::SnapshotFilter;
use scoria_model::{Metadata, Snapshot, SnapshotId, SnapshotStatus, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{time, volume};
use crate::endpoint::Endpoint;
use crate::exit::{Exit, Failure, Result};
use crate::target::{Source, Target};
use crate::wait::{Kind, Waiting};

/// What about snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Snapshots, newest first: those of every project from a database, those of the caller's project from the API.
    List {
        /// Those of every project, from the API too.
        #[arg(long)]
        all_projects: bool,
        /// Only those of this volume.
        #[arg(long)]
        volume: Option<VolumeId>,
        /// Only those in this status.
        #[arg(long)]
        status: Option<String>,
    },
    /// Everything about one snapshot.
    Show {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Take a snapshot of a volume.
    Create {
        /// The volume.
        volume: VolumeId,
        /// Name.
        #[arg(long)]
        name: Option<String>,
        /// Description.
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete snapshots.
    Delete {
        /// The snapshots.
        #[arg(required = true)]
        ids: Vec<SnapshotId>,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// A snapshot, under the names that the API has for its parts (without their prefixes).
#[derive(Debug, Serialize, Deserialize)]
struct View {
    id: String,
    name: Option<String>,
    description: Option<String>,
    volume_id: String,
    status: String,
    size: u64,
    #[serde(alias = "os-extended-snapshot-attributes:progress")]
    progress: Option<String>,
    #[serde(alias = "os-extended-snapshot-attributes:project_id")]
    project_id: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    metadata: Metadata,
}

const COLUMNS: [&str; 6] = ["id", "name", "status", "size", "volume_id", "created_at"];

pub(crate) async fn run(command: Command, target: &Target) -> Result {
    let format = target.format();
    match command {
        Command::List { all_projects, volume, status } => {
            format.list(&list(target.source().await?, all_projects, volume, status).await?, &COLUMNS)?;
        }
        Command::Show { id } => format.one(&show(target.source().await?, id.as_str()).await?)?,
        Command::Create { volume, name, description, waiting } => {
            let api = target.api()?;
            let snapshot = create(&api, &volume, name, description, &waiting).await?;
            format.one(&snapshot)?;
        }
        Command::Delete { ids, waiting } => {
            let ids: Vec<&str> = ids.iter().map(SnapshotId::as_str).collect();
            volume::delete(&target.api()?, Kind::Snapshot, &ids, &waiting, format).await?;
        }
    }
    Ok(Exit::Done)
}

async fn list(
    source: Source,
    all_projects: bool,
    volume: Option<VolumeId>,
    status: Option<String>,
) -> Result<Vec<View>> {
    match source {
        Source::Api(api) => {
            let mut query = Vec::new();
            if all_projects {
                query.push(("all_tenants", "1"));
            }
            query.extend(volume.as_ref().map(|id| ("volume_id", id.as_str())));
            query.extend(status.as_deref().map(|status| ("status", status)));
            api.list("/snapshots/detail", &query, "snapshots").await
        }
        Source::Database { database, .. } => {
            let filter = SnapshotFilter {
                all_tenants: true,
                volume_id: volume,
                status: status.map(SnapshotStatus::from).into_iter().collect(),
                ..SnapshotFilter::default()
            };
            Ok(database.snapshots(&filter).await?.into_iter().map(View::from).collect())
        }
    }
}

async fn show(source: Source, id: &str) -> Result<View> {
    match source {
        Source::Api(api) => api.get(&format!("/snapshots/{id}"), "snapshot").await,
        Source::Database { database, .. } => {
            let missing =
                || Failure::not_found(format!("there is no snapshot {id} in the database: see scoria snapshot list"));
            let id = id.parse().map_err(|_| missing())?;
            database.snapshot_get(&id).await?.map(View::from).ok_or_else(missing)
        }
    }
}

/// A volume in use is taken as it is at that moment; since 3.66 the API needs no flag for that.
async fn create(
    api: &Endpoint,
    volume: &VolumeId,
    name: Option<String>,
    description: Option<String>,
    waiting: &Waiting,
) -> Result<View> {
    let mut wish = json!({"volume_id": volume.as_str()});
    for (key, value) in [("name", name), ("description", description)] {
        if let Some(value) = value {
            wish[key] = value.into();
        }
    }
    let made: Value = api.post("/snapshots", json!({"snapshot": wish}), "snapshot").await?;
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    if waiting.wanted() {
        waiting.until_good(api, Kind::Snapshot, &id, &["creating"]).await?;
    }
    show(Source::Api(api.clone()), &id).await
}

impl From<Snapshot> for View {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.id.to_string(),
            name: snapshot.display_name,
            description: snapshot.display_description,
            volume_id: snapshot.volume_id.to_string(),
            status: snapshot.status.to_string(),
            size: snapshot.volume_size,
            progress: snapshot.progress,
            project_id: snapshot.project_id,
            created_at: time(snapshot.created_at),
            updated_at: time(snapshot.updated_at),
            metadata: snapshot.metadata,
        }
    }
}
