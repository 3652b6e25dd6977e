//! `scoria-volume`: the volume service.

use std::process::ExitCode;

use clap::Parser;
use scoria_conf::Config;
use scoria_runtime::logging::{self, Destination};
use scoria_service::command_line::CommandLine;
use scoria_service::{daemon, log};

fn main() -> ExitCode {
    let mut logs_to_stderr = false;
    match start(&mut logs_to_stderr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if !logs_to_stderr {
                eprintln!("scoria-volume: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(logs_to_stderr: &mut bool) -> anyhow::Result<()> {
    let config = load(&CommandLine::parse())?;
    let options = log::options(&config)?;
    let to_stderr =
        options.sinks.is_empty() || options.sinks.iter().any(|sink| sink.destination == Destination::Stderr);
    let log = logging::init(options)?;
    *logs_to_stderr = to_stderr;
    // Before anybody opens a TLS connection: the first to ask would choose otherwise.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    scoria_runtime::service_executor()?.block_on(daemon::run(config, log))
}

fn load(command_line: &CommandLine) -> anyhow::Result<Config> {
    let args = command_line.load_args();
    let loaded = Config::load(&args);
    if loaded.is_err() && args.standalone.is_none() && args.files().is_ok_and(|files| files.is_empty()) {
        anyhow::bail!(
            "no configuration: name a cinder.conf with --config-file PATH, or run alone with --standalone (none was found in \
             {})",
            args.search.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(loaded?)
}
