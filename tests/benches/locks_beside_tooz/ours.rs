//! The same measurements of Scoria's locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use scoria_coordination::{Coordinator, Health, LockRequest, Options, Owner};

use crate::report::Measured;

/// Locks in flight at once on one connection.
const IN_FLIGHT: usize = 1000;

async fn coordinator(url: &str) -> Result<Coordinator> {
    let coordinator = Coordinator::open(url, &Options::default()).await?;
    let end = Instant::now() + Duration::from_secs(30);
    while coordinator.health() != Health::Up {
        anyhow::ensure!(Instant::now() < end, "{url}: {:?}", coordinator.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(coordinator)
}

fn name() -> String {
    format!("{}-delete_volume", uuid::Uuid::new_v4())
}

fn wanted(name: &str) -> LockRequest {
    LockRequest::new(Owner { operation: "delete_volume".to_owned(), ..Owner::default() }).exclusive(name)
}

/// All of it, on one service.
pub(crate) async fn measure(url: String, time: Duration) -> Result<Measured> {
    let url = url.as_str();
    Ok(Measured {
        free: free(url, time).await.context("free locks")?,
        rate: rate(url, time, 32).await.context("32 locks")?,
        in_flight: Some(rate(url, time, IN_FLIGHT).await.context("1000 locks")?),
        hand_over: hand_over(url, time).await.context("hand-over")?,
        turns: turns(url, time).await.context("turns")?,
    })
}

async fn free(url: &str, time: Duration) -> Result<Vec<Duration>> {
    let (one, name) = (coordinator(url).await?, name());
    let (mut taken, end) = (Vec::new(), Instant::now() + time);
    while Instant::now() < end {
        let began = Instant::now();
        one.acquire(wanted(&name)).await?.release().await?;
        taken.push(began.elapsed());
    }
    one.close().await;
    Ok(taken)
}

/// Pairs per second over so many locks, one task each.
async fn rate(url: &str, time: Duration, locks: usize) -> Result<f64> {
    let one = coordinator(url).await?;
    let end = Instant::now() + time;
    let began = Instant::now();
    let counts = try_join_all((0..locks).map(|_| async {
        let (name, mut count) = (name(), 0_u32);
        while Instant::now() < end {
            one.acquire(wanted(&name)).await?.release().await?;
            count += 1;
        }
        anyhow::Ok(count)
    }))
    .await?;
    let rate = counts.into_iter().map(f64::from).sum::<f64>() / began.elapsed().as_secs_f64();
    one.close().await;
    Ok(rate)
}

/// Two instances; the holder lets go 30 ms after the other one began to wait.
async fn hand_over(url: &str, time: Duration) -> Result<Vec<Duration>> {
    let (one, two) = (coordinator(url).await?, coordinator(url).await?);
    let (mut taken, end, name) = (Vec::new(), Instant::now() + time, name());
    while Instant::now() < end {
        let held = one.acquire(wanted(&name)).await?;
        let waiter = async {
            let held = two.acquire(wanted(&name)).await?;
            let got = Instant::now();
            held.release().await?;
            anyhow::Ok(got)
        };
        let holder = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let released = Instant::now();
            held.release().await?;
            anyhow::Ok(released)
        };
        let (got, released) = tokio::try_join!(waiter, holder)?;
        taken.push(got - released);
    }
    one.close().await;
    two.close().await;
    Ok(taken)
}

/// Four instances with two waiters each, one lock, held for a millisecond.
async fn turns(url: &str, time: Duration) -> Result<Vec<u64>> {
    let instances = try_join_all((0..4).map(|_| coordinator(url))).await?;
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
    let (name, end) = (name(), Instant::now() + time);
    try_join_all(counts.iter().enumerate().map(|(place, count)| {
        let (instance, name) = (instances[place % 4].clone(), &name);
        async move {
            while Instant::now() < end {
                let held = instance.acquire(wanted(name)).await?;
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
                held.release().await?;
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    for instance in instances {
        instance.close().await;
    }
    Ok(counts.iter().map(|count| count.load(Ordering::Relaxed)).collect())
}
