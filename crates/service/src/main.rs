//! `scoria-volume`: the volume service.

use std::process::ExitCode;

use clap::Parser;
use scoria_conf::Config;
use scoria_runtime::logging::{self, LogFormat, LogOptions};
use scoria_service::command_line::CommandLine;
use scoria_service::daemon;

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
    let json = config.log.use_json || config.scoria.log_format == "json";
    let mut default_levels = config.log.default_log_levels.clone();
    // It reports as errors what our own supervisor handles and reports in its own words.
    default_levels.push("lapin=CRITICAL".to_owned());
    let log = logging::init(LogOptions {
        debug: config.log.debug,
        format: if json { LogFormat::Json } else { LogFormat::Oslo },
        log_file: config.log.path(),
        use_stderr: config.log.use_stderr,
        default_levels,
    })?;
    // Before anybody opens a TLS connection: the first to ask would choose otherwise.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(daemon::run(config, log))
}
