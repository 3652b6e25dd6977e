//! Where to look: a configuration, or the address of a running service.

use scoria_conf::{Config, LoadArgs};
use scoria_db::Database;
use scoria_service::command_line::CommandLine;
use scoria_service::parts;

use crate::cli::TargetArgs;
use crate::endpoint::Endpoint;
use crate::exit::{Failure, Result};
use crate::output::{Format, Progress};

/// The front door of `scoria-volume --standalone` on this machine.
const FRONT_DOOR: &str = "http://127.0.0.1:8776/v3";
/// The admin port of a `scoria-volume` on this machine.
pub(crate) const ADMIN: &str = "http://127.0.0.1:8780";
/// Variable that names the API.
const ENDPOINT_VARIABLE: &str = "SCORIA_ENDPOINT";

/// Where the command line says to look.
#[derive(Debug)]
pub(crate) struct Target {
    args: TargetArgs,
}

/// Where services, volumes and snapshots can be read.
pub(crate) enum Source {
    /// The database of a configuration.
    Database {
        /// Its tables are of a version that we know.
        database: Database,
        /// `service_down_time`, seconds: a service without a heartbeat for longer is down.
        down_time: i64,
    },
    /// The API.
    Api(Endpoint),
}

impl Target {
    pub(crate) fn new(args: TargetArgs) -> Self {
        Self { args }
    }

    /// How to print.
    pub(crate) fn format(&self) -> Format {
        if self.args.json { Format::Json } else { Format::Table }
    }

    /// What the configuration is loaded from: the same as for `scoria-volume` with the same options.
    pub(crate) fn load_args(&self) -> LoadArgs {
        let TargetArgs { config_file, config_dir, standalone, state_path, .. } = self.args.clone();
        let like_the_service = CommandLine {
            config_file,
            config_dir,
            standalone,
            state_path,
            backend_host: None,
            debug: false,
            no_debug: false,
            log_file: None,
            log_dir: None,
            use_json: false,
        };
        like_the_service.load_args()
    }

    /// The configuration that is named, or that stands where Cinder looks for one.
    pub(crate) fn config(&self) -> Result<Config> {
        let args = self.load_args();
        if args.standalone.is_none() && args.files()?.is_empty() {
            return Err(Failure::usage(
                "no configuration: name one with --config-file PATH, or that of scoria-volume --standalone with --standalone",
            ));
        }
        Ok(Config::load(&args)?)
    }

    /// Whether the command line names a configuration.
    pub(crate) fn names_config(&self) -> bool {
        let args = &self.args;
        args.standalone || args.state_path.is_some() || !args.config_file.is_empty() || !args.config_dir.is_empty()
    }

    /// The database of the configuration, whatever is in it. Who sits and waits wants to know at once that it is not there.
    pub(crate) async fn connect(&self, mut config: Config) -> Result<Database> {
        let _progress = Progress::start("connecting to the database");
        config.database.max_retries = 0;
        config.database.db_max_retries = 2;
        Ok(parts::connect(&config).await?)
    }

    /// Where volumes and snapshots can be read: what the command line names, else the API when it answers, else the
    /// configuration of this machine.
    pub(crate) async fn source(&self) -> Result<Source> {
        if self.args.endpoint.is_none() && self.names_config() {
            return self.database().await;
        }
        let (url, named) = self.endpoint_url();
        let endpoint = Endpoint::new(&url, self.args.os_token.clone())?;
        if named || endpoint.answers().await {
            return Ok(Source::Api(endpoint));
        }
        if self.load_args().files()?.is_empty() {
            return Err(Failure::unavailable(format!(
                "nothing answers at {url}: start scoria-volume --standalone, or name an API with --endpoint URL or a \
                 configuration with --config-file PATH"
            )));
        }
        self.database().await
    }

    async fn database(&self) -> Result<Source> {
        let config = self.config()?;
        let down_time = i64::try_from(config.default.service_down_time.as_secs()).unwrap_or(i64::MAX);
        let database = self.connect(config).await?;
        database.check_schema().await?;
        Ok(Source::Database { database, down_time })
    }

    /// The API, for what only it can do. A stand-alone service's configuration names its own.
    pub(crate) fn api(&self) -> Result<Endpoint> {
        if self.args.endpoint.is_none() && self.names_config() {
            let config = self.config()?;
            if !config.scoria.standalone {
                return Err(Failure::usage(
                    "volumes and snapshots are changed through the API, and a configuration file names none: add --endpoint \
                     URL, with --os-token TOKEN (or OS_TOKEN) for a cinder-api",
                ));
            }
            let url = local_url(&config.scoria.api_listen, config.scoria.api_listen_port) + "/v3";
            return Endpoint::new(&url, self.args.os_token.clone().or(config.scoria.auth_token));
        }
        Endpoint::new(&self.endpoint_url().0, self.args.os_token.clone())
    }

    /// Address of the API, and whether somebody has named it.
    fn endpoint_url(&self) -> (String, bool) {
        let in_environment = || std::env::var(ENDPOINT_VARIABLE).ok().filter(|url| !url.is_empty());
        match self.args.endpoint.clone().or_else(in_environment) {
            Some(url) => (url, true),
            None => (FRONT_DOOR.to_owned(), false),
        }
    }

    /// Whether the command line names an admin port.
    pub(crate) fn names_admin(&self) -> bool {
        self.args.admin.is_some()
    }

    /// The admin port of a running service.
    pub(crate) fn admin(&self) -> Result<Endpoint> {
        match &self.args.admin {
            Some(url) => Endpoint::admin(url),
            None if self.names_config() => self.admin_of(&self.config()?),
            None => Endpoint::admin(ADMIN),
        }
    }

    /// The admin port of the service with this configuration.
    pub(crate) fn admin_of(&self, config: &Config) -> Result<Endpoint> {
        Endpoint::admin(&local_url(&config.scoria.admin_listen, config.scoria.admin_listen_port))
    }
}

/// Where to reach somebody who listens on this address of this machine.
fn local_url(address: &str, port: u16) -> String {
    let host = match address.trim_matches(['[', ']']) {
        "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        other => other.to_owned(),
    };
    format!("http://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_on_loopback() {
        assert_eq!(local_url("0.0.0.0", 1), "http://127.0.0.1:1");
        assert_eq!(local_url("[::1]", 2), "http://[::1]:2");
        assert_eq!(local_url("storage", 3), "http://storage:3");
    }
}
