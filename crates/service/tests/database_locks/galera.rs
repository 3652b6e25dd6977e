//! Two writable nodes of one Galera cluster.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use scoria_coordination::conformance::{self, Subject};
use scoria_coordination::{Coordinator, Error, Health, Options, Provider};
use scoria_model::LockTable;
use scoria_testkit::{Process, free_port, program};
use tempfile::TempDir;

use crate::locks::{once, soon, until};
use crate::place::{sync, table};
use crate::{coordinator, provider};

const PACKAGE: &str = "mariadb-server";
const START: Duration = Duration::from_secs(120);
/// Where Debian's package galera-4 puts its library.
const LIBRARY: &str = "/usr/lib/galera/libgalera_smm.so";
/// How soon nodes that are silent count as gone, where that is what a test waits for. Elsewhere a busy machine would lose nodes.
pub(crate) const QUICK: &str = "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.keepalive_period=PT0.5S";

pub(crate) struct Node {
    port: u16,
    /// Where it talks with the others, and where it is sent their data.
    group: [u16; 3],
    options: &'static str,
    directory: TempDir,
    process: Process,
}

impl Node {
    /// The first node makes the cluster; a later one joins it and copies its data.
    async fn start(others: &[Node], options: &'static str) -> Self {
        assert!(Path::new(LIBRARY).exists(), "no {LIBRARY}: apt-get install galera-4");
        let directory = tempfile::Builder::new().prefix("scoria-galera-").tempdir().unwrap();
        let [port, group @ ..] = std::array::from_fn::<_, 4, _>(|_| free_port().unwrap());
        install(&directory);
        let process = serve(&directory, port, group, others, options).await;
        Self { port, group, options, directory, process }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// After it was killed: it begins anew.
    async fn restart(&mut self, others: &[Node]) {
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        install(&self.directory);
        self.process = serve(&self.directory, self.port, self.group, others, self.options).await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        sql(&self.directory.path().join("socket"), text).unwrap()
    }

    fn url(&self) -> String {
        url_at(self.port)
    }

    /// What the cluster says of itself here.
    pub(crate) fn status(&self, name: &str) -> String {
        status(&self.directory.path().join("socket"), name).unwrap()
    }
}

/// The database at a node, or at a proxy before it.
pub(crate) fn url_at(port: u16) -> String {
    format!("mysql+pymysql://scoria:scoria@127.0.0.1:{port}/scoria?charset=utf8mb4")
}

fn at(directory: &TempDir, option: &str, file: &str) -> String {
    format!("--{option}={}", directory.path().join(file).display())
}

fn as_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--user=root")
}

fn install(directory: &TempDir) {
    let mut install = Command::new(program("mariadb-install-db", PACKAGE).unwrap());
    install.env("TMPDIR", directory.path()).arg("--no-defaults").arg(at(directory, "datadir", "data")).args(as_root());
    install.args(["--skip-test-db", "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"]);
    let out = install.output().unwrap();
    assert!(out.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&out.stderr));
}

/// Starts a node. One that the others leave alone, because they are still busy with each other, ends: then it is started again, as
/// a service manager does it.
async fn serve(directory: &TempDir, port: u16, group: [u16; 3], others: &[Node], options: &str) -> Process {
    for _ in 0..2 {
        if let Ok(process) = serve_once(directory, port, group, others, options).await {
            return process;
        }
    }
    serve_once(directory, port, group, others, options).await.unwrap()
}

async fn serve_once(
    directory: &TempDir,
    port: u16,
    [group, transfer, rest]: [u16; 3],
    others: &[Node],
    options: &str,
) -> Result<Process, String> {
    // Started by root, the rsync daemon that receives the other node's data works as nobody.
    let open = Command::new("chmod").args(["-R", "a+rwX"]).arg(directory.path()).status().unwrap();
    assert!(open.success(), "chmod: {open}");
    let mut command = Command::new(program("mariadbd", PACKAGE).unwrap());
    command.env("TMPDIR", directory.path()).arg("--no-defaults").args(as_root());
    command.args(
        [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid")]
            .map(|(option, file)| at(directory, option, file)),
    );
    command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--binlog-format=ROW", "--max-connections=500"]);
    command.args(["--innodb-autoinc-lock-mode=2", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"]);
    command.args(["--innodb-flush-log-at-trx-commit=0", "--wsrep-on=ON", "--wsrep-sst-method=rsync"]);
    command.arg(format!("--port={port}")).arg(format!("--wsrep-provider={LIBRARY}"));
    command.arg(format!("--wsrep-node-address=127.0.0.1:{group}"));
    command.arg(format!("--wsrep-sst-receive-address=127.0.0.1:{transfer}"));
    command.arg(format!(
        "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{rest};\
         gcache.size=16M;{options}"
    ));
    let peers: Vec<_> = others.iter().map(|node| format!("127.0.0.1:{}", node.group[0])).collect();
    command.args(others.is_empty().then_some("--wsrep-new-cluster"));
    command.arg(format!("--wsrep-cluster-address=gcomm://{}", peers.join(",")));
    let mut process = Process::spawn("galera", command, &directory.path().join("log")).unwrap();
    let socket = directory.path().join("socket");
    let ready = async || status(&socket, "WSREP_READY").is_ok_and(|value| value == "ON");
    process.ready("answer", START, ready).await.map_err(|error| format!("{error:#}"))?;
    Ok(process)
}

fn sql(socket: &Path, text: &str) -> Result<String, String> {
    let mut client = Command::new(program("mariadb", "mariadb-client").unwrap());
    client.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"]);
    let out = client.arg(format!("--socket={}", socket.display())).args(["--execute", text]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

fn status(socket: &Path, name: &str) -> Result<String, String> {
    let from = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME =";
    sql(socket, &format!("{from} '{name}'"))
}

pub(crate) struct Cluster(pub(crate) Vec<Node>);

impl Cluster {
    pub(crate) async fn start(nodes: usize, options: &'static str) -> Self {
        let first = Node::start(&[], options).await;
        first.sql(
            "CREATE USER scoria@'127.0.0.1' IDENTIFIED BY 'scoria'; GRANT ALL ON *.* TO scoria@'127.0.0.1'; \
             CREATE DATABASE scoria CHARACTER SET utf8mb4",
        );
        sync(&first.url()).await.close().await;
        let mut cluster = Self(vec![first]);
        while cluster.0.len() < nodes {
            let next = Node::start(&cluster.0, options).await;
            cluster.0.push(next);
        }
        assert_eq!(cluster.0[0].status("WSREP_CLUSTER_SIZE"), nodes.to_string());
        cluster
    }

    /// The last node comes back with nothing after it was killed.
    pub(crate) async fn restart_last(&mut self) {
        let (last, others) = self.0.split_last_mut().unwrap();
        // Whoever comes back while they still wait for the dead one may be left alone, and ends.
        let left = others.len().to_string();
        until("given up", || others.iter().all(|node| node.status("WSREP_CLUSTER_SIZE") == left)).await;
        last.restart(others).await;
    }
}

/// Instances on alternate nodes.
#[async_trait]
impl Subject for Cluster {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        let node = if name == "two" { &self.0[1] } else { &self.0[0] };
        provider(&node.url(), name, "database://").await
    }

    async fn lose(&self, name: &str) {
        assert!(table(&self.0[0].url()).break_lock(&format!("cinder-{name}")).await.unwrap());
    }

    async fn leftovers(&self) -> Vec<String> {
        table(&self.0[1].url()).list().await.unwrap().into_iter().map(|row| row.wish.name).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_have_one_set_of_locks() {
    let cluster = Cluster::start(2, "").await;

    // The nodes do not share what GET_LOCK gives out: two holders. So mysql:// refuses to work, unless there is only one.
    let url = format!("mysql://scoria:scoria@127.0.0.1:{}/scoria", cluster.0[0].port);
    let refused = Coordinator::open(&url, &Options::default()).await.unwrap();
    until("refused", || matches!(refused.health(), Health::Down(why) if why.contains("Galera"))).await;
    let error = once(&refused, "a").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("database://"), "{error}");
    refused.close().await;
    let told = Coordinator::open(&format!("{url}?single_node=true"), &Options::default()).await.unwrap();
    until("connected", || told.health() == Health::Up).await;
    soon(&told, "a").await.release().await.unwrap();
    told.close().await;

    // Of the suite all but the many pairs, which wait for the other node at each step.
    macro_rules! pass {
        ($($case:ident)*) => { $(conformance::$case(&cluster).await;)* };
    }
    pass!(exclusive_excludes shared_goes_beside_shared sets_are_all_or_none crossed_sets_do_not_deadlock
        waiting_ends_at_the_deadline waiting_ends_with_the_release waiters_are_served_in_order
        waiters_of_all_instances_are_served_in_order a_cancelled_wait_leaves_nothing release_is_awaited
        dropping_gives_back losses_are_told holders_and_waiters_are_listed tokens_rise bad_names_are_refused
        closing_gives_back a_broken_lock_is_lost_and_free never_two_inside
        no_waiter_gets_less_than_half_the_turns_of_another);
    assert_eq!(cluster.leftovers().await, Vec::<String>::new());

    // Tokens rise although each node counts for itself, also when the row goes in between.
    let (one, two) = (
        coordinator(&cluster.0[0].url(), "1", "database://").await,
        coordinator(&cluster.0[1].url(), "2", "database://").await,
    );
    let mut last = None;
    for round in 0..20 {
        let held = soon([&one, &two][round % 2], "a").await;
        assert!(held.token() > last, "{:?} after {last:?}", held.token());
        last = held.token();
        held.release().await.unwrap();
        if round % 3 == 0 {
            cluster.0[round % 2].sql("UPDATE scoria.scoria_locks SET expires_at = expires_at - 1000000 * 901");
            table(&cluster.0[round % 2].url()).sweep().await.unwrap();
        }
    }
    for node in &cluster.0 {
        assert_eq!(node.sql("SELECT @@wsrep_on"), "1");
    }
}
