//! Servers, links and processes that fail.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoria_coordination::{Coordinator, Error, Health, Options};
use scoria_runtime::Tasks;
use scoria_testkit::faults::{Link, Proxy};

use crate::locks::{SOON, lost, once, request, soon, until, within};
use crate::peers::ours;
use crate::{Server, coordinator, options};

async fn the_server_dies_and_comes_back(mut server: Server) {
    let (one, two) = (coordinator(&server.url()).await, coordinator(&server.url()).await);
    let held = soon(&one, "a").await;
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    lost(&held).await;
    until("down", || matches!(one.health(), Health::Down(_))).await;
    assert!(matches!(once(&one, "b").await, Err(Error::Unavailable(_))));
    server.restart().await;
    let held = tokio::time::timeout(SOON, waiting).await.expect("the waiter gets it after the restart").unwrap();
    until("up", || one.health() == Health::Up).await;
    assert!(matches!(once(&one, "a").await, Err(Error::Busy { .. })));
    held.release().await.unwrap();
}

async fn it_starts_without_the_server(mut server: Server) {
    server.kill();
    let one = Coordinator::open(&server.url(), &options("one")).await.unwrap();
    assert!(matches!(one.health(), Health::Down(_)));
    assert!(matches!(once(&one, "a").await, Err(Error::Unavailable(_))));
    let waited = one.acquire(request("a").wait(within(Duration::from_millis(200)))).await;
    assert!(matches!(waited, Err(Error::Unavailable(_))));
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    server.restart().await;
    waiting.await.unwrap().release().await.unwrap();
}

/// An administrator ends the connection of a holder, which frees the lock at the server at once: the holder hears of it long
/// before the next beat.
async fn a_killed_connection_is_noticed_at_once(server: Server) {
    let heartbeat = Duration::from_secs(60);
    let url = server.url().replace("session_timeout=3", "session_timeout=240");
    let here = Coordinator::open(&url, &Options { heartbeat, ..options("one") }).await.unwrap();
    let (held, other) = (soon(&here, "a").await, soon(&here, "b").await);
    server.end_holder_of("a");
    let killed = Instant::now();
    lost(&held).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    // So it is where another Scoria takes the lock away.
    assert!(coordinator(&url).await.break_lock("b").await.unwrap());
    let broken = Instant::now();
    lost(&other).await;
    assert!(broken.elapsed() < Duration::from_secs(5), "{:?}", broken.elapsed());
}

/// The holder is behind a proxy, the other one is not.
async fn links_fail(server: Server) {
    let proxy = Proxy::start(server.port()).unwrap();
    let (behind, direct) = (coordinator(&server.url_at(proxy.port())).await, coordinator(&server.url()).await);

    // Cut: lost at once, and free.
    let held = soon(&behind, "a").await;
    proxy.set(Link::Cut);
    let theirs = soon(&direct, "a").await;
    lost(&held).await;
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    theirs.release().await.unwrap();
    proxy.set(Link::Up);

    // Silent: lost before the server gives up on us and somebody else can have it.
    let held = soon(&behind, "a").await;
    proxy.set(Link::Stalled);
    let theirs = soon(&direct, "a").await;
    assert!(held.lost().is_cancelled() && held.is_lost(), "two holders");
    drop(held);
    theirs.release().await.unwrap();
    proxy.set(Link::Up);
    proxy.cut();

    // The answer to an attempt is lost: nothing stays behind, and nobody believes to hold anything.
    soon(&behind, "a").await.release().await.unwrap();
    proxy.set(Link::AnswersLost);
    assert!(behind.acquire(request("a").wait(within(Duration::from_millis(500)))).await.is_err());
    soon(&direct, "a").await.release().await.unwrap();
    proxy.set(Link::Up);
    proxy.cut();

    // The answer to a release is lost: nobody knows, so it is no success; and it is free.
    let held = soon(&behind, "a").await;
    proxy.set(Link::AnswersLost);
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    soon(&direct, "a").await.release().await.unwrap();
    proxy.set(Link::Up);
    proxy.cut();

    // A waiter whose link goes silent queues up anew.
    let held = soon(&direct, "a").await;
    let waiter = behind.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    held.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

/// A stopped process keeps its lock for `session_timeout`; then it is somebody else's, and the process knows it before anything
/// else when it goes on.
async fn a_stopped_holder_knows_that_it_has_lost(server: Server) {
    let here = coordinator(&server.url()).await;
    let mut stopped = ours(&server.url(), &["hold", "a"]);
    stopped.says(&["held"]);
    stopped.signal(Signal::SIGSTOP);
    let held = soon(&here, "a").await;
    stopped.resume();
    stopped.signal(Signal::SIGCONT);
    assert_eq!(stopped.says(&["lost", "still held"]), "lost");
    assert_eq!(stopped.says(&["was lost", "released"]), "was lost");
    held.verify().await.unwrap();
    held.release().await.unwrap();
}

/// Makes a test of each case on each of the two servers.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::Server::mysql().await).await;
            })*
        }

        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::Server::postgres().await).await;
            })*
        }
    };
}

pub(crate) use on_both;

on_both!(the_server_dies_and_comes_back it_starts_without_the_server a_killed_connection_is_noticed_at_once links_fail a_stopped_holder_knows_that_it_has_lost);
