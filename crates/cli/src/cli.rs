//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::commands::{config, db, locks, operations, service, snapshot, volume};

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  wrong usage
   3  there is no such volume or snapshot
   4  the volume or snapshot ended in an error state
  69  a service, database, lock service or address is not available
  73  the lock could not be had in time
  75  the lock was lost; the command under it was ended
locks run passes on the exit code of its command: 126 if it cannot be run, 127 if there is none, 128 + N after signal N.

Errors are one line on standard error.";

/// The command of Scoria: database, services, configuration, locks, volumes and snapshots.
#[derive(Debug, Parser)]
#[command(name = "scoria", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where to look, and how to print. These may stand anywhere before a `--`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where to look")]
pub(crate) struct TargetArgs {
    /// Configuration file, as cinder-volume reads it; may be given several times, later ones win.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config_file: Vec<PathBuf>,
    /// Directory of *.conf files, read by name; may be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config_dir: Vec<PathBuf>,
    /// The configuration of scoria-volume --standalone.
    #[arg(long, global = true)]
    pub(crate) standalone: bool,
    /// Directory of the service's state.
    #[arg(long = "state-path", visible_alias = "state_path", global = true, value_name = "DIR")]
    pub(crate) state_path: Option<PathBuf>,
    /// The block-storage API, plain HTTP. Without it: a configuration that is named, else SCORIA_ENDPOINT, else
    /// http://127.0.0.1:8776/v3.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Token for the API. The environment hides it better than a command line does.
    #[arg(long, global = true, value_name = "TOKEN", env = "OS_TOKEN", hide_env_values = true)]
    pub(crate) os_token: Option<SecretString>,
    /// The port for health and locks of a running scoria-volume. Default http://127.0.0.1:8780, or what a named
    /// configuration says.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Show on standard error what happens inside.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
}

/// What about.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and look at the tables of a database without a Cinder.
    #[command(subcommand)]
    Db(db::Command),
    /// The services that a database knows.
    #[command(subcommand)]
    Service(service::Command),
    /// Look at configurations.
    #[command(subcommand)]
    Config(config::Command),
    /// Who holds which lock, and commands under a lock.
    #[command(subcommand)]
    Locks(locks::Command),
    /// What a running service works on.
    #[command(subcommand)]
    Operations(operations::Command),
    /// Volumes.
    #[command(subcommand)]
    Volume(volume::Command),
    /// Snapshots.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_tells_the_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        for code in [0, 1, 2, 3, 4, 69, 73, 75] {
            assert!(help.contains(&format!("\n{code:>4}  ")), "{code}: {help}");
        }
    }
}
