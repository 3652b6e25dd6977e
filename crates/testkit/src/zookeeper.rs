//! ZooKeeper servers, alone or three together.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::faults::{Link, Proxy};
use crate::process::START_TIMEOUT;
use crate::{Process, free_port, program, wait_until};

const JAVA: &str = "default-jre-headless";
const JARS: [(&str, &str); 2] = [
    ("/usr/share/java/zookeeper.jar", "libzookeeper-java"),
    // It says on standard error what it does.
    ("/usr/share/java/slf4j-simple.jar", "libslf4j-java"),
];
/// What of netty the first jar does not name itself: needed for TLS only.
const NETTY: [&str; 3] = ["codec", "resolver", "transport-native-unix-common"];
/// What was written survives the kill of the process, which is all that tests do, without the disk being waited for.
const OPTIONS: [&str; 3] = [
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.preAllocSize=1024",
    // A vote that got lost on a busy machine is repeated after a second, not after up to a minute.
    "-Dzookeeper.fastleader.maxNotificationInterval=1000",
];
/// How its Java machine runs.
#[derive(Debug, Clone, Copy)]
enum Machine {
    /// A small heap and a quick start, at the price of a server that stays slow; connections that can do TLS.
    Small,
    /// As ZooKeeper's own start script has it (`bin/zkEnv.sh`): what a measurement wants.
    AsShipped,
}

impl Machine {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Small => &[
                "-Xmx64m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            ],
            Self::AsShipped => &["-Xmx1000m"],
        }
    }
}

/// Short ticks: sessions may be as short as a second, and a leader that does not answer is left after three.
const CONFIG: &str = "tickTime=500\ninitLimit=40\nsyncLimit=6\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
                      admin.enableServer=false\nclientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\n";

/// One ZooKeeper server.
#[derive(Debug)]
pub struct ZooKeeper {
    port: u16,
    machine: Machine,
    process: Process,
    dir: TempDir,
}

impl ZooKeeper {
    /// Starts a server of its own.
    ///
    /// # Errors
    /// ZooKeeper is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// Starts a server of its own with the heap, the compilers and the connections that ZooKeeper's own start script gives it:
    /// slow at first, and then twice as fast as that of a test.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub async fn start_as_shipped() -> Result<Self> {
        let mut server = Self::launch(free_port()?, Machine::AsShipped, "", None)?;
        server.serves().await?;
        Ok(server)
    }

    /// Starts a server of its own with further lines of configuration.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub async fn start_with(config: &str) -> Result<Self> {
        let mut server = Self::launch(free_port()?, Machine::Small, config, None)?;
        server.serves().await?;
        Ok(server)
    }

    fn launch(port: u16, machine: Machine, config: &str, id: Option<usize>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("scoria-zookeeper-").tempdir()?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data)?;
        if let Some(id) = id {
            std::fs::write(data.join("myid"), id.to_string())?;
        }
        let config = format!("{CONFIG}dataDir={}\nclientPort={port}\n{config}", data.display());
        std::fs::write(dir.path().join("zoo.cfg"), config)?;
        let process = serve(dir.path(), machine)?;
        Ok(Self { port, machine, process, dir })
    }

    async fn serves(&mut self) -> Result<()> {
        let port = self.port;
        self.process.ready("service", START_TIMEOUT, async || mode(port).is_some()).await
    }

    /// Its URL, `zookeeper://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("zookeeper://127.0.0.1:{}", self.port)
    }

    /// The server's TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the process where it is (SIGSTOP): it answers nothing and keeps its connections.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Kills it; its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port and with its data, without waiting until it serves.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.kill();
        self.process = serve(self.dir.path(), self.machine)?;
        Ok(())
    }

    /// Starts it again, on the same port and with its data.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.relaunch()?;
        self.serves().await
    }

    /// What it says to a four-letter word, e.g. `srvr` or `mntr`.
    ///
    /// # Errors
    /// It does not answer within two seconds.
    pub fn ask(&self, word: &str) -> Result<String> {
        ask(self.port, word)
    }

    /// The paths of all ephemeral nodes, sorted.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ephemerals(&self) -> Result<Vec<String>> {
        let mut found: Vec<_> = self
            .ask("dump")?
            .lines()
            .filter_map(|line| line.strip_prefix("\t/"))
            .map(|path| format!("/{path}"))
            .collect();
        found.sort();
        Ok(found)
    }
}

/// The two ports of each on which it talks to the others.
type Members = [[u16; 2]; 3];

fn members() -> Result<Members> {
    let mut members = Members::default();
    for port in members.as_flattened_mut() {
        *port = free_port()?;
    }
    Ok(members)
}

/// Three servers that elect a leader.
#[derive(Debug)]
pub struct ZooKeeperEnsemble {
    /// The servers.
    pub servers: Vec<ZooKeeper>,
    links: Vec<Proxy>,
}

impl ZooKeeperEnsemble {
    /// Starts three servers and waits until all of them serve.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub async fn start() -> Result<Self> {
        let members = members()?;
        Self::launch(&members, &members, Vec::new()).await
    }

    /// Starts three servers of which the first one reaches the others through links that fail on demand. It does not lead: of
    /// equals the one with the highest number does. Elections take long, because links answer for servers that do not.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub async fn start_with_links() -> Result<Self> {
        let members = members()?;
        let mut seen_by_first = members;
        let mut links = Vec::new();
        for port in seen_by_first[1..].as_flattened_mut() {
            let link = Proxy::start(*port)?;
            *port = link.port();
            links.push(link);
        }
        Self::launch(&seen_by_first, &members, links).await
    }

    async fn launch(seen_by_first: &Members, members: &Members, links: Vec<Proxy>) -> Result<Self> {
        let list = |members: &Members| -> String {
            let line =
                |(id, [peer, election]): (usize, &[u16; 2])| format!("server.{id}=127.0.0.1:{peer}:{election}\n");
            (1..).zip(members).map(line).collect()
        };
        let launch = |id| {
            let members = if id == 1 { seen_by_first } else { members };
            ZooKeeper::launch(free_port()?, Machine::Small, &list(members), Some(id))
        };
        let servers = (1..=3).map(launch).collect::<Result<_>>()?;
        let mut ensemble = Self { servers, links };
        for server in &mut ensemble.servers {
            server.serves().await?;
        }
        Ok(ensemble)
    }

    /// What the first server's links to the other two do. Clients still reach all three.
    pub fn first_to_others(&self, link: Link) {
        for to_other in &self.links {
            to_other.set(link);
        }
    }

    /// The URL with all three.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("zookeeper://{}", hosts.join(","))
    }

    /// Which one leads.
    ///
    /// # Errors
    /// None does for a minute and a half.
    pub async fn leader(&self) -> Result<usize> {
        let find = || self.servers.iter().position(|server| mode(server.port).as_deref() == Some("leader"));
        wait_until("a leader of the ZooKeeper ensemble", START_TIMEOUT, async || find().is_some()).await?;
        find().context("the leader has just gone")
    }
}

fn serve(dir: &Path, machine: Machine) -> Result<Process> {
    let mut command = Command::new(program("java", JAVA)?);
    let mut jars = Vec::new();
    for (jar, package) in JARS {
        if !Path::new(jar).is_file() {
            bail!("{jar} is not there: apt-get install {package} (or run scripts/setup test)");
        }
        jars.push(PathBuf::from(jar));
    }
    jars.extend(NETTY.map(|part| format!("/usr/share/java/netty-{part}.jar").into()));
    command.args(OPTIONS).args(machine.options()).arg("-cp").arg(std::env::join_paths(jars)?);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(dir.join("zoo.cfg"));
    Process::spawn("zookeeper", command, &dir.join("log"))
}

fn ask(port: u16, word: &str) -> Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// `standalone`, `leader` or `follower`; `None` while it does not serve.
fn mode(port: u16) -> Option<String> {
    let answer = ask(port, "srvr").ok()?;
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
}
