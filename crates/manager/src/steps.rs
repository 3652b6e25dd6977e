//! An operation as a list of steps with undo.
//!
//! A step is idempotent: it looks at what is already there, so it may run again after the process died at any point of
//! it. A fault undoes what was done, last step first, the failed one included, because it may have got half way. An
//! interruption undoes nothing: whoever takes the operation up next runs the same steps over what is there.

use async_trait::async_trait;

use crate::failure::Failure;
use crate::held::Held;

/// One step of an operation whose state is `O`.
#[async_trait]
pub(crate) trait Step<O: Send>: Send + Sync {
    /// Name in logs and in the list of what is running.
    fn name(&self) -> &'static str;

    /// Does it, or sees that it is done.
    async fn run(&self, operation: &mut O, held: &Held) -> Result<(), Failure>;

    /// Takes it back, whether or not it was done.
    async fn undo(&self, _operation: &mut O, _held: &Held) -> Result<(), Failure> {
        Ok(())
    }
}

/// Runs the steps in order. Before each of them the locks, the deadline and the shutdown are looked at.
pub(crate) async fn run<O: Send>(operation: &mut O, steps: &[&dyn Step<O>], held: &Held) -> Result<(), Failure> {
    for (index, step) in steps.iter().enumerate() {
        let mut outcome = match held.check(step.name()) {
            Ok(()) => run_one(operation, *step, held).await,
            Err(failure) => Err(failure),
        };
        // A driver that was stopped does not know why: a lost lock, the shutdown or the deadline. We do.
        if let (Err(Failure::Interrupted(_)), Err(reason)) = (&outcome, held.check(step.name())) {
            outcome = Err(reason);
        }
        if let Err(Failure::Fault(fault)) = &outcome {
            tracing::debug!(step = step.name(), %fault, "step failed, undoing");
            undo(operation, &steps[..=index], held).await?;
        }
        outcome?;
    }
    Ok(())
}

#[cfg(not(test))]
async fn run_one<O: Send>(operation: &mut O, step: &dyn Step<O>, held: &Held) -> Result<(), Failure> {
    step.run(operation, held).await
}

/// In the operation laws a script decides what happens to each step.
#[cfg(test)]
async fn run_one<O: Send>(operation: &mut O, step: &dyn Step<O>, held: &Held) -> Result<(), Failure> {
    crate::testing::script::run_one(operation, step, held).await
}

/// Takes back what was done. Only a lost lock or the end of the process stops it: an operation whose time is up has to
/// clean up all the same.
async fn undo<O: Send>(operation: &mut O, done: &[&dyn Step<O>], held: &Held) -> Result<(), Failure> {
    let held = &held.without_deadline();
    for step in done.iter().rev() {
        held.check("undo")?;
        match step.undo(operation, held).await {
            Ok(()) => {}
            Err(Failure::Interrupted(interruption)) => return Err(interruption.into()),
            Err(Failure::Fault(fault)) => tracing::error!(step = step.name(), %fault, "undo failed"),
        }
    }
    Ok(())
}
