//! The ZooKeeper locks beside real tooz processes.
//!
//! `SCORIA_PEER_VENV` names a Python environment with tooz (default the repository's `.tools/peer-venv`).

mod common {
    pub(crate) mod act;
    pub(crate) mod locks;
    pub(crate) mod peer;
    pub(crate) mod zookeeper;
}

use std::time::Duration;

use common::act::{act, count};
use common::locks::{once, soon, within};
use common::peer::{Peer, python_tries};
use common::zookeeper::{LONG, admin, coordinator, eventually, parents, request};
use scoria_coordination::{Coordinator, Error, Health, Mode, Options};
use scoria_runtime::Tasks;
use scoria_testkit::ZooKeeper;
use zookeeper_client::{Acl, Client};

/// The session timeout of both kinds.
fn url(server: &ZooKeeper) -> String {
    format!("{}?timeout=4&remove_idle_after=1", server.url())
}

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_holds_and_we_stay_out_until_it_lets_go() {
    let server = ZooKeeper::start().await.unwrap();
    let url = url(&server);
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    assert!(matches!(once(&ours, "a").await, Err(Error::Busy { .. })));
    let shared = request().shared("a").wait(within(Duration::from_millis(50)));
    let error = ours.acquire(shared).await.unwrap_err().to_string();
    assert!(error.contains("cinder-python"), "{error} does not name the member");

    let holders = ours.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:#?}");
    assert_eq!((holders[0].name.as_str(), holders[0].mode, holders[0].held), ("a", Mode::Exclusive, true));

    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    python.let_go();
    let held = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(python_tries(&url, "a"), "busy");
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_hold_and_python_stays_out_until_we_let_go() {
    let server = ZooKeeper::start().await.unwrap();
    let url = url(&server);
    let ours = coordinator(&url).await;
    for mode in [Mode::Exclusive, Mode::Shared] {
        let wanted = match mode {
            Mode::Exclusive => request().exclusive("a"),
            Mode::Shared => request().shared("a"),
        };
        let held = ours.acquire(wanted).await.unwrap();
        assert_eq!(python_tries(&url, "a"), "busy", "{mode:?}");
        let mut python = Peer::python(&url, &["hold", "a"]);
        python.says(&["waiting"]);
        eventually("Python in the queue", || async { ours.holders().await.unwrap().len() == 2 }).await;
        let waits = ours.holders().await.unwrap().into_iter().find(|holder| !holder.held).unwrap();
        assert_eq!(waits.instance, "cinder-python");
        held.verify().await.unwrap();
        held.release().await.unwrap();
        python.says(&["held"]);
        assert!(matches!(once(&ours, "a").await, Err(Error::Busy { .. })));
        python.let_go();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_count_together_and_never_are_two_inside() {
    let server = ZooKeeper::start().await.unwrap();
    let (url, directory) = (url(&server), tempfile::tempdir().unwrap());
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let path = file.to_str().unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::python(&url, &["count", "a", path, "40"]));
        // Four tasks each.
        peers.push(Peer::ours(&url, &["count", "a", path, "10"]));
    }
    count(coordinator(&url).await, "a".to_owned(), file.clone(), 40).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (7 * 40).to_string());
    eventually("nobody in the queue", || async { server.ephemerals().unwrap().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_frees_its_lock_with_its_session() {
    let server = ZooKeeper::start().await.unwrap();
    let url = url(&server);
    let ours = coordinator(&url).await;
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    python.kill();
    assert!(matches!(once(&ours, "a").await, Err(Error::Busy { .. })));
    soon(&ours, "a").await.release().await.unwrap();

    let mut other = Peer::ours(&url, &["hold", "a"]);
    other.says(&["held"]);
    let holders = ours.holders().await.unwrap();
    assert_eq!(holders[0].owner.request_id.as_deref(), Some("req-7"));
    other.kill();
    let mut python = Peer::python(&url, &["hold", "a"]);
    python.says(&["held"]);
    python.let_go();
}

/// A parent of our making goes when nobody needs it, never from under a Python waiter or holder; those of Python's making stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_are_removed_without_disturbing_python() {
    let server = ZooKeeper::start().await.unwrap();
    let url = url(&server);
    let ours = coordinator(&url).await;
    python_tries(&url, "of-python");
    for name in ["of-python", "used", "unused"] {
        soon(&ours, name).await.release().await.unwrap();
    }
    let held = soon(&ours, "used").await;
    let mut python = Peer::python(&url, &["hold", "used"]);
    eventually("Python in the queue", || async { server.ephemerals().unwrap().len() == 2 }).await;
    eventually("the unused one is removed", || async { !parents(&server).await.contains(&"cinder-unused".to_owned()) })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    held.release().await.unwrap();
    python.says(&["held"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    python.let_go();
    let mut left = parents(&server).await;
    left.sort();
    assert_eq!(left, ["cinder-of-python", "cinder-used"]);
    eventually("the used one is removed", || async { parents(&server).await == ["cinder-of-python"] }).await;

    // Python and we make it anew.
    let mut python = Peer::python(&url, &["hold", "used"]);
    python.says(&["held"]);
    python.let_go();
    soon(&ours, "unused").await.release().await.unwrap();
}

/// Why parents stay for long: kazoo looks for the parent and then makes its contender below it, and an operation fails whose
/// parent goes in between. Nothing that happens to a lock in use removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_newcomer_finds_the_parent_that_it_has_just_seen() {
    let server = ZooKeeper::start().await.unwrap();
    let ours = coordinator(&format!("{}?timeout=4", server.url())).await;
    let held = soon(&ours, "a").await;
    let mut newcomer = Peer::script("zookeeper_newcomer.py", &server.url(), &["a"]);
    newcomer.says(&["assured"]);
    held.release().await.unwrap();
    for _ in 0..10 {
        soon(&ours, "a").await.release().await.unwrap();
    }
    newcomer.resume();
    assert_eq!(newcomer.says(&["got", "NoNodeError"]), "got");
    newcomer.kill();

    let mut newcomer = Peer::script("zookeeper_newcomer.py", &server.url(), &["b"]);
    newcomer.says(&["assured"]);
    admin(&server).await.delete("/tooz/locks/cinder-b", None).await.unwrap();
    newcomer.resume();
    let said = newcomer.says(&["got", "NoNodeError"]);
    assert_eq!(
        said, "NoNodeError",
        "if it got the lock, kazoo has learned to make the parent again, and parents may go at once"
    );
}

/// What a killed instance leaves is found by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_a_killed_instance_left_are_removed() {
    let server = ZooKeeper::start().await.unwrap();
    let url = url(&server);
    let mut other = Peer::ours(&url, &["hold", "a"]);
    other.says(&["held"]);
    other.kill();
    let _ours = coordinator(&url).await;
    eventually("parents removed", || async { parents(&server).await.is_empty() }).await;
}

/// Go's and Curator's recipe: its contenders exclude us, at their place in the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_of_other_recipes_are_respected() {
    use zookeeper_client::{Acls, CreateMode};
    let server = ZooKeeper::start().await.unwrap();
    let ours = coordinator(&url(&server)).await;
    let held = soon(&ours, "a").await;
    let go = admin(&server).await;
    let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let prefix = "/tooz/locks/cinder-a/_c_0123-lock-";
    let (_, number) = go.create(prefix, b"", &options).await.unwrap();
    held.release().await.unwrap();
    assert!(matches!(once(&ours, "a").await, Err(Error::Busy { .. })));
    go.delete(&format!("{prefix}{number}"), None).await.unwrap();
    once(&ours, "a").await.unwrap().release().await.unwrap();
}

/// With a user and a password both make nodes that only they may touch, and each can work below the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_password_only_those_who_know_it_get_in() {
    let server = ZooKeeper::start().await.unwrap();
    let with = |user: &str| format!("zookeeper://{user}@127.0.0.1:{}?timeout=4", server.port());
    let ours = coordinator(&with("cinder:secret")).await;
    for name in ["of-ours", "of-python"] {
        if name == "of-ours" {
            soon(&ours, name).await.release().await.unwrap();
        }
        let mut python = Peer::python(&with("cinder:secret"), &["hold", name]);
        python.says(&["held"]);
        assert!(matches!(once(&ours, name).await, Err(Error::Busy { .. })));
        python.let_go();
        once(&ours, name).await.unwrap().release().await.unwrap();
    }
    let stranger = admin(&server).await;
    assert_eq!(stranger.list_children("/tooz/locks/cinder-of-ours").await, Err(zookeeper_client::Error::NoAuth));
    let stranger = Coordinator::open(&with("cinder:wrong"), &Options::default()).await.unwrap();
    eventually("a session", || async { matches!(stranger.health(), Health::Up) }).await;
    let error = once(&stranger, "of-ours").await.unwrap_err().to_string();
    assert!(error.contains("another user and password") && !error.contains("wrong"), "{error}");
}

/// The access to each node on the way to the only contender for `a`.
async fn access(admin: &Client, namespace: &str) -> Vec<Vec<Acl>> {
    let parent = format!("/{namespace}/locks/cinder-a");
    let contender = admin.list_children(&parent).await.unwrap().pop().unwrap();
    let mut all = Vec::new();
    for node in [&format!("/{namespace}"), &format!("/{namespace}/locks"), &parent, &format!("{parent}/{contender}")] {
        all.push(admin.get_acl(node).await.unwrap().0);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_make_nodes_with_the_same_access() {
    let server = ZooKeeper::start().await.unwrap();
    let admin = Client::connector().with_auth("digest", b"cinder:secret");
    let admin = admin.connect(&format!("127.0.0.1:{}", server.port())).await.unwrap();
    for (user, scheme) in [("", "world"), ("cinder:secret@", "digest")] {
        let namespaces = [format!("python-{scheme}"), format!("ours-{scheme}")];
        let in_namespace = |namespace| format!("zookeeper://{user}127.0.0.1:{}?namespace={namespace}", server.port());
        let [of_python, of_ours] = namespaces.each_ref().map(in_namespace);
        let mut python = Peer::python(&of_python, &["hold", "a"]);
        let held = soon(&coordinator(&of_ours).await, "a").await;
        python.says(&["held"]);
        let of_ours = access(&admin, &namespaces[1]).await;
        assert_eq!(of_ours, access(&admin, &namespaces[0]).await);
        assert_eq!(of_ours[0][0].scheme(), scheme);
        held.release().await.unwrap();
        python.let_go();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_url_says_both_go_to_the_same_place() {
    let server = ZooKeeper::start().await.unwrap();
    let at = format!("127.0.0.1:{}", server.port());
    for (url, locks) in [
        (format!("kazoo://{at}?timeout=4"), "/tooz/locks"),
        (format!("zookeeper://{at}?timeout=4&namespace=rack&hosts={at}/cloud"), "/cloud/rack/locks"),
    ] {
        let mut python = Peer::python(&url, &["hold", "a"]);
        python.says(&["held"]);
        let ours = coordinator(&url).await;
        assert!(matches!(once(&ours, "a").await, Err(Error::Busy { .. })), "{url}");
        python.let_go();
        let held = soon(&ours, "a").await;
        let nodes = server.ephemerals().unwrap();
        assert!(nodes.iter().any(|node| node.starts_with(&format!("{locks}/cinder-a/"))), "{url}: {nodes:?}");
        assert_eq!(python_tries(&url, "a"), "busy", "{url}");
        held.release().await.unwrap();
        ours.close().await;
    }
}
