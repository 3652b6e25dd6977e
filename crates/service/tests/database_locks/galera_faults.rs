//! Nodes of a Galera cluster that die, stop and are cut off from the others.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoria_coordination::Error;
use scoria_testkit::faults::{Link, Proxy};

use crate::contended::Contended;
use crate::coordinator;
use crate::crowd::Crowd;
use crate::galera::{Cluster, QUICK, url_at};
use crate::locks::{once, until};

const LEASE: Duration = Duration::from_secs(6);
const URL: &str = "database://?lock_timeout=6";

/// Three nodes, an instance on each, all of which want one lock all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_one_node_there_are_never_two_holders() {
    let mut cluster = Cluster::start(3, QUICK).await;
    let proxies: Vec<_> = cluster.0.iter().map(|node| Proxy::start(node.port()).unwrap()).collect();
    let urls: [_; 3] = std::array::from_fn(|node| url_at(proxies[node].port()));
    let all = ["one", "two", "three"].into_iter().zip(&urls);
    let crowd = Crowd::start(all.map(|(name, url)| coordinator(url, name, URL)), &["crowded"]).await;
    crowd.goes_on().await;

    // It is cut off from the other two, which go on. Its own holder is told before one of theirs has the lock.
    let alone = coordinator(&urls[2], "alone", URL).await;
    let other = coordinator(&urls[0], "other", URL).await;
    let lock = Contended::start(&alone, &other, "a").await;
    let isolate = |yes: u8| cluster.0[2].sql(&format!("SET GLOBAL wsrep_provider_options = 'gmcast.isolate={yes}'"));
    crowd.kept().await;
    let since = Instant::now();
    isolate(1);
    lock.is_lost_in_time(since, LEASE).await;
    let next = lock.goes_to_the_waiter().await;
    until("alone", || cluster.0[2].status("WSREP_CLUSTER_STATUS") == "non-Primary").await;
    let refused = once(&alone, "b").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    isolate(0);
    next.verify().await.unwrap();
    next.release().await.unwrap();
    until("together again", || cluster.0[0].status("WSREP_CLUSTER_SIZE") == "3").await;
    crowd.goes_on().await;

    // It stands still for longer than a lease.
    crowd.kept().await;
    cluster.0[2].signal(Signal::SIGSTOP);
    tokio::time::sleep(LEASE).await;
    cluster.0[2].signal(Signal::SIGCONT);
    crowd.goes_on().await;

    // It dies with its disk, and copies everything from the others when it comes back.
    crowd.kept().await;
    cluster.0[2].kill();
    cluster.restart_last().await;
    crowd.goes_on().await;

    for (proxy, fault) in proxies.iter().zip([Link::Stalled, Link::AnswersLost, Link::Cut]) {
        crowd.kept().await;
        proxy.set(fault);
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.set(Link::Up);
        proxy.cut();
        crowd.goes_on().await;
    }

    let summary = crowd.end().await;
    assert!(summary.acquired > 30, "{summary:?}");
}
