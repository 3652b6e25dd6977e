//! What happens to locks in memcached when the server, the link or the holder fails.

mod common {
    pub(crate) mod act;
    pub(crate) mod contended;
    pub(crate) mod crowd;
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::time::{Duration, Instant};

use common::act::act;
use common::contended::Contended;
use common::crowd::Crowd;
use common::locks::{SOON, busy, coordinator, is, lost, once, request, soon, unconnected, until, within};
use common::peer::Peer;
use nix::sys::signal::Signal;
use scoria_coordination::{Error, Health, Mode, Options, Owner, providers};
use scoria_runtime::Tasks;
use scoria_testkit::faults::{Link, Proxy};
use scoria_testkit::{Memcached, free_port};

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn server() -> (Memcached, String) {
    let server = Memcached::start().await.unwrap();
    let url = url(server.port());
    (server, url)
}

/// The shortest that there is.
const LEASE: Duration = Duration::from_secs(5);

fn url(port: u16) -> String {
    format!("memcached://127.0.0.1:{port}?lock_timeout={}", LEASE.as_secs())
}

/// It forgets everything: whoever holds has to know before anybody can ask the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_takes_the_locks_with_it_at_once() {
    let (mut server, url) = server().await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    server.kill();
    // Long before the record would have run out, and without a server.
    let killed = Instant::now();
    lost(&held).await;
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    is(&two, false).await;
    assert!(matches!(once(&two, "a").await, Err(Error::Unavailable(_))));
    server.restart().await.unwrap();
    let next = soon(&two, "a").await;
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.expect("the first holder's release did not touch it");
    next.release().await.unwrap();
    is(&one, true).await;
    soon(&one, "a").await.release().await.unwrap();
}

/// The numbers of the records begin anew with the server: an old one must not hit somebody else's record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_of_the_old_server_does_no_harm_on_the_new_one() {
    let (mut server, url) = server().await;
    // Without a coordinator, so that dropping it does nothing but drop it.
    let options = Options { max_reconnect_backoff: Duration::from_millis(500), ..Options::default() };
    let one = providers::open(&url, &options).await.unwrap();
    let held = one.acquire("cinder-a", Mode::Exclusive, &Owner::default(), within(SOON)).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(server.execute("add __TOOZ_LOCK_cinder-a 1 60 6\r\npython").unwrap(), ["STORED"]);
    until("connected again", || one.health() == Health::Up).await;
    drop(held);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.execute("get __TOOZ_LOCK_cinder-a").unwrap()[1], "python");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_for_longer_than_the_lease_leaves_no_two_holders() {
    let (mut server, url) = server().await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let lock = Contended::start(&one, &two, "a").await;
    server.pause().unwrap();
    let paused = Instant::now();
    lock.is_lost_in_time(paused, LEASE).await;
    lock.is_given_to_nobody_until(paused + LEASE + Duration::from_secs(1)).await;
    server.resume().unwrap();
    lock.goes_to_the_waiter().await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_is_a_loss_and_comes_back() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (coordinator(&url(proxy.port())).await, coordinator(&direct).await);
    let held = soon(&one, "a").await;
    proxy.set(Link::Cut);
    lost(&held).await;
    // Nobody has told the server.
    busy(&two, "a").await;
    let next = soon(&two, "a").await;
    proxy.set(Link::Up);
    is(&one, true).await;
    busy(&one, "a").await;
    drop(held);
    next.verify().await.unwrap();
    next.release().await.unwrap();
    soon(&one, "a").await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_link_is_noticed_before_anybody_else_can_have_the_lock() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (coordinator(&url(proxy.port())).await, coordinator(&direct).await);
    let held = soon(&one, "a").await;
    proxy.set(Link::Stalled);
    let next = soon(&two, "a").await;
    assert!(held.lost().is_cancelled() && held.is_lost(), "two holders");
    proxy.set(Link::Up);
    is(&one, true).await;
    drop(held);
    tokio::time::sleep(Duration::from_secs(1)).await;
    next.verify().await.expect("what was under way in the stalled link has not touched it");
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_whose_answer_is_lost_leaves_no_orphan() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (coordinator(&url(proxy.port())).await, coordinator(&direct).await);
    proxy.set(Link::AnswersLost);
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(_))));
    // The record itself may have been given back since, by a request whose answer was lost, too.
    let stored = server.execute("stats").unwrap();
    assert!(stored.contains(&"STAT total_items 1".to_owned()), "the server did what was asked: {stored:?}");
    proxy.set(Link::Up);
    proxy.cut();
    soon(&two, "a").await.release().await.unwrap();

    // Who goes on waiting finds its own record again, and has it.
    is(&one, true).await;
    proxy.set(Link::AnswersLost);
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "b").await });
    until("the record is there", || !server.keys().unwrap().is_empty()).await;
    proxy.set(Link::Up);
    proxy.cut();
    let held = waiting.await.unwrap();
    busy(&two, "b").await;
    held.release().await.unwrap();
    once(&two, "b").await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_answer_is_lost_is_done() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (coordinator(&url(proxy.port())).await, coordinator(&direct).await);
    let held = soon(&one, "a").await;
    proxy.set(Link::AnswersLost);
    let releasing = Tasks::new().spawn("release", held.release());
    let next = soon(&two, "a").await;
    proxy.set(Link::Up);
    proxy.cut();
    let _unknown = releasing.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    next.verify().await.expect("asking again has not touched the next one's record");
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_or_evicted_lock_is_told_lost() {
    let (server, url) = server().await;
    let one = coordinator(&url).await;
    let held = soon(&one, "a").await;
    server.execute("flush_all").unwrap();
    lost(&held).await;

    let small = Memcached::start_with(&["-m", "2"]).await.unwrap();
    let one = coordinator(&format!("{}?lock_timeout=600", small.url())).await;
    let held = soon(&one, "a").await;
    let junk = "x".repeat(90);
    let mut filled = 0;
    while !held.lost().is_cancelled() {
        assert!(filled < 3_000_000, "memcached does not evict");
        let lines: Vec<_> =
            (filled..filled + 1000).map(|n| format!("set junk-{n} 0 0 90 noreply\r\n{junk}\r\n")).collect();
        small.execute(&format!("{}version", lines.concat())).unwrap();
        filled += 1000;
    }
    assert!(held.is_lost());
}

/// One fault after the other, and three instances that want one lock. (What no lock service of this kind can stand is a server
/// that is started again while the holder's link is stalled: the holder cannot know.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_there_are_never_two_holders() {
    let (mut server, direct) = server().await;
    let proxies = [Proxy::start(server.port()).unwrap(), Proxy::start(server.port()).unwrap()];
    let urls = [url(proxies[0].port()), url(proxies[1].port()), direct];
    let crowd = Crowd::start(urls.each_ref().map(|url| coordinator(url)), &["a"]).await;
    let breath = || tokio::time::sleep(Duration::from_millis(700));
    for proxy in &proxies {
        for fault in [Link::Cut, Link::AnswersLost, Link::Stalled] {
            breath().await;
            proxy.set(fault);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            proxy.set(Link::Up);
            proxy.cut();
        }
    }
    breath().await;
    server.restart().await.unwrap();
    breath().await;
    server.pause().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.resume().unwrap();
    crowd.goes_on().await;
    let summary = crowd.end().await;
    assert!(summary.acquired > 50, "{summary:?}");
}

/// A process that was stopped asks first, and hears it from the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stopped_knows_it_before_anything_else() {
    let (_server, url) = server().await;
    let ours = coordinator(&url).await;
    let mut other = Peer::ours(&url, &["hold", "a"]);
    other.says(&["held"]);
    other.signal(Signal::SIGSTOP);
    let held = soon(&ours, "a").await;
    other.resume();
    other.signal(Signal::SIGCONT);
    assert_eq!(other.says(&["lost", "still held"]), "lost");
    held.verify().await.expect("its release has not touched ours");
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_be_opened_before_the_server_is_there() {
    let port = free_port().unwrap();
    let one = unconnected(&url(port)).await;
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(_))));
    let waited = one.acquire(request("a").wait(within(Duration::from_millis(300)))).await;
    assert!(matches!(waited, Err(Error::Unavailable(_))), "{waited:?}");
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let Health::Down(why) = one.health() else { panic!("connected to nothing") };
    assert!(why.contains(&format!("memcached at 127.0.0.1:{port}")), "{why}");
    let _server = Memcached::start_on(port, &[]).await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    assert_eq!(one.health(), Health::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_hundred_thousand_pairs_and_a_hundred_killed_holders() {
    const TASKS: usize = 100;
    const PAIRS: usize = 1000;
    const NAMES: usize = 7;
    let (server, url) = server().await;
    let mut killed = Peer::ours(&url, &["hold-many", "100"]);
    killed.says(&["held"]);
    killed.kill();
    assert_eq!(server.keys().unwrap().len(), 100);

    let one = coordinator(&url).await;
    let began = std::time::Instant::now();
    let tasks = Tasks::new();
    let mut running = Vec::new();
    for task in 0..TASKS {
        let one = one.clone();
        running.push(tasks.spawn("pairs", async move {
            for n in 0..PAIRS {
                let held = soon(&one, &format!("{task}-{}", n % NAMES)).await;
                held.release().await.unwrap();
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    assert_eq!(one.holders().await.unwrap(), []);
    let stats = server.execute("stats").unwrap();
    let stat = |name: &str| {
        let prefix = format!("STAT {name} ");
        stats.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse::<usize>().unwrap()
    };
    let of_child = 100;
    let expected = 2 * TASKS * PAIRS + of_child;
    // One of each second, of whatever is held just then.
    let beats = TASKS * (began.elapsed().as_secs() as usize + 2);
    // After the first turn with a name, then after 2, 4, 8, …, others get room, and it is looked whether any wait.
    let rooms = TASKS * NAMES * (PAIRS / NAMES).ilog2() as usize;
    for (written, besides) in [("cmd_set", beats), ("cmd_get", beats + rooms)] {
        let count = stat(written);
        assert!((expected..expected + besides).contains(&count), "one write and one look each: {written} {count}");
    }
    until("the killed holders' records are gone", || server.keys().unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_locks_are_held_over_two_connections_and_all_are_extended() {
    let (server, url) = server().await;
    let one = coordinator(&url).await;
    let locks = futures_util::future::join_all((0..1000).map(|n| {
        let one = one.clone();
        async move { soon(&one, &format!("volume-{n}")).await }
    }))
    .await;
    assert_eq!(server.keys().unwrap().len(), 1000);
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    for held in locks {
        assert!(!held.is_lost());
        held.release().await.unwrap();
    }
    let stats = server.execute("stats").unwrap();
    assert!(stats.iter().any(|line| line == "STAT curr_connections 3"), "our two and the one that asks: {stats:#?}");
    assert_eq!(server.keys().unwrap(), Vec::<String>::new());
}

/// Both connections are there a while before they are used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_closed_while_it_connects_leaves_no_connection() {
    let (server, url) = server().await;
    let connections = |count: usize| {
        let stats = server.execute("stats").unwrap();
        stats.contains(&format!("STAT curr_connections {count}"))
    };
    let one = unconnected(&url).await;
    until("two, and the one that asks", || connections(3)).await;
    assert!(matches!(one.health(), Health::Down(_)), "it is still connecting");
    tokio::time::timeout(SOON, one.close()).await.expect("closed");
    until("only the one that asks", || connections(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_memcached_cannot_take_are_refused_with_the_reason() {
    let (server, url) = server().await;
    let one = coordinator(&url).await;
    for (name, reason) in [
        ("x".repeat(232), "it is longer than 231 characters"),
        ("a b".to_owned(), "neither blanks nor control characters"),
        ("a\r\nflush_all".to_owned(), "neither blanks nor control characters"),
    ] {
        match one.acquire(request(&name).wait(within(SOON))).await {
            Err(Error::Name { reason: told, .. }) => assert!(told.contains(reason), "{told}"),
            other => panic!("{other:?}"),
        }
    }
    let longest = "x".repeat(231);
    let held = soon(&one, &longest).await;
    assert_eq!(server.keys().unwrap().iter().map(String::len).collect::<Vec<_>>(), [250]);
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_cas_is_not_used() {
    let server = Memcached::start_with(&["-C"]).await.unwrap();
    let one = unconnected(&server.url()).await;
    let why = || match one.health() {
        Health::Down(why) => why,
        Health::Up => panic!("connected"),
    };
    until("it says why", || why().contains("option -C")).await;
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(why)) if why.contains("option -C")));
}
