//! Two writable nodes of one Galera cluster.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scoria_coordination::conformance::{self, Subject};
use scoria_coordination::{Coordinator, Error, Health, Options, Provider};
use scoria_model::LockTable;
use scoria_testkit::{Process, free_port, program};
use tempfile::TempDir;

use crate::place::{sync, table};
use crate::{coordinator, once, provider, soon, until};

const PACKAGE: &str = "mariadb-server";
const START: Duration = Duration::from_secs(120);
/// Where Debian's package galera-4 puts its library.
const LIBRARY: &str = "/usr/lib/galera/libgalera_smm.so";

struct Node {
    port: u16,
    group: u16,
    directory: TempDir,
    _process: Process,
}

impl Node {
    /// The first node makes the cluster; a later one joins it and copies its data.
    async fn start(first: Option<&Node>) -> Self {
        assert!(std::path::Path::new(LIBRARY).exists(), "no {LIBRARY}: apt-get install galera-4");
        let directory = tempfile::Builder::new().prefix("scoria-galera-").tempdir().unwrap();
        let at = |option: &str, file: &str| format!("--{option}={}", directory.path().join(file).display());
        let root = nix::unistd::geteuid().is_root().then_some("--user=root");
        let mut install = Command::new(program("mariadb-install-db", PACKAGE).unwrap());
        install.env("TMPDIR", directory.path()).arg("--no-defaults").arg(at("datadir", "data")).args(root);
        install.args(["--skip-test-db", "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"]);
        let out = install.output().unwrap();
        assert!(out.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&out.stderr));
        // Started by root, the rsync daemon that receives the other node's data works as nobody.
        let open = Command::new("chmod").args(["-R", "a+rwX"]).arg(directory.path()).status().unwrap();
        assert!(open.success(), "chmod: {open}");

        let [port, group, transfer, rest] = std::array::from_fn(|_| free_port().unwrap());
        let mut command = Command::new(program("mariadbd", PACKAGE).unwrap());
        command.env("TMPDIR", directory.path()).arg("--no-defaults");
        command.args([at("datadir", "data"), at("socket", "socket"), at("pid-file", "pid")]).args(root);
        command.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--binlog-format=ROW",
            "--max-connections=500",
        ]);
        command.args(["--innodb-autoinc-lock-mode=2", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"]);
        command.args(["--innodb-flush-log-at-trx-commit=0", "--wsrep-on=ON", "--wsrep-sst-method=rsync"]);
        command.arg(format!("--port={port}")).arg(format!("--wsrep-provider={LIBRARY}"));
        command.arg(format!("--wsrep-node-address=127.0.0.1:{group}"));
        command.arg(format!("--wsrep-sst-receive-address=127.0.0.1:{transfer}"));
        command.arg(format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{rest};gcache.size=16M"
        ));
        match first {
            None => command.args(["--wsrep-new-cluster", "--wsrep-cluster-address=gcomm://"]),
            Some(first) => command.arg(format!("--wsrep-cluster-address=gcomm://127.0.0.1:{}", first.group)),
        };
        let mut process = Process::spawn("galera", command, &directory.path().join("log")).unwrap();
        let socket = directory.path().join("socket");
        let ready = async || status(&socket, "WSREP_READY").is_ok_and(|value| value == "ON");
        process.ready("answer", START, ready).await.unwrap();
        Self { port, group, directory, _process: process }
    }

    fn sql(&self, text: &str) -> String {
        sql(&self.directory.path().join("socket"), text).unwrap()
    }

    fn url(&self) -> String {
        format!("mysql+pymysql://scoria:scoria@127.0.0.1:{}/scoria?charset=utf8mb4", self.port)
    }
}

fn sql(socket: &std::path::Path, text: &str) -> Result<String, String> {
    let mut client = Command::new(program("mariadb", "mariadb-client").unwrap());
    client.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"]);
    let out = client.arg(format!("--socket={}", socket.display())).args(["--execute", text]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

fn status(socket: &std::path::Path, name: &str) -> Result<String, String> {
    let from = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME =";
    sql(socket, &format!("{from} '{name}'"))
}

struct Cluster(Vec<Node>);

impl Cluster {
    async fn start() -> Self {
        let first = Node::start(None).await;
        first.sql(
            "CREATE USER scoria@'127.0.0.1' IDENTIFIED BY 'scoria'; GRANT ALL ON *.* TO scoria@'127.0.0.1'; \
             CREATE DATABASE scoria CHARACTER SET utf8mb4",
        );
        let second = Node::start(Some(&first)).await;
        sync(&first.url()).await.close().await;
        assert_eq!(status(&first.directory.path().join("socket"), "WSREP_CLUSTER_SIZE").unwrap(), "2");
        Self(vec![first, second])
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
    let cluster = Cluster::start().await;

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

    conformance::sets_are_all_or_none(&cluster).await;
    conformance::waiting_ends_with_the_release(&cluster).await;
    conformance::crossed_sets_do_not_deadlock(&cluster).await;
    conformance::a_broken_lock_is_lost_and_free(&cluster).await;
    conformance::never_two_inside(&cluster).await;
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
