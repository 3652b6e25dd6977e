//! What happens to locks in Redis when the server, the link or the holder fails.

mod common {
    pub(crate) mod act;
    pub(crate) mod contended;
    pub(crate) mod history;
    pub(crate) mod locks;
    pub(crate) mod peer;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::act::act;
use common::contended::Contended;
use common::history::History;
use common::locks::{busy, coordinator, is, lost, once, request, soon, unconnected, until, within};
use common::peer::Peer;
use nix::sys::signal::Signal;
use scoria_coordination::{Coordinator, Error, Health, Options, providers};
use scoria_runtime::Tasks;
use scoria_testkit::Redis;
use scoria_testkit::faults::{Link, Proxy};

/// What [`Peer::ours`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    act().await;
}

async fn server() -> (Redis, String) {
    let server = Redis::start().await.unwrap();
    let url = url(server.port());
    (server, url)
}

/// That of most tests.
const LEASE: Duration = Duration::from_secs(3);

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}?lock_timeout={}", LEASE.as_secs())
}

/// Keys beside the counter of tokens.
fn keys(server: &Redis) -> Vec<String> {
    let mut keys = server.keys().unwrap();
    keys.retain(|key| key != "_tooz_scoria_token");
    keys
}

/// Who waits for `a`: claim, time to live, details.
fn first_in_line(server: &Redis) -> String {
    server.execute(&["ZRANGE", "_tooz_cinder-a_waiters", "0", "0"]).unwrap().trim().to_owned()
}

/// How often the server was asked to run a script.
fn scripts(server: &Redis) -> u64 {
    let stats = server.execute(&["INFO", "commandstats"]).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// It forgets everything: whoever holds has to know before anybody can ask the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_takes_the_locks_with_it_at_once() {
    let (mut server, url) = server().await;
    let url = url.replace("lock_timeout=3", "lock_timeout=60");
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    let killed = Instant::now();
    server.kill();
    lost(&held).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    is(&two, false).await;
    assert!(matches!(once(&two, "a").await, Err(Error::Unavailable(_))));
    server.restart().await.unwrap();
    let next = soon(&two, "a").await;
    assert!(next.token() > held.token(), "tokens rise although the counter is gone");
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.expect("the first holder's release did not touch it");
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_writes_everything_down_keeps_the_locks_when_it_dies() {
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let mut server = Redis::start_with(&settings).await.unwrap();
    let url = url(server.port()).replace("lock_timeout=3", "lock_timeout=60");
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    server.restart().await.unwrap();
    is(&one, true).await;
    is(&two, true).await;
    busy(&two, "a").await;
    held.verify().await.unwrap();
    held.release().await.unwrap();
    once(&two, "a").await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_for_longer_than_the_lease_leaves_no_two_holders() {
    let (mut server, url) = server().await;
    let (url, lease) = (url.replace("lock_timeout=3", "lock_timeout=5"), Duration::from_secs(5));
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let lock = Contended::start(&one, &two, "a").await;
    server.pause().unwrap();
    let paused = Instant::now();
    lock.is_lost_in_time(paused, lease).await;
    // The record has run out when it goes on.
    lock.is_given_to_nobody_until(paused + lease + Duration::from_secs(1)).await;
    server.resume().unwrap();
    lock.goes_to_the_waiter().await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_for_a_moment_costs_no_lock_and_one_cut_for_long_does() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (coordinator(&url(proxy.port())).await, coordinator(&direct).await);
    let held = soon(&one, "a").await;
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!held.is_lost(), "it was extended on the next connection");
    held.verify().await.unwrap();

    proxy.set(Link::Cut);
    let next = soon(&two, "a").await;
    assert!(held.lost().is_cancelled() && held.is_lost(), "two holders");
    proxy.set(Link::Up);
    is(&one, true).await;
    busy(&one, "a").await;
    drop(held);
    next.verify().await.unwrap();
    next.release().await.unwrap();
    soon(&one, "a").await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_stalls_or_loses_answers_is_noticed_before_anybody_else_can_have_the_lock() {
    let (server, direct) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let through = format!("{}&socket_connect_timeout=1", url(proxy.port()));
    let (one, two) = (coordinator(&through).await, coordinator(&direct).await);
    for link in [Link::Stalled, Link::AnswersLost] {
        let held = soon(&one, "a").await;
        proxy.set(link);
        let next = soon(&two, "a").await;
        assert!(held.lost().is_cancelled() && held.is_lost(), "{link:?}: two holders");
        proxy.set(Link::Up);
        is(&one, true).await;
        drop(held);
        tokio::time::sleep(Duration::from_secs(1)).await;
        next.verify().await.expect("what was under way in the link has not touched it");
        next.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_whose_answer_is_lost_leaves_no_orphan() {
    let (server, direct) = server().await;
    let direct = direct.replace("lock_timeout=3", "lock_timeout=60");
    let proxy = Proxy::start(server.port()).unwrap();
    let through = url(proxy.port()).replace("lock_timeout=3", "lock_timeout=60&socket_timeout=0.5");
    let (one, two) = (coordinator(&through).await, coordinator(&direct).await);
    proxy.set(Link::AnswersLost);
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(_))));
    assert!(keys(&server).contains(&"_tooz_cinder-a_lock".to_owned()), "the server did what was asked");
    proxy.set(Link::Up);
    proxy.cut();
    let asked = Instant::now();
    soon(&two, "a").await.release().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30), "an orphan");

    // Who goes on waiting finds its own record again, and has it.
    is(&one, true).await;
    proxy.set(Link::AnswersLost);
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "b").await });
    until("the record is there", || !keys(&server).is_empty()).await;
    let claim = server.execute(&["GET", "_tooz_cinder-b_lock"]).unwrap();
    proxy.set(Link::Up);
    proxy.cut();
    let held = waiting.await.unwrap();
    assert_eq!(server.execute(&["GET", "_tooz_cinder-b_lock"]).unwrap(), claim, "the same record");
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
async fn what_an_administrator_deletes_is_told_lost_and_scripts_he_flushes_come_back() {
    let (server, url) = server().await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    server.execute(&["SCRIPT", "FLUSH"]).unwrap();
    held.verify().await.unwrap();
    server.execute(&["DEL", "_tooz_cinder-a_lock"]).unwrap();
    lost(&held).await;
    drop(held);
    let held = soon(&two, "a").await;
    server.execute(&["FLUSHALL"]).unwrap();
    lost(&held).await;
    let next = soon(&one, "a").await;
    assert!(next.token() > held.token(), "tokens rise although the counter is gone");
    next.release().await.unwrap();
}

/// Deleted under a holder that cannot be told: nobody of us has the lock before the holder's time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_deleted_under_a_stopped_holder_makes_no_two_holders() {
    let (server, url) = server().await;
    let ours = coordinator(&url).await;
    let mut other = Peer::ours(&url, &["hold", "a"]);
    other.says(&["held"]);
    other.signal(Signal::SIGSTOP);
    server.execute(&["DEL", "_tooz_cinder-a_lock"]).unwrap();
    let deleted = Instant::now();
    busy(&ours, "a").await;
    let held = soon(&ours, "a").await;
    assert!(
        deleted.elapsed() >= Duration::from_secs(1),
        "{:?}: its last beat was less than a second before",
        deleted.elapsed()
    );
    other.resume();
    other.signal(Signal::SIGCONT);
    assert_eq!(other.says(&["lost", "still held"]), "lost");
    held.verify().await.unwrap();
    held.release().await.unwrap();
}

/// A holder that listens answers at once, and is not waited for until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_lock_is_broken_knows_it_before_anybody_else_has_it() {
    let (_server, url) = server().await;
    let url = url.replace("lock_timeout=3", "lock_timeout=60");
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    for _ in 0..20 {
        let held = soon(&one, "a").await;
        let waiter = two.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        assert!(two.break_lock("a").await.unwrap());
        let next = waiting.await.unwrap();
        assert!(held.lost().is_cancelled(), "two holders");
        next.release().await.unwrap();
    }
}

/// An instance whose locks live long, and whose beats do not come in between.
async fn without_beats(port: u16) -> Coordinator {
    let options = Options { heartbeat: Duration::from_secs(600), ..Options::default() };
    let url = url(port).replace("lock_timeout=3", "lock_timeout=1800");
    let coordinator = Coordinator::new(providers::open(&url, &options).await.unwrap());
    is(&coordinator, true).await;
    coordinator
}

/// Whoever gives back hands on, with the same request; also when the message is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_handed_on_with_its_release() {
    let (server, _) = server().await;
    let proxy = Proxy::start(server.port()).unwrap();
    let (one, two) = (without_beats(server.port()).await, without_beats(proxy.port()).await);
    for message_lost in [false, true] {
        let held = soon(&one, "a").await;
        let waiter = two.clone();
        let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
        until("it waits", || !first_in_line(&server).is_empty()).await;
        let claim = first_in_line(&server)[..32].to_owned();
        if message_lost {
            proxy.set(Link::AnswersLost);
        }
        let (before, asked) = (held.token(), scripts(&server));
        held.release().await.unwrap();
        assert_eq!(server.execute(&["GET", "_tooz_cinder-a_lock"]).unwrap().trim(), claim);
        if message_lost {
            proxy.set(Link::Up);
            proxy.cut();
        }
        let next = waiting.await.unwrap();
        if !message_lost {
            // It would have looked after a second.
            assert_eq!(scripts(&server) - asked, 1, "the release, and no look of the waiter");
        }
        assert!(next.token() > before);
        next.verify().await.unwrap();
        next.release().await.unwrap();
        assert_eq!(keys(&server), Vec::<String>::new());
    }
}

/// The counter counts, whatever the clock says: of a server that was ahead of this one, for example.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_go_on_from_a_counter_that_is_ahead_of_the_clock() {
    const AHEAD: u64 = 4_000_000_000_000_000;
    let (server, url) = server().await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    assert!(held.token() < Some(AHEAD));
    server.execute(&["SET", "_tooz_scoria_token", &AHEAD.to_string()]).unwrap();
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    until("it waits", || !first_in_line(&server).is_empty()).await;
    held.release().await.unwrap();
    assert_eq!(waiting.await.unwrap().token(), Some(AHEAD + 1), "handed on");
    assert_eq!(soon(&one, "b").await.token(), Some(AHEAD + 2), "taken when it was free");
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

/// The first in the queue does not answer: the next one has to come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_that_were_stopped_or_killed_hold_nobody_up() {
    let (server, url) = server().await;
    let (one, two) = (coordinator(&url).await, coordinator(&url).await);
    let held = soon(&one, "a").await;
    let mut stopped = Peer::ours(&url, &["hold", "a"]);
    stopped.says(&["waiting"]);
    let waiting = |count: usize| {
        let queue = server.execute(&["ZCARD", "_tooz_cinder-a_waiters"]).unwrap();
        queue.trim() == count.to_string()
    };
    until("it is in the queue", || waiting(1)).await;
    let mut killed = Peer::ours(&url, &["hold", "a"]);
    until("so is the second", || waiting(2)).await;
    stopped.signal(Signal::SIGSTOP);
    killed.kill();
    let waiter = two.clone();
    let last = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    until("and the last", || waiting(3)).await;
    let released = Instant::now();
    held.release().await.unwrap();
    let next = last.await.unwrap();
    assert!(released.elapsed() < Duration::from_secs(10), "{:?}", released.elapsed());
    stopped.signal(Signal::SIGCONT);
    tokio::time::sleep(Duration::from_secs(1)).await;
    next.verify().await.unwrap();
    next.release().await.unwrap();
    stopped.says(&["held"]);
    stopped.resume();
    stopped.says(&["released"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_be_opened_before_the_server_is_there() {
    let mut server = Redis::start().await.unwrap();
    server.kill();
    let one = unconnected(&url(server.port())).await;
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(_))));
    let waited = one.acquire(request("a").wait(within(Duration::from_millis(300)))).await;
    assert!(matches!(waited, Err(Error::Unavailable(_))), "{waited:?}");
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    until("it says why", || matches!(one.health(), Health::Down(why) if why.contains("127.0.0.1:"))).await;
    server.restart().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    assert_eq!(one.health(), Health::Up);
}

/// Three instances behind links that fail together, each in its way, and a fourth one that takes over; then the server stops, and is
/// started again. What the three hold meanwhile they keep for as long as they may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_two_holders_and_rising_tokens_whatever_fails() {
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let mut server = Redis::start_with(&settings).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (history, tasks) = (Arc::new(History::new(directory.path())), Tasks::new());
    let mut far = Vec::new();
    for (link, name) in [(Link::Cut, "a"), (Link::Stalled, "b"), (Link::AnswersLost, "c")] {
        let proxy = Proxy::start(server.port()).unwrap();
        far.push((coordinator(&url(proxy.port())).await, name, proxy, link));
    }
    let near = [coordinator(&url(server.port())).await];
    for (number, locks) in far.iter().map(|(locks, ..)| locks).chain(&near).enumerate() {
        for name in ["a", "b", "c"] {
            let (locks, history, stop) = (locks.clone(), history.clone(), tasks.stop_token());
            drop(tasks.spawn("worker", async move {
                let instance = format!("worker-{number}");
                while !stop.is_cancelled() {
                    // Longer than the faults: whoever gives up unheard stays in line, and delays the others when its turn comes.
                    let wanted = request(name).wait(within(Duration::from_secs(10)));
                    let Ok(held) = locks.acquire(wanted).await else { continue };
                    history.acquired(&instance, name, &held);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    history.releasing(&instance, name);
                    let _lost = held.release().await;
                }
            }));
        }
    }
    let (short, long) = (LEASE / 6, LEASE * 3 / 2);
    for fault in ["links, shortly", "links", "server", "restart"] {
        let mut kept = Vec::new();
        for (locks, name, ..) in &far {
            let held = soon(locks, name).await;
            history.acquired("keeper", name, &held);
            kept.push((held, name));
        }
        match fault {
            "server" => {
                server.pause().unwrap();
                tokio::time::sleep(long).await;
                server.resume().unwrap();
            }
            "restart" => server.restart().await.unwrap(),
            links => {
                far.iter().for_each(|(_, _, proxy, link)| proxy.set(*link));
                tokio::time::sleep(if links == "links" { long } else { short }).await;
                for (_, _, proxy, _) in &far {
                    proxy.set(Link::Up);
                    proxy.cut();
                }
            }
        }
        for (held, name) in kept {
            history.releasing("keeper", name);
            let _lost = held.release().await;
        }
        let before = history.check().unwrap().acquired;
        until("everybody goes on", || history.check().unwrap().acquired > before + 50).await;
    }
    tasks.shutdown().await;
    let summary = history.check().unwrap();
    assert!(summary.acquired > 200, "{summary:?}");
    assert!(summary.lost >= 2 * far.len(), "what was kept through the long faults: {summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_hundred_thousand_pairs_and_a_hundred_killed_holders() {
    const TASKS: u64 = 100;
    const PAIRS: u64 = 1000;
    let (server, url) = server().await;
    let mut killed = Peer::ours(&url, &["hold-many", "100"]);
    killed.says(&["held"]);
    killed.kill();
    assert_eq!(keys(&server).len(), 200, "records and details");

    let one = coordinator(&url).await;
    let before = scripts(&server);
    let tasks = Tasks::new();
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let one = one.clone();
            tasks.spawn("pairs", async move {
                for n in 0..PAIRS {
                    let held = soon(&one, &format!("{task}-{}", n % 7)).await;
                    held.release().await.unwrap();
                }
            })
        })
        .collect();
    let began = Instant::now();
    for task in running {
        task.await.unwrap();
    }
    let asked = scripts(&server) - before;
    let beats = began.elapsed().as_secs() + 2;
    assert!((2 * TASKS * PAIRS..=2 * TASKS * PAIRS + beats).contains(&asked), "one round trip each: {asked}");
    assert_eq!(one.holders().await.unwrap(), []);
    until("the killed holders' records are gone", || keys(&server).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_locks_are_held_over_one_connection_and_all_are_extended() {
    let (server, url) = server().await;
    let one = coordinator(&url).await;
    let locks = futures_util::future::join_all((0..1000).map(|n| {
        let one = one.clone();
        async move { soon(&one, &format!("volume-{n}")).await }
    }))
    .await;
    assert_eq!(keys(&server).len(), 2000, "records and details");
    let before = scripts(&server);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(scripts(&server) - before <= 2 * 7, "two scripts extend all of them");
    for held in locks {
        assert!(!held.is_lost());
        held.release().await.unwrap();
    }
    let clients = server.execute(&["CLIENT", "LIST"]).unwrap();
    assert_eq!(
        clients.lines().filter(|line| line.contains("addr=")).count(),
        3,
        "ours for requests, ours for beats, and the one that asks: {clients}"
    );
    assert_eq!(keys(&server), Vec::<String>::new());
}
