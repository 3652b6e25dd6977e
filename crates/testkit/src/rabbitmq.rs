//! A RabbitMQ server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program};

/// Names the server of a whole test run: its directory, where `node.json` is.
pub(crate) const SHARED: &str = "SCORIA_TEST_RABBITMQ";
const PACKAGE: &str = "rabbitmq-server";
/// The server and its control program themselves, not the wrappers on `PATH`, which insist on the user `rabbitmq`.
const BIN: &str = "/usr/lib/rabbitmq/bin";

/// Few schedulers that do not spin (many brokers share a small machine), no port open to other machines.
const ERLANG: &str = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}";

/// A RabbitMQ server with a virtual host for the caller; user and password are `guest`.
///
/// It has its own Erlang port mapper and node name, so that it sees no other broker of the machine and no other sees it.
#[derive(Debug)]
pub struct RabbitMq {
    node: Node,
    vhost: String,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    server: Process,
    _port_mapper: Process,
    _dir: TempDir,
}

/// What it takes to talk to a node from any process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Node {
    dir: PathBuf,
    name: String,
    amqp: u16,
    distribution: u16,
    port_mapper: u16,
    management: Option<u16>,
}

impl RabbitMq {
    /// Starts a server of the caller's own, without the management plugin.
    ///
    /// # Errors
    /// RabbitMQ is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        Self::start_node(None).await
    }

    /// Starts a server of the caller's own with the management plugin.
    ///
    /// # Errors
    /// As [`RabbitMq::start`].
    pub async fn start_with_management() -> Result<Self> {
        Self::start_node(Some(free_port()?)).await
    }

    async fn start_node(management: Option<u16>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-rabbitmq-").tempdir()?;
        let (amqp, distribution, port_mapper) = (free_port()?, free_port()?, free_port()?);
        let name = format!("scoria{amqp}@localhost");
        let node = Node { dir: dir.path().into(), name, amqp, distribution, port_mapper, management };
        let mapper = node.start_port_mapper().await?;
        let server = node.start_server().await?;
        Ok(Self { node, vhost: "/".into(), own: Some(Own { server, _port_mapper: mapper, _dir: dir }) })
    }

    /// A fresh virtual host on the server of the test run, or a server of the caller's own when there is none.
    ///
    /// # Errors
    /// As [`RabbitMq::start`]; the shared server does not answer.
    pub async fn shared() -> Result<Self> {
        let Ok(dir) = std::env::var(SHARED) else { return Self::start().await };
        let file = Path::new(&dir).join("node.json");
        let node = std::fs::read(&file).with_context(|| format!("{SHARED}={dir}: cannot read {}", file.display()))?;
        let node: Node = serde_json::from_slice(&node)?;
        let vhost = uuid::Uuid::new_v4().simple().to_string();
        // Over HTTP where it can be had: each run of rabbitmqctl starts an Erlang machine, more than a second of work.
        for path in [format!("vhosts/{vhost}"), format!("permissions/{vhost}/guest")] {
            let management = node.management.context("the shared RabbitMQ has no management plugin")?;
            let body = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
            let request = reqwest::Client::new().put(format!("http://127.0.0.1:{management}/api/{path}"));
            request.basic_auth("guest", Some("guest")).json(&body).send().await?.error_for_status()?;
        }
        Ok(Self { node, vhost, own: None })
    }

    /// The oslo.messaging URL of the caller's virtual host, as in `transport_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("rabbit://guest:guest@127.0.0.1:{}/{}", self.node.amqp, self.vhost.trim_start_matches('/'))
    }

    /// The AMQP URL of the caller's virtual host.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{}", self.node.amqp, self.vhost.replace('/', "%2f"))
    }

    /// The server's AMQP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.node.amqp
    }

    /// The caller's virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The base URL of the management interface, where it was asked for; user and password are `guest`.
    #[must_use]
    pub fn management_url(&self) -> Option<String> {
        self.node.management.map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// Runs `rabbitmqctl` with these arguments and returns what it prints. Takes a second or two.
    ///
    /// # Errors
    /// It fails.
    pub async fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command: tokio::process::Command = self.node.command("rabbitmqctl")?.into();
        let out = command.args(["--quiet", "--node", &self.node.name]).args(args).kill_on_drop(true).output().await?;
        if !out.status.success() {
            let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            bail!("rabbitmqctl {}: {stdout}{stderr}", args.join(" "));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The queues of the caller's virtual host: name and how many messages are ready, how many delivered but not yet acknowledged.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub async fn queues(&self) -> Result<Vec<(String, u64, u64)>> {
        let columns = ["list_queues", "--vhost", &self.vhost, "--no-table-headers"];
        let columns = [&columns[..], &["name", "messages_ready", "messages_unacknowledged"]].concat();
        let out = self.ctl(&columns).await?;
        let parse = |line: &str| {
            let mut fields = line.split('\t');
            Some((fields.next()?.into(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        Ok(out.lines().filter_map(parse).collect())
    }

    /// Cuts every client connection of the caller's virtual host from the broker's side.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub async fn close_connections(&self) -> Result<()> {
        self.ctl(&["close_all_connections", "--vhost", &self.vhost, "testkit cut"]).await.map(drop)
    }

    /// Sets or clears the memory alarm, which blocks every connection that publishes.
    ///
    /// # Errors
    /// `rabbitmqctl` fails, or the server is shared.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        self.must_be_own()?;
        // Zero would switch the check off altogether on some versions; this is below what an idle node uses.
        let limit = if on { "0.0001" } else { "0.6" };
        self.ctl(&["set_vm_memory_high_watermark", limit]).await.map(drop)
    }

    /// Stops the broker inside the node: connections are closed in good order, the port is closed.
    ///
    /// # Errors
    /// `rabbitmqctl` fails, or the server is shared.
    pub async fn stop_app(&self) -> Result<()> {
        self.must_be_own()?;
        self.ctl(&["stop_app"]).await.map(drop)
    }

    /// Starts the broker inside the node again.
    ///
    /// # Errors
    /// `rabbitmqctl` fails, or the server is shared.
    pub async fn start_app(&self) -> Result<()> {
        self.must_be_own()?;
        self.ctl(&["start_app"]).await.map(drop)
    }

    /// Kills the node: what a crash does to its connections. What is not durable is gone.
    ///
    /// # Errors
    /// The server is shared.
    pub fn kill(&mut self) -> Result<()> {
        self.must_be_own()?;
        if let Some(own) = self.own.as_mut() {
            own.server.kill();
        }
        Ok(())
    }

    /// Kills the node and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// The server is shared, or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        if let Some(own) = self.own.as_mut() {
            own.server = self.node.start_server().await?;
        }
        Ok(())
    }

    /// The directory that [`SHARED`] names.
    pub(crate) fn publish(&self) -> Result<PathBuf> {
        std::fs::write(self.node.dir.join("node.json"), serde_json::to_vec(&self.node)?)?;
        Ok(self.node.dir.clone())
    }

    fn must_be_own(&self) -> Result<()> {
        self.own.as_ref().map(|_| ()).context("a shared RabbitMQ must be left up: use RabbitMq::start()")
    }
}

impl Node {
    /// Erlang's name service, on a port of this node's own: one that was left behind elsewhere would answer wrong.
    async fn start_port_mapper(&self) -> Result<Process> {
        let mut command = Command::new(program("epmd", "erlang-base")?);
        command.args(["-port", &self.port_mapper.to_string(), "-address", "127.0.0.1"]);
        let mut process = Process::spawn("epmd", command, &self.dir.join("epmd.log"))?;
        let listening = async || tokio::net::TcpStream::connect(("127.0.0.1", self.port_mapper)).await.is_ok();
        process.ready("port", START_TIMEOUT, listening).await?;
        Ok(process)
    }

    async fn start_server(&self) -> Result<Process> {
        let mut config = format!("listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\n", self.amqp);
        if let Some(port) = self.management {
            config += &format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
        }
        std::fs::write(self.dir.join("rabbitmq.conf"), config)?;
        let plugins = if self.management.is_some() { "[rabbitmq_management]." } else { "[]." };
        std::fs::write(self.dir.join("enabled_plugins"), plugins)?;
        let log = self.dir.join("server.log");
        let earlier = std::fs::metadata(&log).map_or(0, |file| file.len() as usize);
        let mut process = Process::spawn("rabbitmq-server", self.command("rabbitmq-server")?, &log)?;
        // The port opens before the node has its users and its management interface: what it logs last is the sign.
        let started = async || {
            let text = std::fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(&text[earlier..]).contains("Server startup complete")
        };
        process.ready("start", START_TIMEOUT, started).await?;
        Ok(process)
    }

    /// A program of RabbitMQ with this node's environment.
    fn command(&self, name: &str) -> Result<Command> {
        let file = Path::new(BIN).join(name);
        let file = if file.is_file() { file } else { program(name, PACKAGE)? };
        let mut command = Command::new(file);
        command
            .env("HOME", &self.dir)
            .env("ERL_EPMD_PORT", self.port_mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", self.dir.join("no-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", self.dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.dir.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.dir.join("data"))
            .env("RABBITMQ_PID_FILE", self.dir.join("pid"))
            .env("RABBITMQ_LOG_BASE", &self.dir)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG);
        Ok(command)
    }
}
