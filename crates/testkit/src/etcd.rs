//! etcd: a server, or a cluster of several members.

mod links;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::links::Links;
use crate::faults::Link;
use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program, wait_until};

const PACKAGE: &str = "etcd-server";
/// Not in every version, and not in its list of options.
const UNSYNCED: &str = "--unsafe-no-fsync";

/// How long a member may take to answer a test.
const ANSWER: Duration = Duration::from_secs(10);

/// An etcd cluster of the caller's own, without TLS and without users.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    links: Option<Links>,
    tls: Option<Tls>,
    /// Without waiting for the disk.
    unsynced: bool,
    dir: TempDir,
}

/// A further port of the first member, for TLS.
#[derive(Debug)]
struct Tls {
    port: u16,
    certificates: PathBuf,
}

/// One member. Its data survives [`Etcd::kill`].
#[derive(Debug)]
struct Member {
    port: u16,
    peer_port: u16,
    process: Option<Process>,
}

impl Etcd {
    /// Starts a single server.
    ///
    /// # Errors
    /// etcd is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        Self::cluster(1).await
    }

    /// Starts a single server that does not wait for the disk, if this version of etcd can do without: for tests that write a
    /// lot and do not restart it.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn start_unsynced() -> Result<Self> {
        let can = Command::new(program("etcd", PACKAGE)?).args([UNSYNCED, "--version"]).output()?.status.success();
        Self::members(1, None, can).await
    }

    /// Starts a single server with a further port for TLS, on which it wants a certificate of the client. In the directory are
    /// `ca.pem`, `server.pem` and `server.key`.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn start_with_tls(certificates: &Path) -> Result<Self> {
        Self::members(1, Some(Tls { port: free_port()?, certificates: certificates.to_owned() }), false).await
    }

    /// Starts a cluster of so many members; with three, one may fail.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster(members: usize) -> Result<Self> {
        Self::members(members, None, false).await
    }

    /// Starts a cluster of so many members that reach each other through links that fail on demand.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster_with_links(members: usize) -> Result<Self> {
        let mut cluster = Self::prepared(members, None, false)?;
        let ports: Vec<_> = cluster.members.iter().map(|member| member.peer_port).collect();
        cluster.links = Some(Links::start(cluster.dir.path(), &ports)?);
        cluster.launched().await
    }

    async fn members(members: usize, tls: Option<Tls>, unsynced: bool) -> Result<Self> {
        Self::prepared(members, tls, unsynced)?.launched().await
    }

    fn prepared(members: usize, tls: Option<Tls>, unsynced: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-etcd-").tempdir()?;
        let member = |_| Ok(Member { port: free_port()?, peer_port: free_port()?, process: None });
        let members = (0..members).map(member).collect::<Result<_>>()?;
        Ok(Self { members, links: None, tls, unsynced, dir })
    }

    async fn launched(mut self) -> Result<Self> {
        for index in 0..self.members.len() {
            self.spawn(index)?;
        }
        for index in 0..self.members.len() {
            self.ready(index).await?;
        }
        Ok(self)
    }

    /// Its URL for tooz, `etcd3+http://127.0.0.1:PORT`; of the first member.
    #[must_use]
    pub fn tooz_url(&self) -> String {
        format!("etcd3+http://127.0.0.1:{}", self.port())
    }

    /// Its URL for Scoria, `etcd://127.0.0.1:PORT,…`; of all members.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("etcd://{}", hosts.join(","))
    }

    /// The first member's port for clients on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port_of(0)
    }

    /// A member's port for clients on 127.0.0.1.
    #[must_use]
    pub fn port_of(&self, member: usize) -> u16 {
        self.members[member].port
    }

    /// The first member's port for clients with TLS on 127.0.0.1.
    ///
    /// # Errors
    /// It was started without TLS.
    pub fn tls_port(&self) -> Result<u16> {
        Ok(self.tls.as_ref().context("this etcd was started without TLS")?.port)
    }

    /// Asks a member by way of its HTTP/JSON gateway: `kv/range`, `lease/leases`, …
    ///
    /// # Errors
    /// The member refuses or does not answer.
    pub async fn ask(&self, member: usize, path: &str, body: &Value) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/v3/{path}", self.port_of(member));
        let answer = reqwest::Client::new().post(url).timeout(ANSWER).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("etcd's {path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// All keys with their values, as the first member knows them.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn contents(&self) -> Result<Vec<(String, Vec<u8>)>> {
        // From the first key on, without end.
        let all = json!({ "key": "AA==", "range_end": "AA==" });
        let found = self.ask(0, "kv/range", &all).await?;
        let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default());
        let pair = |found: &Value| {
            Ok((String::from_utf8_lossy(&decoded(&found["key"])?).into_owned(), decoded(&found["value"])?))
        };
        found["kvs"].as_array().into_iter().flatten().map(pair).collect()
    }

    /// All keys, as the first member knows them.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn keys(&self) -> Result<Vec<String>> {
        Ok(self.contents().await?.into_iter().map(|(key, _)| key).collect())
    }

    /// The revision that made a key.
    ///
    /// # Errors
    /// The member does not answer, or the key is not there.
    pub async fn made_at(&self, key: &str) -> Result<u64> {
        let found = self.ask(0, "kv/range", &json!({ "key": STANDARD.encode(key) })).await?;
        let revision = found["kvs"][0]["create_revision"].as_str().with_context(|| format!("no key {key}"))?;
        Ok(revision.parse()?)
    }

    /// Removes a key, as an administrator would. False when it was not there.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        let removed = self.ask(0, "kv/deleterange", &json!({ "key": STANDARD.encode(key) })).await?;
        Ok(removed["deleted"].is_string())
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn leases(&self) -> Result<Vec<String>> {
        let listed = self.ask(0, "lease/leases", &json!({})).await?;
        let id = |lease: &Value| lease["ID"].as_str().unwrap_or_default().to_owned();
        Ok(listed["leases"].as_array().into_iter().flatten().map(id).collect())
    }

    /// Forgets everything before the newest revision.
    ///
    /// # Errors
    /// The member does not answer, or there is nothing to forget.
    pub async fn compact(&self) -> Result<()> {
        let now = self.ask(0, "kv/range", &json!({ "key": "AA==" })).await?;
        let revision = &now["header"]["revision"];
        self.ask(0, "kv/compaction", &json!({ "revision": revision, "physical": true })).await.map(drop)
    }

    /// How many requests of a kind (`Txn`, `Range`, `LeaseGrant`, …) the first member was sent since it was started.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn requests(&self, kind: &str) -> Result<u64> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port())).await?.text().await?;
        let is_it = |line: &&str| {
            line.starts_with("grpc_server_started_total{") && line.contains(&format!("grpc_method=\"{kind}\""))
        };
        let counts = answer.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they are counts")]
        Ok(counts.sum::<f64>() as u64)
    }

    /// Which member leads.
    ///
    /// # Errors
    /// None does, or no member answers.
    pub async fn leader(&self) -> Result<usize> {
        for member in 0..self.members.len() {
            let status = self.ask(member, "maintenance/status", &json!({})).await.unwrap_or_default();
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Ok(member);
            }
        }
        bail!("no member of etcd says that it leads")
    }

    /// Kills a member; its data stays.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Starts a member that was killed, on the same ports with the same data. It is ready when there are enough others.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self, member: usize) -> Result<()> {
        self.kill(member);
        self.spawn(member)?;
        self.ready(member).await
    }

    /// As [`Etcd::restart`] of several at once: alone none of them would become ready.
    ///
    /// # Errors
    /// One does not come up.
    pub async fn restart_all(&mut self, members: &[usize]) -> Result<()> {
        for member in members {
            self.kill(*member);
            self.spawn(*member)?;
        }
        for member in members {
            self.ready(*member).await?;
        }
        Ok(())
    }

    /// Stops a member without ending it (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGSTOP)
    }

    /// Lets a paused member go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGCONT)
    }

    /// What a member's links to all the others do, in both directions. Clients still reach all of them.
    ///
    /// # Errors
    /// The cluster was started without links.
    pub fn one_to_others(&self, member: usize, link: Link) -> Result<()> {
        self.links.as_ref().context("this etcd was started without links")?.set(member, link);
        Ok(())
    }

    fn signal(&mut self, member: usize, signal: Signal) -> Result<()> {
        self.members[member].process.as_mut().context("this member of etcd was killed")?.signal(signal)
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let Member { port, peer_port, .. } = self.members[index];
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        let known_as = |member: usize| match self.links {
            Some(_) => links::url(member),
            None => format!("http://127.0.0.1:{}", self.members[member].peer_port),
        };
        let peers: Vec<_> = (0..self.members.len()).map(|n| format!("m{n}={}", known_as(n))).collect();
        let mut command = Command::new(program("etcd", PACKAGE)?);
        if self.links.is_some() {
            command.current_dir(links::working_directory(self.dir.path(), index));
        }
        command.args(["--name", &format!("m{index}"), "--data-dir"]).arg(self.dir.path().join(format!("m{index}")));
        let mut listen = client.clone();
        if let (0, Some(Tls { port, certificates })) = (index, &self.tls) {
            listen.push_str(&format!(",https://127.0.0.1:{port}"));
            for (option, file) in
                [("--trusted-ca-file", "ca.pem"), ("--cert-file", "server.pem"), ("--key-file", "server.key")]
            {
                command.arg(option).arg(certificates.join(file));
            }
            command.arg("--client-cert-auth");
        }
        command.args(["--listen-client-urls", &listen, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &known_as(index)]);
        command.args(["--initial-cluster", &peers.join(","), "--logger", "zap", "--log-level", "warn"]);
        command.args(self.unsynced.then_some(UNSYNCED));
        // The environment of whoever runs the tests is none of the server's business.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        let log = self.dir.path().join(format!("m{index}.log"));
        self.members[index].process = Some(Process::spawn(&format!("etcd member {index}"), command, &log)?);
        Ok(())
    }

    async fn ready(&mut self, index: usize) -> Result<()> {
        let Member { port, process, .. } = &mut self.members[index];
        let process = process.as_mut().context("this member of etcd was killed")?;
        process.ready("answer", START_TIMEOUT, async || is_healthy(*port).await).await
    }

    /// Waits until all members follow the same leader: one that was cut off may upset the others first.
    ///
    /// # Errors
    /// They do not in good time.
    pub async fn agreed(&self) -> Result<()> {
        let led_by = async |member| {
            let status = self.ask(member, "maintenance/status", &json!({})).await.unwrap_or_default();
            (status["leader"].clone(), status["raftTerm"].clone())
        };
        wait_until("the members of etcd agree", START_TIMEOUT, async || {
            let first = led_by(0).await;
            for member in 1..self.members.len() {
                if led_by(member).await != first {
                    return false;
                }
            }
            first.0.is_string()
        })
        .await
    }

    /// Waits until all members that run answer, which takes a leader.
    ///
    /// # Errors
    /// They do not in good time.
    pub async fn healthy(&self) -> Result<()> {
        for member in self.members.iter().filter(|member| member.process.is_some()) {
            wait_until("etcd answers", START_TIMEOUT, async || is_healthy(member.port).await).await?;
        }
        Ok(())
    }
}

async fn is_healthy(port: u16) -> bool {
    let answer = reqwest::Client::new().get(format!("http://127.0.0.1:{port}/health"));
    match answer.timeout(Duration::from_secs(2)).send().await {
        Ok(answer) => answer.text().await.is_ok_and(|text| text.contains("true")),
        Err(_) => false,
    }
}
