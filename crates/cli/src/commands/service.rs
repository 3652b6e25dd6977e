//! `scoria service`: who serves.

use clap::Subcommand;
use scoria_db::ServiceFilter;
use scoria_model::{Service, Timestamp};
use serde::{Deserialize, Serialize};

use super::time;
use crate::exit::{Exit, Result};
use crate::target::{Source, Target};

/// What about services.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the services that the database or the API knows, and whether they are up.
    List,
}

/// A service, as the API shows it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    binary: String,
    host: String,
    cluster: Option<String>,
    zone: Option<String>,
    status: String,
    state: String,
    updated_at: Option<String>,
    disabled_reason: Option<String>,
}

const COLUMNS: [&str; 7] = ["binary", "host", "cluster", "zone", "status", "state", "updated_at"];

pub(crate) async fn run(Command::List: Command, target: &Target) -> Result {
    let lines = match target.source().await? {
        Source::Api(api) => api.get("/os-services", "services").await?,
        Source::Database { database, down_time } => {
            let services = database.services(&ServiceFilter::default()).await?;
            let now = Timestamp::now();
            services.into_iter().map(|service| Line::of(service, now, down_time)).collect::<Vec<_>>()
        }
    };
    target.format().list(&lines, &COLUMNS)?;
    Ok(Exit::Done)
}

impl Line {
    /// It is up when its last heartbeat is at most `service_down_time` old (`cinder/objects/service.py: Service.is_up`).
    fn of(service: Service, now: Timestamp, down_time: i64) -> Self {
        let beat = service.updated_at.or(service.created_at);
        let is_up = beat.is_some_and(|beat| now.seconds_since(beat).abs() <= down_time);
        Self {
            binary: service.binary,
            host: service.host,
            cluster: service.cluster_name,
            zone: service.availability_zone,
            status: if service.disabled { "disabled" } else { "enabled" }.to_owned(),
            state: if is_up { "up" } else { "down" }.to_owned(),
            updated_at: time(service.updated_at),
            disabled_reason: service.disabled_reason,
        }
    }
}
