//! The real Cinder around a volume service: cinder-api, cinder-scheduler and, where asked for, cinder-volume.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::START_TIMEOUT;
use crate::site::{BACKEND, Setting, Site};
use crate::{Process, PythonPeer, free_port};

/// A project as Cinder wants its id without authentication.
pub const PROJECT: &str = "11111111111111111111111111111111";

/// How long a look at what is up may take. The API asks the scheduler for it: when that has no queue yet the question is lost, and
/// the API waits a minute for the answer.
const LOOK: Duration = Duration::from_secs(5);

/// A real cinder-api and cinder-scheduler, without authentication, on a site.
#[derive(Debug)]
pub struct CinderPeer {
    python: PythonPeer,
    port: u16,
    api: Process,
    scheduler: Process,
}

impl CinderPeer {
    /// Makes the database's tables, starts both services and waits until both answer.
    ///
    /// # Errors
    /// The Python peers are not installed, or a service does not come up (the error has its log).
    pub async fn start(site: &Site) -> Result<Self> {
        let python = PythonPeer::find()?;
        site.sync_database().await?;
        let port = free_port()?;
        let etc = |file: &str| python.venv().join("etc/cinder").join(file).display().to_string();
        let conf = site.conf(
            "cinder-api",
            &[
                ("DEFAULT", "auth_strategy", "noauth"),
                ("DEFAULT", "host", "controller"),
                ("DEFAULT", "api_paste_config", &etc("api-paste.ini")),
                ("DEFAULT", "resource_query_filters_file", &etc("resource_filters.json")),
                ("DEFAULT", "enable_force_upload", "true"),
            ],
        )?;
        let mut api = Command::new(python.bin("gunicorn"));
        api.args(["--workers", "1", "--threads", "16", "--timeout", "300", "--bind", &format!("127.0.0.1:{port}")])
            .arg("scoria_test_api:application")
            .env("CINDER_API_ARGS", format!("--config-file {}", conf.display()))
            .env("PYTHONPATH", python_dir())
            .env("PYTHONWARNINGS", "ignore")
            // The server with green threads hangs with some lock services; gunicorn's are real ones.
            .env("OS_CINDER_DISABLE_EVENTLET_PATCHING", "true")
            .current_dir(site.dir());
        let api = Process::spawn("cinder-api", api, &site.dir().join("cinder-api.log"))?;
        let mut scheduler = Command::new(python.bin("cinder-scheduler"));
        scheduler.arg("--config-file").arg(&conf).env("PYTHONWARNINGS", "ignore").current_dir(site.dir());
        let scheduler = Process::spawn("cinder-scheduler", scheduler, &site.dir().join("cinder-scheduler.log"))?;
        let mut peer = Self { python, port, api, scheduler };
        peer.wait_until_up().await?;
        Ok(peer)
    }

    async fn wait_until_up(&mut self) -> Result<()> {
        let (project_url, scheduler) = (self.project_url(), &mut self.scheduler);
        let answers = async || services(&project_url).await.is_ok();
        self.api.ready("answer", START_TIMEOUT, answers).await?;
        let reports = async || is_up(&project_url, "cinder-scheduler", "controller").await;
        scheduler.ready("report in the services table", START_TIMEOUT, reports).await
    }

    /// The URL of the API's version 3, without a project.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.port)
    }

    /// The URL that clients call the endpoint: with the project.
    #[must_use]
    pub fn project_url(&self) -> String {
        format!("{}/{PROJECT}", self.url())
    }

    /// Calls the API as administrator of [`PROJECT`] and returns status and body.
    ///
    /// # Errors
    /// No answer.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        request(method, &format!("{}{path}", self.project_url()), body, Duration::from_secs(60)).await
    }

    /// Waits until the service `HOST@BACKEND` of a volume service is up. The scheduler may need a moment more to
    /// learn its capacity: it has it from the message that the service sends then.
    ///
    /// # Errors
    /// It is not up in time.
    pub async fn wait_for_volume_service(&self, host: &str) -> Result<()> {
        let (url, service) = (self.project_url(), format!("{host}@{BACKEND}"));
        let what = format!("the API shows cinder-volume on {service} as up");
        crate::wait_until(&what, START_TIMEOUT, async || is_up(&url, "cinder-volume", &service).await).await?;
        let pools = format!("{url}/scheduler-stats/get_pools");
        let known = async || {
            let answer = request("GET", &pools, None, LOOK).await;
            answer.is_ok_and(|(_, body)| body["pools"].as_array().is_some_and(|pools| !pools.is_empty()))
        };
        crate::wait_until("the scheduler knows a pool", START_TIMEOUT, known).await
    }

    /// Starts a real cinder-volume under this host name. With a cluster, its NFS driver is declared fit for one (the original
    /// refuses); nothing else about it is changed.
    ///
    /// # Errors
    /// It does not come up (the error has its log).
    pub async fn start_volume(&self, site: &Site, host: &str, cluster: Option<&str>) -> Result<PythonVolume> {
        let bin = site.dir().join("bin");
        self.write_root_helper(&bin)?;
        let rootwrap = self.python.venv().join("etc/cinder/rootwrap.conf").display().to_string();
        let privsep = self.python.bin("privsep-helper").display().to_string();
        let mut settings: Vec<Setting> = vec![
            ("DEFAULT", "host", host),
            ("DEFAULT", "rootwrap_config", &rootwrap),
            ("cinder_sys_admin", "helper_command", &privsep),
            ("privsep_osbrick", "helper_command", &privsep),
        ];
        if let Some(cluster) = cluster {
            settings.push(("DEFAULT", "cluster", cluster));
            settings.push((BACKEND, "volume_driver", "scoria_test_drivers.ClusteredNfsDriver"));
        }
        let conf = site.conf(&format!("cinder-volume-{host}"), &settings)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = site.command(&self.python.bin("cinder-volume"))?;
        command
            .arg("--config-file")
            .arg(conf)
            .current_dir(site.dir())
            .env("PYTHONPATH", python_dir())
            .env("PYTHONWARNINGS", "ignore")
            .env(
                "PATH",
                format!("{}:{}:{path}:/usr/sbin:/sbin", bin.display(), self.python.venv().join("bin").display()),
            );
        let log = site.dir().join(format!("cinder-volume-{host}.log"));
        let process = Process::spawn(&format!("cinder-volume {host}"), command, &log)?;
        let volume = PythonVolume { process };
        self.wait_for_volume_service(host).await.with_context(|| volume.process.log_tail())?;
        Ok(volume)
    }

    /// `sudo` for a test that is root already: runs the command.
    fn write_root_helper(&self, bin: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(bin)?;
        let sudo = bin.join("sudo");
        std::fs::write(
            &sudo,
            "#!/bin/sh\n# We are root: nothing to become. Arguments are a rootwrap call.\nexec \"$@\"\n",
        )?;
        Ok(std::fs::set_permissions(sudo, std::fs::Permissions::from_mode(0o755))?)
    }

    /// The ends of both services' logs, for an error message.
    #[must_use]
    pub fn log_tails(&self) -> String {
        format!("{}\n{}", self.api.log_tail(), self.scheduler.log_tail())
    }
}

/// A running Python cinder-volume.
#[derive(Debug)]
pub struct PythonVolume {
    process: Process,
}

impl PythonVolume {
    /// Stops it in good order.
    ///
    /// # Errors
    /// It does not end in a minute.
    pub async fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(60)).await.map(drop)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The directory of testkit's Python modules.
fn python_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

async fn request(method: &str, url: &str, body: Option<Value>, timeout: Duration) -> Result<(u16, Value)> {
    let request = reqwest::Client::new()
        .request(method.parse()?, url)
        .timeout(timeout)
        .header("X-Auth-Token", format!("admin:{PROJECT}"))
        .header("OpenStack-API-Version", "volume 3.71");
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
}

async fn services(project_url: &str) -> Result<Value> {
    let (status, body) = request("GET", &format!("{project_url}/os-services"), None, LOOK).await?;
    anyhow::ensure!(status == 200, "os-services: {status} {body}");
    Ok(body)
}

async fn is_up(project_url: &str, binary: &str, host: &str) -> bool {
    let Ok(body) = services(project_url).await else { return false };
    let up = |service: &Value| service["binary"] == binary && service["host"] == host && service["state"] == "up";
    body["services"].as_array().is_some_and(|services| services.iter().any(up))
}
