//! `scoria-volume`: the volume service.

use std::process::ExitCode;

use clap::Parser;
use scoria_conf::Config;
use scoria_runtime::logging;
use scoria_service::command_line::CommandLine;
use scoria_service::{daemon, log};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scoria-volume: {error:#}");
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let command_line = CommandLine::parse();
    let config = Config::load(&command_line.load_args())?;
    let log = logging::init(log::options(&config)?)?;
    // Before anybody opens a TLS connection: the first to ask would choose otherwise.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(daemon::run(config, log))
}
