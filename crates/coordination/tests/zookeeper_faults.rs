//! The ZooKeeper locks while the server, the link or the holder fails.

mod common {
    pub(crate) mod crowd;
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod peer;
    pub(crate) mod zookeeper;
}

use std::time::{Duration, Instant};

use common::crowd::Crowd;
use common::locks::{once, soon, within};
use common::peer::{CHILD, Peer};
use common::zookeeper::{LONG, admin, coordinator, eventually, open, parents, request};
use nix::sys::signal::Signal;
use scoria_coordination::{Coordinator, Error, Health, Options};
use scoria_runtime::Tasks;
use scoria_testkit::ZooKeeper;
use scoria_testkit::faults::{Link, Proxy};

/// The session timeout of most tests.
const TIMEOUT: Duration = Duration::from_secs(3);

fn quick() -> Options {
    let max_reconnect_backoff = Duration::from_millis(500);
    Options { max_reconnect_backoff, ..Options::default() }
}

async fn at(port: u16) -> Coordinator {
    let url = format!("zookeeper://127.0.0.1:{port}?timeout={}&remove_idle_after=1", TIMEOUT.as_secs());
    Coordinator::new(open(&url, &quick()).await)
}

/// What [`Peer::ours`] runs: `hold` or `hundred`. Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let (url, order) = line.split_once(' ').unwrap();
    let coordinator = coordinator(url).await;
    let mut held = Vec::new();
    for number in 0..if order == "hundred" { 100 } else { 1 } {
        held.push(soon(&coordinator, &format!("a{number}")).await);
    }
    println!("\nheld");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    println!("\n{}", if held.iter().all(|set| set.is_lost()) { "lost" } else { "not lost" });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_loses_the_lock_in_time_and_only_once() {
    let mut server = ZooKeeper::start().await.unwrap();
    let ours = at(server.port()).await;
    let held = soon(&ours, "a").await;
    server.pause().unwrap();
    let paused = Instant::now();
    tokio::time::timeout(LONG, held.lost().cancelled()).await.unwrap();
    let told = paused.elapsed();
    assert!(told > TIMEOUT / 2, "not at the first hiccup: {told:?}");
    assert!(told < TIMEOUT * 9 / 10, "after the server could have given it away: {told:?}");
    assert!(held.is_lost());
    assert!(matches!(held.verify().await, Err(Error::Lost { .. })));
    assert!(matches!(ours.health(), Health::Down(_)));
    let refused = ours.acquire(request().exclusive("b").wait(within(Duration::from_millis(100)))).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
    server.resume().unwrap();
    soon(&ours, "a").await.release().await.unwrap();
    assert!(matches!(held.release().await, Err(Error::Lost { .. })), "it never comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_again_in_time_costs_no_lock() {
    let mut server = ZooKeeper::start().await.unwrap();
    let ours = coordinator(&format!("{}?timeout=40", server.url())).await;
    let held = soon(&ours, "a").await;
    let other = coordinator(&format!("{}?timeout=40", server.url())).await;
    let waiter = other.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    eventually("a waiter", || async { server.ephemerals().is_ok_and(|nodes| nodes.len() == 2) }).await;
    server.kill();
    server.restart().await.unwrap();
    eventually("health", || async { ours.health() == Health::Up && other.health() == Health::Up }).await;
    held.verify().await.unwrap();
    assert!(!waiting.is_finished());
    held.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    assert_eq!(server.ephemerals().unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_knows_it_before_another_one_holds() {
    let server = ZooKeeper::start().await.unwrap();
    let proxy = Proxy::start(server.port()).unwrap();
    let (far, near) = (at(proxy.port()).await, at(server.port()).await);
    for link in [Link::Stalled, Link::Cut, Link::AnswersLost] {
        let held = soon(&far, "a").await;
        proxy.set(link);
        // Still in flight when the other one gets it, or sent by then: both must do no harm.
        let late = far.clone();
        let late = Tasks::new().spawn("late", async move { soon(&late, "a").await });
        let other = soon(&near, "a").await;
        // Told, and not only to be found by whoever looks at the clock.
        assert!(held.lost().is_cancelled(), "{link:?}: two holders");
        proxy.set(Link::Up);
        eventually("health", || async { far.health() == Health::Up }).await;
        assert!(!late.is_finished(), "{link:?}: two holders");
        assert!(matches!(held.release().await, Err(Error::Lost { .. })), "{link:?}");
        other.verify().await.unwrap();
        other.release().await.unwrap();
        late.await.unwrap().release().await.unwrap();
        eventually("nobody in the queue", || async { server.ephemerals().unwrap().is_empty() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_never_come_leave_no_orphan_and_cost_no_lock() {
    let server = ZooKeeper::start().await.unwrap();
    let proxy = Proxy::start(server.port()).unwrap();
    let url = format!("zookeeper://127.0.0.1:{}?timeout=20", proxy.port());
    let (far, near) = (coordinator(&url).await, at(server.port()).await);
    let lose_answers = async |until: usize| {
        eventually("done at the server", || async { server.ephemerals().unwrap().len() == until }).await;
        proxy.set(Link::Up);
        proxy.cut();
    };
    for _ in 0..3 {
        proxy.set(Link::AnswersLost);
        let (held, ()) = tokio::join!(soon(&far, "a"), lose_answers(1));
        assert_eq!(held.token(), made_by(&server).await, "adopted, not made twice");
        assert!(matches!(once(&near, "a").await, Err(Error::Busy { .. })));
        held.verify().await.unwrap();
        proxy.set(Link::AnswersLost);
        let (released, ()) = tokio::join!(held.release(), lose_answers(0));
        released.unwrap();
        once(&near, "a").await.unwrap().release().await.unwrap();

        // Given up before the answer.
        proxy.set(Link::AnswersLost);
        let given_up = async {
            drop(tokio::time::timeout(Duration::from_millis(100), far.acquire(request().exclusive("a"))).await);
        };
        tokio::join!(given_up, lose_answers(1));
        once(&near, "b").await.unwrap().release().await.unwrap();
        eventually("nobody in the queue", || async { server.ephemerals().unwrap().is_empty() }).await;
    }
}

/// The transaction that made the only contender's node.
async fn made_by(server: &ZooKeeper) -> Option<u64> {
    let nodes = server.ephemerals().unwrap();
    let [node] = &nodes[..] else { panic!("{nodes:?}") };
    let stat = admin(server).await.check_stat(node).await.unwrap().unwrap();
    stat.czxid.try_into().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_the_transaction_that_made_the_place() {
    let server = ZooKeeper::start().await.unwrap();
    let (ours, other) = (at(server.port()).await, at(server.port()).await);
    for parent in ["made with it", "there"] {
        let held = soon(&ours, "a").await;
        assert_eq!(held.token(), made_by(&server).await, "parent: {parent}");
        held.release().await.unwrap();
    }
    let held = soon(&ours, "a").await;
    let waiting = Tasks::new().spawn("waiter", async move { soon(&other, "a").await });
    eventually("a waiter", || async { server.ephemerals().is_ok_and(|nodes| nodes.len() == 2) }).await;
    held.release().await.unwrap();
    let held = waiting.await.unwrap();
    assert_eq!(held.token(), made_by(&server).await, "after waiting");
}

/// Not with the next beat, by which somebody else may have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_broken_is_told_lost_at_once() {
    let server = ZooKeeper::start().await.unwrap();
    let url = format!("{}?timeout=40", server.url());
    let options = Options { heartbeat: LONG, ..Options::default() };
    let (ours, other) = (Coordinator::new(open(&url, &options).await), coordinator(&url).await);
    let (held, bystander) = (soon(&ours, "a").await, soon(&ours, "b").await);
    assert!(other.break_lock("a").await.unwrap());
    let broken = Instant::now();
    tokio::time::timeout(LONG, held.lost().cancelled()).await.expect("the loss is told");
    assert!(broken.elapsed() < Duration::from_secs(5), "a beat comes after 13 s: {:?}", broken.elapsed());
    bystander.verify().await.unwrap();
}

/// An administrator may remove them while nobody is in there, and the node above them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_were_removed_are_made_again_and_those_of_others_are_used() {
    let server = ZooKeeper::start().await.unwrap();
    let (ours, other) = (coordinator(&server.url()).await, coordinator(&server.url()).await);
    let admin = admin(&server).await;
    soon(&ours, "a").await.release().await.unwrap();
    for node in ["/tooz/locks/cinder-a", "/tooz/locks"] {
        admin.delete(node, None).await.unwrap();
    }
    let held = soon(&ours, "a").await;
    assert!(matches!(once(&other, "a").await, Err(Error::Busy { .. })), "of another's making, and in use");
    held.release().await.unwrap();
    for node in ["/tooz/locks/cinder-a", "/tooz/locks"] {
        admin.delete(node, None).await.unwrap();
    }
    let held = soon(&other, "b").await;
    assert!(matches!(once(&ours, "b").await, Err(Error::Busy { .. })));
    held.release().await.unwrap();
    soon(&ours, "b").await.release().await.unwrap();
    assert_eq!(parents(&server).await, ["cinder-b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stopped_knows_it_first_thing() {
    let server = ZooKeeper::start().await.unwrap();
    let ours = at(server.port()).await;
    let mut other = Peer::ours(&format!("{}?timeout={}", server.url(), TIMEOUT.as_secs()), &["hold"]);
    other.says(&["held"]);
    other.signal(Signal::SIGSTOP);
    let held = soon(&ours, "a0").await;
    other.resume();
    other.signal(Signal::SIGCONT);
    assert_eq!(other.says(&["lost", "not lost"]), "lost");
    held.verify().await.unwrap();
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_locks_of_a_killed_holder_go_with_its_session() {
    let server = ZooKeeper::start().await.unwrap();
    let mut other = Peer::ours(&format!("{}?timeout={}", server.url(), TIMEOUT.as_secs()), &["hundred"]);
    other.says(&["held"]);
    other.kill();
    assert_eq!(server.ephemerals().unwrap().len(), 100);
    let ours = at(server.port()).await;
    let waits: Vec<_> = (0..100).map(|number| format!("a{number}")).collect();
    for name in &waits {
        soon(&ours, name).await.release().await.unwrap();
    }
    eventually("nothing left", || async {
        server.ephemerals().unwrap().is_empty() && parents(&server).await.is_empty()
    })
    .await;
    let connections = || server.ask("cons").unwrap().lines().filter(|line| line.contains("sid=0x")).count();
    eventually("one connection only, ours", || async { connections() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_the_server_and_goes_to_work_when_that_comes() {
    let mut server = ZooKeeper::start().await.unwrap();
    server.kill();
    let url = format!("{}?timeout={}", server.url(), TIMEOUT.as_secs());
    let ours = Coordinator::open(&url, &quick()).await.unwrap();
    assert!(matches!(once(&ours, "a").await, Err(Error::Unavailable(_))));
    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    let down = || async { matches!(ours.health(), Health::Down(why) if why.contains("no server answers")) };
    eventually("the reason", down).await;
    let listed = ours.holders().await;
    assert!(matches!(listed, Err(Error::Unavailable(_))));
    server.restart().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    ours.close().await;
}

/// Three instances, each behind a link of its own that fails again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_two_holders_and_rising_tokens_whatever_the_links_do() {
    let server = ZooKeeper::start().await.unwrap();
    let proxies = [(); 3].map(|()| Proxy::start(server.port()).unwrap());
    let crowd = Crowd::start(proxies.each_ref().map(|proxy| at(proxy.port())), &["a", "b"]).await;
    // Each of the faults on each of the links while its instance has a lock, once shorter and once longer than a session.
    for (round, time) in [TIMEOUT / 6, TIMEOUT * 3 / 2].into_iter().enumerate() {
        for (number, link) in [Link::Stalled, Link::Cut, Link::AnswersLost].into_iter().enumerate() {
            let behind = (number + round) % proxies.len();
            crowd.kept_by(behind).await;
            let before = crowd.so_far().lost;
            proxies[behind].set(link);
            tokio::time::sleep(time).await;
            assert!(time < TIMEOUT || crowd.so_far().lost > before, "{link:?}: nothing was tried");
            proxies[behind].set(Link::Up);
            proxies[behind].cut();
            crowd.goes_on().await;
        }
    }
    let summary = crowd.end().await;
    assert!(summary.acquired > 100, "{summary:?}");
}
