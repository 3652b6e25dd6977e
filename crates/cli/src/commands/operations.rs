//! `scoria operations`: what a running service works on.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Result};
use crate::target::Target;

/// What about operations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the requests that the service at the admin port is working on, and at which step.
    List,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    backend: String,
    operation: String,
    resource: Option<String>,
    request_id: Option<String>,
    state: String,
    seconds: f64,
}

pub(crate) async fn run(Command::List: Command, target: &Target) -> Result {
    let lines: Vec<Line> = target.admin()?.get("/v1/operations", "operations").await?;
    target.format().list(&lines, &["backend", "operation", "resource", "request_id", "state", "seconds"])?;
    Ok(Exit::Done)
}
