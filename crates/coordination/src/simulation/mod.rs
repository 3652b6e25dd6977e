//! Whole lock services and their users in one thread, on simulated time, under one seed.
//!
//! A [`World`] has a network that delays, loses and repeats, a service that pauses, processes that are stopped, killed and cut
//! off, and an administrator who takes locks away. The providers in it are the real ones, over a store that stands for the
//! service. After each step of each user a judge checks that no two hold a lock that exclude each other, that tokens rise, and
//! that a loss is told.
//!
//! `SCORIA_SEEDS=N` runs N seeds instead of the usual number, `SCORIA_SEED=S` runs one alone and tells what happens in it.

use std::panic::{RefUnwindSafe, catch_unwind};

mod gate;
mod leased;
mod queued;
mod users;
mod world;

pub(crate) use gate::Gate;
pub(crate) use users::Simulation;
pub(crate) use world::World;

/// How many seeds a test runs.
const SEEDS: u64 = 5_000;

/// Runs a simulation under many seeds, each in a runtime of its own, and names a seed that fails.
pub(crate) fn under_seeds(simulate: impl Fn(u64) -> Result<u64, String> + Sync + RefUnwindSafe) {
    // A panic has a seed as well.
    let run = |seed| catch_unwind(|| simulate(seed)).unwrap_or_else(|_| Err("a panic, see above".to_owned()));
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("SCORIA_SEED") {
        if let Err(why) = run(seed) {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let seeds = number("SCORIA_SEEDS").unwrap_or(SEEDS);
    let next = std::sync::atomic::AtomicU64::new(0);
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let mut first = failed.lock().expect("a seed never panics with the lock held");
                    if seed >= seeds || first.is_some() {
                        return;
                    }
                    drop(first);
                    if let Err(why) = run(seed) {
                        first = failed.lock().expect("a seed never panics with the lock held");
                        first.get_or_insert((seed, why));
                        return;
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failed.into_inner().expect("nobody panicked") {
        panic!("seed {seed}: {why}\nrun it alone, with what happens in it: SCORIA_SEED={seed}");
    }
}
