//! The two services under test, started in the same way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Prepared {
    /// On a site (share, state directory, configuration) of its own.
    pub(crate) async fn new(kind: Kind, database: &MariaDb, broker: &RabbitMq) -> Result<Self> {
        let mut site = Site::new(&database.url(), &broker.url())?;
        // Cinder's own defaults: the site's are for impatient tests.
        site.set("DEFAULT", "report_interval", "10");
        site.set("DEFAULT", "service_down_time", "60");
        let (arguments, environment) = match kind {
            Kind::Python => {
                // API and scheduler tell when it is up, and end here: nothing but the service is measured.
                let cinder = CinderPeer::start(&site).await?;
                let mut volume = cinder.start_volume(&site, kind.name(), None).await?;
                let command = running_command(volume.process().pid())?;
                volume.stop().await?;
                command
            }
            Kind::Scoria => {
                let mut daemon = Daemon::start(&site, kind.name(), &[]).await?;
                let command = running_command(daemon.process().pid())?;
                daemon.stop().await?;
                command
            }
        };
        Ok(Self { kind, site, arguments, environment })
    }

    /// Starts it; how long from then to its row in the services table.
    pub(crate) async fn start(&self, load: &Load) -> Result<(Process, Duration)> {
        let host = self.kind.name();
        load.forget_service(host).await?;
        let (program, arguments) = self.arguments.split_first().context("no command line")?;
        let mut command = self.site.command(Path::new(program))?;
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).current_dir(self.site.dir());
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

/// Command line and environment of a running process.
fn running_command(pid: u32) -> Result<(Vec<OsString>, Vec<(OsString, OsString)>)> {
    let strings = |file: &str| -> Result<Vec<Vec<u8>>> {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
        Ok(bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect())
    };
    let split = |pair: Vec<u8>| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(pair[..at].to_vec()), OsString::from_vec(pair[at + 1..].to_vec())))
    };
    let arguments = strings("cmdline")?.into_iter().map(OsString::from_vec).collect();
    Ok((arguments, strings("environ")?.into_iter().filter_map(split).collect()))
}
