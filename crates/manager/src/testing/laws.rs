//! The operation laws: what must be true of every operation, whatever it does.
//!
//! Each operation works; works with every step run twice; fails at each step and unwinds; is carried on after the answer
//! of each step was lost; stops before the next effect when its lock is lost before each step, told or known by the clock
//! alone, and is carried on. And nothing is left over: no workers row, no lock, no file that no row knows.

use async_trait::async_trait;
use scoria_rpc::Request;

use super::script::Trial;
use super::world::World;
use crate::failure::{Failure, Interruption};

/// One operation to be judged.
#[async_trait]
pub(crate) trait Case: Sync {
    /// Brings the world to where cinder-api casts the request, and makes the request.
    async fn arrange(&self, world: &World) -> Request;
    /// The world after the operation worked.
    async fn worked(&self, world: &World);
    /// The world after the operation failed and was undone.
    async fn failed(&self, world: &World);
}

async fn arranged(case: &dyn Case, trial: Trial) -> (World, Request) {
    let world = World::new().await;
    let request = case.arrange(&world).await;
    world.manager.script.set(trial);
    (world, request)
}

/// Judges an operation by all laws.
pub(crate) async fn judge(case: &dyn Case) {
    let (world, request) = arranged(case, Trial::Plain).await;
    world.run(&request).await.expect("it works");
    case.worked(&world).await;
    world.nothing_left_over().await;
    let steps = world.manager.script.steps();
    assert!(steps > 0, "an operation has steps");

    // The same message once more: everything is done already.
    match world.run(&request).await {
        Ok(_) | Err(Failure::Interrupted(Interruption::Superseded(_))) => {}
        Err(failure) => panic!("a message that comes again after its work is done: {failure}"),
    }
    case.worked(&world).await;

    let (world, request) = arranged(case, Trial::Twice).await;
    world.run(&request).await.expect("it works with every step run twice");
    case.worked(&world).await;
    world.nothing_left_over().await;

    for step in 0..steps {
        // Behind the last step the outcome is durable: what fails there is the answer, not the operation.
        if step + 1 < steps {
            let (world, request) = arranged(case, Trial::FailAt(step)).await;
            let failure = world.run(&request).await.expect_err("it fails");
            assert!(matches!(failure, Failure::Fault(_)), "step {step}: {failure}");
            case.failed(&world).await;
            world.nothing_left_over().await;
        }
        for trial in [Trial::ReplyLostAt(step), Trial::LockLostAt(step), Trial::LeaseOverAt(step)] {
            let (world, request) = arranged(case, trial).await;
            let failure = world.run(&request).await.expect_err("it is interrupted");
            assert!(matches!(failure, Failure::Interrupted(_)), "{trial:?}: {failure}");
            world.no_lock_is_held().await;
            world.manager.script.set(Trial::Plain);
            match world.run(&request).await {
                Ok(_) | Err(Failure::Interrupted(Interruption::Superseded(_))) => {}
                Err(failure) => panic!("{trial:?}, then again: {failure}"),
            }
            case.worked(&world).await;
            world.nothing_left_over().await;
        }
    }
}
