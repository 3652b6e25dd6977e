//! `scoria db`: the tables.

use clap::Subcommand;
use scoria_db::{Database, SchemaOrigin};
use serde_json::json;

use crate::exit::{Exit, Failure, Result};
use crate::output::{Format, Progress};
use crate::target::Target;

/// What about the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make or update the tables.
    ///
    /// For a database that has no Cinder; one that cinder-manage made is refused and left alone. May be run again at any time.
    Sync {
        /// Make only the table scoria_locks, in which the lock service database:// keeps its locks. This works in a database that
        /// cinder-manage made, too: nothing else in it is touched.
        #[arg(long)]
        locks: bool,
    },
    /// Show who made the tables (Cinder or Scoria) and their version; fails when this release cannot use them.
    Version,
}

pub(crate) async fn run(command: Command, target: &Target) -> Result {
    let config = target.config()?;
    if config.scoria.standalone && matches!(command, Command::Sync { .. }) {
        let state = &config.default.state_path;
        std::fs::create_dir_all(state)
            .map_err(|error| Failure::failed(format!("state_path {}: {error}", state.display())))?;
    }
    let database = target.connect(config).await?;
    let done = match command {
        Command::Sync { locks } => sync(&database, locks, target.format()).await,
        Command::Version => version(&database, target.format()).await,
    };
    database.close().await;
    done
}

async fn sync(database: &Database, locks: bool, format: Format) -> Result {
    let progress = Progress::start("making the tables");
    let origin = if locks { database.sync_locks().await? } else { database.sync().await? };
    drop(progress);
    show(Some(&origin), None, format)?;
    Ok(Exit::Done)
}

/// Tables that the service would refuse are shown all the same, and then refused.
async fn version(database: &Database, format: Format) -> Result {
    let origin = database.version().await?;
    let checked = database.check_schema().await;
    show(origin.as_ref(), checked.as_ref().err().map(ToString::to_string), format)?;
    checked?;
    Ok(Exit::Done)
}

fn show(origin: Option<&SchemaOrigin>, problem: Option<String>, format: Format) -> Result<()> {
    let (made_by, version) = match origin {
        Some(SchemaOrigin::Cinder { revision }) => (Some("cinder"), json!(revision)),
        Some(SchemaOrigin::Scoria { version }) => (Some("scoria"), json!(version)),
        None => (None, json!(null)),
    };
    match format {
        Format::Json => format.one(&json!({"made_by": made_by, "version": version, "problem": problem})),
        Format::Table => format.one(&json!({"made_by": made_by, "version": version})),
    }
}
