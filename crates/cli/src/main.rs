//! The `scoria` command: what an operator does by hand.
//!
//! Databases, services, configuration, locks, volumes and snapshots, against a configuration file or against the HTTP
//! address of a running service. Each subject has a file in [`commands`]; [`target`] decides where to look, [`output`] prints
//! tables or JSON, [`exit`] is what scripts see.
//!
//! What it is not: it does no volume's work. Volumes are changed by asking the API, which asks the volume service.

mod cli;
mod commands;
mod endpoint;
mod exit;
mod output;
mod target;
mod wait;

use std::process::ExitCode;

use clap::Parser;
use scoria_runtime::logging::{self, LogOptions};

use cli::{Cli, Command};
use exit::{Exit, Failure};
use target::Target;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("scoria: {failure}");
            failure.exit.into()
        }
    }
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    if cli.target.verbose {
        logging::init(LogOptions { debug: true, ..LogOptions::default() })
            .map_err(|error| Failure::failed(error.to_string()))?;
    }
    // Before anybody opens a TLS connection: the first to ask would choose otherwise. A second provider is none of ours.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let target = Target::new(cli.target);
    match cli.command {
        Command::Db(command) => commands::db::run(command, &target).await,
        Command::Service(command) => commands::service::run(command, &target).await,
        Command::Config(command) => commands::config::run(command, &target),
        Command::Locks(command) => commands::locks::run(command, &target).await,
        Command::Operations(command) => commands::operations::run(command, &target).await,
        Command::Volume(command) => commands::volume::run(command, &target).await,
        Command::Snapshot(command) => commands::snapshot::run(command, &target).await,
    }
}
