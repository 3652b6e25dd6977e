//! A process that can be stopped and go on, as SIGSTOP and SIGCONT do it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// What runs behind a gate does not run while it is closed; time goes on all the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: Vec<Waker>,
}

/// A future behind a gate.
pub(crate) struct Behind<F: Future> {
    gate: Gate,
    future: Pin<Box<F>>,
}

impl Gate {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops everything behind it.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Lets everything behind it go on.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.closed = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Puts a future behind it.
    pub(crate) fn behind<F: Future>(&self, future: F) -> Behind<F> {
        Behind { gate: self.clone(), future: Box::pin(future) }
    }
}

impl<F: Future> Future for Behind<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let mut state = this.gate.state();
        if state.closed {
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        this.future.as_mut().poll(context)
    }
}
