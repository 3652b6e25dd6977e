//! The ground that the whole-process tests in `tests/` stand on: a small real cloud around the volume service under test, and
//! the Python scenarios (`python/`) that act as its users.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scoria_testkit::{
    CinderPeer, Daemon, MariaDb, PythonChild, PythonPeer, RabbitMq, Setting, Site, repository, wait_until,
};
use serde_json::{Value, json};

/// A database, a broker, the real cinder-api and cinder-scheduler, and a share. No volume service yet.
#[derive(Debug)]
pub struct Cloud {
    /// API and scheduler. First, so that they stop before their servers do.
    pub cinder: CinderPeer,
    /// Configuration, state directory and share.
    pub site: Site,
    /// The database of all services.
    pub database: MariaDb,
    /// The broker of all services.
    pub broker: RabbitMq,
}

impl Cloud {
    /// On the servers of the test run.
    ///
    /// # Errors
    /// A server or a service does not come up.
    pub async fn start() -> Result<Self> {
        Self::on(RabbitMq::shared().await?, &[]).await
    }

    /// On a broker of the test's own, which it may stop and cut off, with options for every service.
    ///
    /// # Errors
    /// A server or a service does not come up.
    pub async fn on(broker: RabbitMq, settings: &[Setting<'_>]) -> Result<Self> {
        let database = MariaDb::shared().await?;
        let mut site = Site::new(&database.url(), &broker.url())?;
        for (group, name, value) in settings {
            site.set(group, name, value);
        }
        let cinder = CinderPeer::start(&site).await?;
        Ok(Self { cinder, site, database, broker })
    }

    /// Starts our daemon and waits until API and scheduler know it. `name` is its `host` unless the options have another one.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn scoria(&self, name: &str, settings: &[Setting<'_>]) -> Result<Daemon> {
        let daemon = Daemon::start(&self.site, name, settings).await?;
        let host = settings.iter().find(|(group, option, _)| (*group, *option) == ("DEFAULT", "host"));
        self.cinder.wait_for_volume_service(host.map_or(name, |(.., host)| host)).await?;
        Ok(daemon)
    }

    /// Asks the API for a volume of one GiB and waits until it is available; its id.
    ///
    /// # Errors
    /// The API refuses, or the volume is not available in time.
    pub async fn volume(&self) -> Result<String> {
        let (status, body) = self.cinder.call("POST", "/volumes", Some(json!({"volume": {"size": 1}}))).await?;
        let id = body["volume"]["id"].as_str().filter(|_| status == 202);
        let id = id.with_context(|| format!("no volume: {status} {body}"))?.to_owned();
        self.wait_for_status(&id, Some("available")).await?;
        Ok(id)
    }

    /// Asks the API to delete a volume and does not wait.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn delete_volume(&self, id: &str) -> Result<()> {
        let (status, body) = self.cinder.call("DELETE", &format!("/volumes/{id}"), None).await?;
        ensure!(status == 202, "delete of volume {id}: {status} {body}");
        Ok(())
    }

    /// A volume's status; `None` when it is gone.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn status(&self, id: &str) -> Result<Option<String>> {
        let (_, body) = self.cinder.call("GET", &format!("/volumes/{id}"), None).await?;
        Ok(body["volume"]["status"].as_str().map(str::to_owned))
    }

    /// Waits for a volume's status; `None` waits until it is gone.
    ///
    /// # Errors
    /// It does not come in a minute.
    pub async fn wait_for_status(&self, id: &str, wanted: Option<&str>) -> Result<()> {
        let what = format!("volume {id} is {}", wanted.unwrap_or("gone"));
        let reached = async || self.status(id).await.is_ok_and(|status| status.as_deref() == wanted);
        wait_until(&what, Duration::from_secs(60), reached).await
    }

    /// The file of a volume without snapshots.
    #[must_use]
    pub fn file(&self, id: &str) -> PathBuf {
        self.site.share().join(format!("volume-{id}"))
    }

    /// Runs a scenario of `tests/python` to its end: it gets the API's URL, the share and `args`.
    ///
    /// # Errors
    /// The scenario fails: the error has its traceback and the ends of the logs of API and scheduler.
    pub async fn run(&self, scenario: &str, args: &[&str]) -> Result<Value> {
        let (url, share) = (self.cinder.url(), self.site.share().display().to_string());
        let args = [&[url.as_str(), share.as_str()], args].concat();
        let run = PythonPeer::find()?.run(&script(scenario), &args, Duration::from_secs(540)).await;
        run.map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.cinder.log_tails()))
    }

    /// Starts a script of `tests/python` that goes on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_script(&self, name: &str, args: &[&str]) -> Result<PythonChild> {
        PythonPeer::find()?.start(&script(name), args)
    }
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/python").join(name).with_extension("py")
}
