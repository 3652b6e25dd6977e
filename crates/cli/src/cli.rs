//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::commands::{config, db, locks, operations, service, snapshot, volume};

const MORE: &str = "\
Examples:
  scoria config check /etc/cinder/cinder.conf                    what Scoria would ignore or refuse
  scoria volume create 1 --name data                             on the service of this machine
  scoria --endpoint http://api:8776 volume list                  at another block-storage API
  scoria --config-file cinder.conf locks list                    who holds which lock
  scoria locks run nightly --wait 60 -- /usr/local/bin/nightly   a script under a lock

Exit codes:
   0  done
   1  failed
   2  wrong usage
   3  there is no such volume or snapshot, or nobody holds the lock
   4  the volume or snapshot ended in an error state
  69  a service, database, lock service or address is not available
  73  the lock could not be had in time
  75  the lock was lost; the command under it was ended
locks run passes on the exit code of its command: 126 if it cannot be run, 127 if there is none, 128 + N after signal N.

Errors are one line on standard error.";

/// Operate Scoria: see services, volumes, snapshots, locks and configurations, change volumes, run commands under locks.
#[derive(Debug, Parser)]
#[command(name = "scoria", version, after_help = MORE, max_term_width = 110)]
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
    /// A cinder.conf, whose database, lock service and addresses are used. May be given several times, later ones win.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config_file: Vec<PathBuf>,
    /// A directory of *.conf files, read in the order of their names. May be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config_dir: Vec<PathBuf>,
    /// Use the configuration that scoria-volume --standalone uses.
    #[arg(long, global = true)]
    pub(crate) standalone: bool,
    /// The service's directory, where it is not the one of the configuration.
    #[arg(long = "state-path", visible_alias = "state_path", global = true, value_name = "DIR")]
    pub(crate) state_path: Option<PathBuf>,
    /// Volumes, snapshots and services: the block-storage API (plain HTTP). Default: the configuration that is named, else
    /// SCORIA_ENDPOINT, else http://127.0.0.1:8776/v3.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Token for the API. Better given in the environment: command lines can be seen by everybody on the machine.
    #[arg(long, global = true, value_name = "TOKEN", env = "OS_TOKEN", hide_env_values = true)]
    pub(crate) os_token: Option<SecretString>,
    /// Locks and operations: the admin port of a running scoria-volume. Default: that of the configuration that is named, else
    /// http://127.0.0.1:8780.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Log what happens inside to standard error.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
}

/// What about.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the tables of a database that has no Cinder, or see who made them and their version.
    #[command(subcommand)]
    Db(db::Command),
    /// See the volume services and whether they are up.
    #[command(subcommand)]
    Service(service::Command),
    /// Check a configuration, see what is in force, get a sample.
    #[command(subcommand)]
    Config(config::Command),
    /// See who holds which lock, wait for a lock, break it, run a command under it.
    ///
    /// With a configuration that is named (--config-file, --standalone) its lock service itself is asked, otherwise the running
    /// service at the admin port, and if there is none the lock service of the configuration where Cinder looks for it. Names of locks are those that the services use, such as 3f2b…-delete_volume.
    #[command(subcommand)]
    Locks(locks::Command),
    /// See what a running service is working on.
    #[command(subcommand)]
    Operations(operations::Command),
    /// List, show, create, extend and delete volumes.
    #[command(subcommand)]
    Volume(volume::Command),
    /// List, show, create and delete snapshots.
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
