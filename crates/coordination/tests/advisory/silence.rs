//! Servers and links that say nothing for longer than a session lasts.

use std::time::{Duration, Instant};

use scoria_testkit::faults::{Link, Proxy};

use crate::contended::Contended;
use crate::crowd::Crowd;
use crate::faults::on_both;
use crate::{SESSION, Server, coordinator};

async fn it_is_told_before_the_session_s_time_is_over(mut server: Server) {
    let proxy = Proxy::start(server.port()).unwrap();
    let (behind, direct) = (coordinator(&server.url_at(proxy.port())).await, coordinator(&server.url()).await);

    // The server hears us and thinks that we go on holding; we hear nothing, and nobody asks.
    let lock = Contended::start(&behind, &direct, "a").await;
    proxy.set(Link::AnswersLost);
    lock.is_lost_in_time(Instant::now(), SESSION).await;
    lock.goes_to_the_waiter().await.release().await.unwrap();

    let lock = Contended::start(&direct, &coordinator(&server.url()).await, "a").await;
    server.pause();
    let since = Instant::now();
    lock.is_lost_in_time(since, SESSION).await;
    lock.is_given_to_nobody_until(since + SESSION + Duration::from_secs(1)).await;
    server.resume();
    lock.goes_to_the_waiter().await.release().await.unwrap();
}

/// Three instances that want one lock all the time. (A link that is cut frees the lock at once, and its holder hears of that a
/// moment later: that is what the documentation says of these services.)
async fn whatever_is_silent_there_are_never_two_holders(mut server: Server) {
    let proxies: [_; 2] = std::array::from_fn(|_| Proxy::start(server.port()).unwrap());
    let urls = [server.url_at(proxies[0].port()), server.url_at(proxies[1].port()), server.url()];
    let crowd = Crowd::start(urls.each_ref().map(|url| coordinator(url)), &["a"]).await;
    crowd.goes_on().await;
    crowd.kept().await;
    for (proxy, fault) in proxies.iter().zip([Link::Stalled, Link::AnswersLost]) {
        proxy.set(fault);
    }
    tokio::time::sleep(SESSION).await;
    for proxy in &proxies {
        // Whoever held through it knows that it has lost; what was under way ends here.
        proxy.cut();
        proxy.set(Link::Up);
    }
    crowd.goes_on().await;
    crowd.kept().await;
    server.pause();
    tokio::time::sleep(SESSION + Duration::from_secs(1)).await;
    server.resume();
    crowd.goes_on().await;
    crowd.kept().await;
    server.kill();
    server.restart().await;
    crowd.goes_on().await;
    let summary = crowd.end().await;
    // At least where the server itself said nothing.
    assert!(summary.acquired > 30 && summary.lost >= 2, "{summary:?}");
}

on_both!(it_is_told_before_the_session_s_time_is_over whatever_is_silent_there_are_never_two_holders);
