//! Servers and links that say nothing for longer than a session lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scoria_coordination::{Coordinator, Error, LockSet};
use scoria_runtime::Tasks;
use scoria_testkit::faults::{Link, Proxy};
use tokio::task::JoinHandle;

use crate::faults::on_both;
use crate::history::History;
use crate::{SESSION, SOON, Server, coordinator, soon, until, within};

/// Somebody who waits for a lock, and by then its holder knows that it is lost.
fn waits(waiter: &Coordinator, held: &LockSet) -> JoinHandle<LockSet> {
    let (waiter, lost) = (waiter.clone(), held.lost());
    Tasks::new().spawn("waiter", async move {
        let next = soon(&waiter, "a").await;
        assert!(lost.is_cancelled(), "two holders");
        next
    })
}

async fn is_lost_in_time(held: &LockSet, since: Instant) {
    tokio::time::timeout(SOON, held.lost().cancelled()).await.expect("the loss is told");
    assert!(since.elapsed() < SESSION, "{:?}", since.elapsed());
}

async fn it_is_told_before_the_session_s_time_is_over(mut server: Server) {
    let proxy = Proxy::start(server.port()).unwrap();
    let (behind, direct) = (coordinator(&server.url_at(proxy.port())).await, coordinator(&server.url()).await);

    // The server hears us and thinks that we go on holding; we hear nothing, and nobody asks.
    let held = soon(&behind, "a").await;
    let waiting = waits(&direct, &held);
    proxy.set(Link::AnswersLost);
    let since = Instant::now();
    is_lost_in_time(&held, since).await;
    let next = waiting.await.unwrap();
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.expect("the first one's release has not touched it");
    next.release().await.unwrap();

    let (held, other) = (soon(&direct, "a").await, coordinator(&server.url()).await);
    let waiting = waits(&other, &held);
    server.pause();
    let since = Instant::now();
    is_lost_in_time(&held, since).await;
    tokio::time::sleep_until((since + SESSION + Duration::from_secs(1)).into()).await;
    assert!(!waiting.is_finished(), "nobody can give it the lock");
    server.resume();
    let next = waiting.await.unwrap();
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    next.verify().await.unwrap();
    next.release().await.unwrap();
}

/// Three instances that want one lock all the time. (A link that is cut frees the lock at once, and its holder hears of that a
/// moment later: that is what the documentation says of these services.)
async fn whatever_is_silent_there_are_never_two_holders(mut server: Server) {
    let proxies: [_; 2] = std::array::from_fn(|_| Proxy::start(server.port()).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (history, turns) = (Arc::new(History::new(directory.path())), Arc::<[AtomicUsize; 3]>::default());
    // Whoever has the lock keeps it until it is lost; somebody does.
    let (keeps, kept) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tasks, mut running) = (Tasks::new(), Vec::new());
    let urls = [server.url_at(proxies[0].port()), server.url_at(proxies[1].port()), server.url()];
    for (number, (instance, url)) in ["one", "two", "three"].into_iter().zip(urls).enumerate() {
        let (ours, history, turns) = (coordinator(&url).await, history.clone(), turns.clone());
        let (keeps, kept, stop) = (keeps.clone(), kept.clone(), tasks.stop_token());
        running.push(tasks.spawn("instance", async move {
            while !stop.is_cancelled() {
                let Ok(held) = within(&ours, "a", Duration::from_millis(500)).await else { continue };
                history.acquired(instance, "a", &held);
                turns[number].fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                while keeps.load(Ordering::SeqCst) && !held.lost().is_cancelled() {
                    kept.store(true, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                history.releasing(instance, "a");
                let _ = held.release().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    let somebody_keeps_it = async || {
        kept.store(false, Ordering::SeqCst);
        keeps.store(true, Ordering::SeqCst);
        until("somebody has it", || kept.load(Ordering::SeqCst)).await;
    };
    let everybody_goes_on = async || {
        keeps.store(false, Ordering::SeqCst);
        let now = || turns.each_ref().map(|turns| turns.load(Ordering::SeqCst));
        let before = now();
        let further = || now().iter().zip(before).all(|(now, before)| *now >= before + 3);
        until("everybody goes on", further).await;
    };
    everybody_goes_on().await;
    somebody_keeps_it().await;
    for (proxy, fault) in proxies.iter().zip([Link::Stalled, Link::AnswersLost]) {
        proxy.set(fault);
    }
    tokio::time::sleep(SESSION).await;
    for proxy in &proxies {
        // Whoever held through it knows that it has lost; what was under way ends here.
        proxy.cut();
        proxy.set(Link::Up);
    }
    everybody_goes_on().await;
    somebody_keeps_it().await;
    server.pause();
    tokio::time::sleep(SESSION + Duration::from_secs(1)).await;
    server.resume();
    everybody_goes_on().await;
    somebody_keeps_it().await;
    server.kill();
    server.restart().await;
    everybody_goes_on().await;
    tasks.shutdown().await;
    for instance in running {
        instance.await.unwrap();
    }
    let summary = history.check().unwrap();
    // At least where the server itself said nothing.
    assert!(summary.acquired > 30 && summary.lost >= 2, "{summary:?}");
}

on_both!(it_is_told_before_the_session_s_time_is_over whatever_is_silent_there_are_never_two_holders);
