//! What locks on ZooKeeper cost: requests, watches.

mod common {
    pub(crate) mod locks;
    pub(crate) mod zookeeper;
}

use common::locks::soon;
use common::zookeeper::{LONG, eventually, open};
use scoria_coordination::{Coordinator, Options};
use scoria_runtime::Tasks;
use scoria_testkit::ZooKeeper;
use scoria_testkit::faults::{Link, Proxy};

/// A server that grants sessions so long that no beat comes in between.
async fn server() -> ZooKeeper {
    ZooKeeper::start_with("maxSessionTimeout=1200000\n").await.unwrap()
}

/// An instance whose beats do not get in between.
async fn quiet(port: u16) -> Coordinator {
    let options = Options { heartbeat: LONG, ..Options::default() };
    Coordinator::new(open(&format!("zookeeper://127.0.0.1:{port}?timeout=1200"), &options).await)
}

/// How many requests the server has got over all connections that it has now.
fn requests(server: &ZooKeeper) -> u64 {
    let connections = server.ask("cons").unwrap();
    let counts = connections.split("recved=").skip(1).filter_map(|rest| rest.split(',').next());
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// A name that is new, as nearly all are, or has been used: the server has got all questions before anybody has got an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_lock_is_one_round_trip_the_first_time_too() {
    let server = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let ours = quiet(proxy.port()).await;
    // The first one there makes the parent too, in one transaction; later it has to be listed who is there.
    for (name, last, count) in [("new", "lop=EXIS", 2), ("new", "lop=GETC", 2), ("other", "lop=EXIS", 2)] {
        let before = requests(&server);
        proxy.set(Link::AnswersLost);
        let asked = async {
            let got = || server.ask("cons").is_ok_and(|connections| connections.contains(last));
            eventually("all is asked", || async { got() && server.ephemerals().unwrap().len() == 1 }).await;
            // The questions of this test come over connections that are gone by now.
            assert_eq!(requests(&server) - before, count, "{name}");
            proxy.set(Link::Up);
            proxy.cut();
        };
        let (held, ()) = tokio::join!(soon(&ours, name), asked);
        held.release().await.unwrap();
    }
}

/// How many sessions watch each contender, in the order of the queue, and how many watches there are.
fn watches(server: &ZooKeeper) -> (Vec<usize>, usize) {
    let watches = server.ask("wchp").unwrap();
    let of_node = |node: &String| {
        let sessions = watches.lines().skip_while(|line| line != node).skip(1);
        sessions.take_while(|line| line.starts_with('\t')).count()
    };
    let mut queue = server.ephemerals().unwrap();
    queue.sort_by_key(|node| node.rsplit("__").next().map(str::to_owned));
    (queue.iter().map(of_node).collect(), watches.lines().filter(|line| line.starts_with('\t')).count())
}

/// Waits until there are these watches, and no other ones.
async fn watched_by(server: &ZooKeeper, expected: &[usize]) {
    let expected = (expected.to_vec(), expected.iter().sum());
    eventually(&format!("watched by {expected:?}"), || async { watches(server) == expected }).await;
}

/// The first time it is told that the parent is there: two requests, sent together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_instance_has_used_costs_a_round_trip_more_the_first_time() {
    let server = server().await;
    let (ours, other) = (quiet(server.port()).await, quiet(server.port()).await);
    for round_trips in [2, 1] {
        let held = soon(&other, "a").await;
        watched_by(&server, &[1]).await;
        let before = requests(&server);
        let waiter = ours.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        watched_by(&server, &[2, 1]).await;
        let watches = 2;
        assert_eq!(requests(&server) - before, 2 * round_trips + watches);
        held.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        watched_by(&server, &[]).await;
    }
}

/// However many wait: who comes next has nothing more to ask, and all who come later look once when it is their turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_wakes_the_next_one_alone() {
    let server = server().await;
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(quiet(server.port()).await);
    }
    let mut held = soon(&instances[0], "a").await;
    let mut waiting = Vec::new();
    for (place, ours) in instances.iter().cloned().enumerate().skip(1) {
        waiting.push(Tasks::new().spawn("waiter", async move { soon(&ours, "a").await }));
        eventually("in the queue", || async { server.ephemerals().unwrap().len() == place + 1 }).await;
    }
    // Each watches the one before it, whoever has the lock itself, and so does the next one already.
    watched_by(&server, &[2, 2, 1, 0]).await;
    let (release, look, watch) = (1, 1, 1);
    for (waiter, (left, cost)) in waiting.into_iter().zip([
        (&[2, 1, 0][..], release),
        (&[2, 0], release + look + watch),
        (&[1], release + look + watch),
    ]) {
        let before = requests(&server);
        held.release().await.unwrap();
        held = waiter.await.unwrap();
        watched_by(&server, left).await;
        assert_eq!(requests(&server) - before, cost);
    }
    held.release().await.unwrap();
    watched_by(&server, &[]).await;
}
