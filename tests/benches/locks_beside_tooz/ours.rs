//! The same measurements of Scoria's locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use scoria_coordination::{Coordinator, Health, LockRequest, Options, Owner};
use scoria_db::DatabaseLocks;

use crate::report::Measured;

/// Locks in flight at once on one connection.
const IN_FLIGHT: usize = 1000;

/// Where the locks are.
#[derive(Debug)]
pub(crate) struct Place {
    /// `[coordination] backend_url`.
    pub(crate) url: String,
    /// `[database] connection`, for `database://`.
    pub(crate) database: Option<String>,
}

async fn coordinator(place: &Place) -> Result<Coordinator> {
    let mut options = Options::default();
    if let Some(url) = &place.database {
        options.lock_table = Some(Arc::new(DatabaseLocks::new(&scoria_db::Options::new(url))?));
    }
    let coordinator = Coordinator::open(&place.url, &options).await?;
    let end = Instant::now() + Duration::from_secs(30);
    while coordinator.health() != Health::Up {
        anyhow::ensure!(Instant::now() < end, "{}: {:?}", place.url, coordinator.health());
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
pub(crate) async fn measure(place: Place, time: Duration) -> Result<Measured> {
    let place = &place;
    Ok(Measured {
        free: free(place, time).await.context("free locks")?,
        rate: rate(place, time, 32).await.context("32 locks")?,
        in_flight: Some(rate(place, time, IN_FLIGHT).await.context("1000 locks")?),
        hand_over: hand_over(place, time).await.context("hand-over")?,
        turns: turns(place, time).await.context("turns")?,
    })
}

async fn free(place: &Place, time: Duration) -> Result<Vec<Duration>> {
    let one = coordinator(place).await?;
    let (mut taken, end) = (Vec::new(), Instant::now() + time);
    while Instant::now() < end {
        let name = name();
        let began = Instant::now();
        one.acquire(wanted(&name)).await?.release().await?;
        taken.push(began.elapsed());
    }
    one.close().await;
    Ok(taken)
}

/// Pairs per second over so many locks at once, one task each.
async fn rate(place: &Place, time: Duration, locks: usize) -> Result<f64> {
    let one = coordinator(place).await?;
    let end = Instant::now() + time;
    let began = Instant::now();
    let counts = try_join_all((0..locks).map(|_| async {
        let mut count = 0_u32;
        while Instant::now() < end {
            one.acquire(wanted(&name())).await?.release().await?;
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
async fn hand_over(place: &Place, time: Duration) -> Result<Vec<Duration>> {
    let (one, two) = (coordinator(place).await?, coordinator(place).await?);
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
async fn turns(place: &Place, time: Duration) -> Result<Vec<u64>> {
    let instances = try_join_all((0..4).map(|_| coordinator(place))).await?;
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
    let (name, end) = (name(), Instant::now() + time);
    try_join_all(counts.iter().enumerate().map(|(number, count)| {
        let (instance, name) = (instances[number % 4].clone(), &name);
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
