//! The two services under test, started in the same way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use scoria_testkit::{CinderPeer, Daemon, MariaDb, Process, RabbitMq, Site};

use crate::load::Load;

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The real cinder-volume.
    Python,
    /// Ours.
    Scoria,
}

impl Kind {
    /// Its name, which is also its host.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Scoria => "scoria",
        }
    }
}

/// A service that was started once, so that its queues and whatever else a first start makes are there, and how to start it
/// again.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) kind: Kind,
    pub(crate) site: Site,
    recipe: Recipe,
}

impl Prepared {
    /// On a site (share, state directory, configuration) of its own.
    pub(crate) async fn new(kind: Kind, database: &MariaDb, broker: &RabbitMq) -> Result<Self> {
        let mut site = Site::new(&database.url(), &broker.url())?;
        // Cinder's own defaults: the site's are for impatient tests.
        site.set("DEFAULT", "report_interval", "10");
        site.set("DEFAULT", "service_down_time", "60");
        let recipe = match kind {
            Kind::Python => {
                // API and scheduler tell when it is up, and end here: nothing but the service is measured.
                let cinder = CinderPeer::start(&site).await?;
                let mut volume = cinder.start_volume(&site, kind.name(), None).await?;
                let recipe = Recipe::of(volume.process().pid())?;
                volume.stop().await?;
                recipe
            }
            Kind::Scoria => {
                let mut daemon = Daemon::start(&site, kind.name(), &[]).await?;
                let recipe = Recipe::of(daemon.process().pid())?;
                daemon.stop().await?;
                recipe
            }
        };
        Ok(Self { kind, site, recipe })
    }

    /// Starts it; how long from then to its row in the services table.
    pub(crate) async fn start(&self, load: &Load) -> Result<(Process, Duration)> {
        let host = self.kind.name();
        load.forget_service(host).await?;
        let command = self.recipe.command(&self.site)?;
        let log = self.site.dir().join(format!("bench-{host}.log"));
        let began = Instant::now();
        let mut process = Process::spawn(host, command, &log)?;
        while !load.has_service_row(host).await? {
            let (status, late) = (process.exit_status(), began.elapsed() > Duration::from_secs(60));
            ensure!(status.is_none() && !late, "{host} does not come up\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok((process, began.elapsed()))
    }
}

/// Stops a service in good order.
pub(crate) async fn stop(process: &mut Process) -> Result<()> {
    process.signal(Signal::SIGTERM)?;
    process.wait(Duration::from_secs(60)).await.map(drop)
}

/// How a running process was started: its command line and its environment.
#[derive(Debug)]
struct Recipe {
    arguments: Vec<OsString>,
    /// `NAME=value`.
    environment: Vec<OsString>,
}

impl Recipe {
    fn of(pid: u32) -> Result<Self> {
        let strings = |file: &str| -> Result<Vec<OsString>> {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            Ok(parts.map(|part| OsString::from_vec(part.to_vec())).collect())
        };
        Ok(Self { arguments: strings("cmdline")?, environment: strings("environ")? })
    }

    fn command(&self, site: &Site) -> Result<Command> {
        // `env` takes the environment as it stands there.
        let mut command = site.command(Path::new("env"))?;
        command.arg("-i").args(&self.environment).args(&self.arguments).current_dir(site.dir());
        Ok(command)
    }
}
