//! The command line of `scoria-volume`: cinder-volume's, and `--standalone`.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use scoria_conf::{LoadArgs, Source};

const MORE: &str = "\
Examples:
  scoria-volume --standalone                              try it out: nothing else is needed
  scoria-volume --config-file /etc/cinder/cinder.conf     in place of cinder-volume

Signals:
  TERM  finish what is running, then end
  INT   end at the next safe point
  HUP   read the configuration again

scoria config check FILE names what would be ignored or refused, scoria config sample prints every option.";

/// The volume service: does the job of cinder-volume for OpenStack Block Storage, or runs alone.
#[derive(Debug, Parser)]
#[command(name = "scoria-volume", version, after_help = MORE, max_term_width = 110)]
pub struct CommandLine {
    /// Configuration file; may be given several times, later ones win. Default: cinder.conf where Cinder looks for it,
    /// such as /etc/cinder.
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub config_file: Vec<PathBuf>,
    /// Directory of *.conf files, read in the order of their names; may be given several times.
    #[arg(long, value_name = "DIR", action = ArgAction::Append)]
    pub config_dir: Vec<PathBuf>,
    /// Run alone: SQLite, file locks, the local driver, no broker, and the block-storage API on http://127.0.0.1:8776/v3.
    #[arg(long)]
    pub standalone: bool,
    /// Directory of the service's state; with --standalone /var/lib/scoria, or ~/.local/state/scoria for others than root.
    #[arg(long = "state_path", visible_alias = "state-path", value_name = "DIR")]
    pub state_path: Option<PathBuf>,
    /// Name of this host, as the option "host": the services table and the queues have it. Default: the machine's name.
    #[arg(long = "backend_host", visible_alias = "backend-host", value_name = "HOST")]
    pub backend_host: Option<String>,
    /// Log at level DEBUG, whatever the configuration says.
    #[arg(short, long, overrides_with = "no_debug")]
    pub debug: bool,
    /// Log at level INFO, whatever the configuration says.
    #[arg(long = "nodebug", overrides_with = "debug")]
    pub no_debug: bool,
    /// File to log to, below --log-dir if that is given. Default: standard error.
    #[arg(long, visible_alias = "logfile", value_name = "PATH")]
    pub log_file: Option<PathBuf>,
    /// Directory to log to, into cinder-volume.log unless --log-file names another file.
    #[arg(long, visible_alias = "logdir", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Log one JSON object a line.
    #[arg(long)]
    pub use_json: bool,
}

impl CommandLine {
    /// What the configuration is to be loaded from.
    #[must_use]
    pub fn load_args(&self) -> LoadArgs {
        let mut args = if self.standalone && self.config_file.is_empty() {
            // Alone, the files of an OpenStack installation on the same machine are not ours.
            LoadArgs { search: Vec::new(), ..LoadArgs::from_process() }
        } else {
            LoadArgs::from_process()
        };
        args.sources.extend(self.config_file.iter().cloned().map(Source::File));
        args.sources.extend(self.config_dir.iter().cloned().map(Source::Dir));
        if self.standalone {
            args.standalone = Some(self.state_path.clone().unwrap_or_else(default_state_path));
        }
        let mut set = |name: &str, value: String| args.overrides.push(("DEFAULT".to_owned(), name.to_owned(), value));
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        if let Some(dir) = &self.state_path {
            set("state_path", path(dir));
        }
        if let Some(host) = &self.backend_host {
            set("host", host.clone());
        }
        if self.debug || self.no_debug {
            set("debug", self.debug.to_string());
        }
        if let Some(file) = &self.log_file {
            set("log_file", path(file));
        }
        if let Some(dir) = &self.log_dir {
            set("log_dir", path(dir));
        }
        if self.use_json {
            set("use_json", "true".to_owned());
        }
        args
    }
}

/// Where stand-alone mode keeps its state unless told otherwise: of the system for root, of the user for others.
#[must_use]
pub fn default_state_path() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/scoria");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(|| PathBuf::from("/tmp")).join("scoria")
}
