//! `scoria locks`: who holds what, and commands under a lock.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;
use scoria_coordination::Holder;
use scoria_service::parts;
use serde::{Deserialize, Serialize};

use super::guard;
use super::locks_run::{self, Under};
use crate::exit::{Exit, Result};
use crate::output::Progress;
use crate::target::Target;
use crate::wait::seconds;

/// What about locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who holds and who waits. With a configuration its lock service is asked, without one the service at the admin port.
    List,
    /// Run a command under a lock of the configuration's lock service.
    ///
    /// The command has SCORIA_LOCK_NAME in its environment, and SCORIA_FENCING_TOKEN where the lock service has fencing
    /// tokens. Its exit code is passed on. The moment the lock is lost, the command is killed with its process group, and the
    /// exit code is 75. Signals to scoria go to the command; if scoria itself is killed, so is the command.
    Run {
        /// Name of the lock, without the prefix cinder-.
        name: String,
        /// Beside other shared holders, where the lock service can do that.
        #[arg(long)]
        shared: bool,
        /// Wait for the lock for at most so many seconds (exit code 73), 0: try once. Without it: as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        /// The command, after a --.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Kills the command of a `run` that was killed itself.
    #[command(hide = true)]
    Guard,
}

/// A holder or waiter, as the admin port shows it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    mode: String,
    held: bool,
    instance: String,
    host: Option<String>,
    operation: String,
    request_id: Option<String>,
    resource: Option<String>,
    seconds: Option<f64>,
    token: Option<u64>,
}

const COLUMNS: [&str; 9] =
    ["name", "mode", "held", "operation", "resource", "request_id", "host", "instance", "seconds"];

pub(crate) async fn run(command: Command, target: &Target) -> Result {
    match command {
        Command::List => {
            let lines: Vec<Line> = match target.asks_admin() {
                true => target.admin()?.get("/v1/locks", "locks").await?,
                false => holders(target).await?,
            };
            target.format().list(&lines, &COLUMNS)?;
            Ok(Exit::Done)
        }
        Command::Run { name, shared, wait, command } => {
            let config = target.config()?;
            locks_run::run(&config, Under { name, shared, wait }, command).await
        }
        Command::Guard => guard::run(),
    }
}

async fn holders(target: &Target) -> Result<Vec<Line>> {
    let _progress = Progress::start("asking the lock service");
    let locks = parts::coordinator(&target.config()?).await?;
    let holders = locks.holders().await;
    locks.close().await;
    Ok(holders?.into_iter().map(Line::from).collect())
}

impl From<Holder> for Line {
    fn from(holder: Holder) -> Self {
        Self {
            name: holder.name,
            mode: holder.mode.as_str().to_owned(),
            held: holder.held,
            instance: holder.instance,
            host: holder.host,
            operation: holder.owner.operation,
            request_id: holder.owner.request_id,
            resource: holder.owner.resource,
            seconds: holder.since.map(|since| since.as_secs_f64()),
            token: holder.token,
        }
    }
}
