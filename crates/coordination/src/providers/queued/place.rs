//! One place in a queue: made, looked for when its answer did not come, and always left.

use std::pin::Pin;
use std::sync::Arc;

use scoria_runtime::Deadline;
use tokio::sync::oneshot;

use super::provider::{Core, Pause};
use super::{Contender, Entered, Gone, Session, Ticket};
use crate::Error;
use crate::providers::LEAVE_WITHIN;

/// Waits for the end of our own place.
pub(super) type OwnEnd = Pin<Box<dyn Future<Output = Result<Gone, Error>> + Send>>;

/// Our place in the queue for one lock. Dropped without having been left, it is left in the background.
#[derive(Debug)]
pub(super) struct Place {
    core: Arc<Core>,
    at: At,
    stands: Stands,
}

/// Which queue, in which session, for which wish.
#[derive(Debug, Clone)]
struct At {
    session: Session,
    name: Arc<str>,
    ticket: Ticket,
}

/// What is known of the place.
#[derive(Debug, Clone)]
enum Stands {
    /// There is none.
    No,
    /// It was asked for, and may have been made.
    Perhaps,
    /// It was made.
    As(Contender),
}

/// How leaving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It was there and was left.
    Done,
    /// It was no longer there.
    WasGone,
    /// The session ended before, and took it along.
    SessionEnded,
}

impl Place {
    /// No place yet.
    pub(super) fn new(core: Arc<Core>, session: Session, name: &str, ticket: Ticket) -> Self {
        Self { core, at: At { session, name: name.into(), ticket }, stands: Stands::No }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn name(&self) -> &str {
        &self.at.name
    }

    pub(super) fn session(&self) -> &Session {
        &self.at.session
    }

    pub(super) fn own(&self) -> Option<&Contender> {
        match &self.stands {
            Stands::As(own) => Some(own),
            _ => None,
        }
    }

    /// Queues up; the queue as of then. When the answer does not come the place is looked for until `deadline`.
    pub(super) async fn enter(&mut self, deadline: Deadline) -> Result<Vec<Contender>, Error> {
        let entering = async {
            let (store, at) = (&self.core.store, &self.at);
            self.stands = Stands::Perhaps;
            match store.enter(&at.session, &at.name, &at.ticket).await {
                Ok(Entered { own, queue }) => {
                    self.stands = Stands::As(own);
                    return Ok(queue);
                }
                Err(Error::Unavailable(why)) => {
                    tracing::debug!(lock = &*at.name, why, "no answer to queueing up: looking for our place");
                }
                Err(refused) => {
                    self.stands = Stands::No;
                    return Err(refused);
                }
            }
            let mut pause = Pause::new();
            loop {
                match self.find().await {
                    Ok(Some(own)) => {
                        self.stands = Stands::As(own);
                        return self.queue().await;
                    }
                    Ok(None) => {
                        self.stands = Stands::No;
                        return Err(Error::Unavailable("queueing up was not done".to_owned()));
                    }
                    Err(Error::Unavailable(_)) => pause.wait().await,
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::select! {
            biased;
            entered = entering => entered,
            () = deadline.wait() => Err(Error::Unavailable("the lock service does not answer".to_owned())),
        }
    }

    pub(super) async fn queue(&self) -> Result<Vec<Contender>, Error> {
        self.core.store.queue(&self.at.session, &self.at.name).await
    }

    pub(super) async fn gone(&self, other: &Contender) -> Result<Gone, Error> {
        self.core.store.gone(&self.at.session, &self.at.name, other).await
    }

    /// Waits for the end of this very place, while it is kept and after.
    pub(super) fn own_end(&self, own: &Contender) -> OwnEnd {
        let (core, At { session, name, .. }, own) = (self.core.clone(), self.at.clone(), own.clone());
        Box::pin(async move { core.store.gone(&session, &name, &own).await })
    }

    pub(super) async fn find(&self) -> Result<Option<Contender>, Error> {
        self.core.store.find(&self.at.session, &self.at.name, &self.at.ticket).await
    }

    /// An error when the session is over: it may have ended after the queue was listed.
    pub(super) fn still_good(&self) -> Result<(), Error> {
        if self.at.session.lease.is_lost() {
            return Err(Error::Unavailable("the session ended while waiting".to_owned()));
        }
        Ok(())
    }

    /// Leaves and waits until that is certain. When the future is dropped it is done in the background.
    pub(super) async fn leave(mut self) -> Left {
        if let Stands::As(own) = &self.stands {
            let at = &self.at;
            match self.core.store.leave(&at.session, &at.name, own).await {
                Ok(was_there) => {
                    self.stands = Stands::No;
                    return if was_there { Left::Done } else { Left::WasGone };
                }
                Err(error) => tracing::debug!(lock = &*at.name, %error, "no answer to leaving the queue: again"),
            }
        }
        match self.leave_in_the_background(true) {
            // The task ends without an answer only when the provider is closed, and the session with it.
            Some(left) => left.await.unwrap_or(Left::SessionEnded),
            None => Left::WasGone,
        }
    }

    /// Leaves in the background; waits for it as long as it is quick.
    pub(super) async fn leave_soon(mut self) {
        if let Some(left) = self.leave_in_the_background(false) {
            let _ = tokio::time::timeout(LEAVE_WITHIN, left).await;
        }
    }

    /// `tried`: leaving was tried before, without an answer.
    fn leave_in_the_background(&mut self, tried: bool) -> Option<oneshot::Receiver<Left>> {
        let stands = std::mem::replace(&mut self.stands, Stands::No);
        if matches!(stands, Stands::No) {
            return None;
        }
        let (told, left) = oneshot::channel();
        let (core, at) = (self.core.clone(), self.at.clone());
        let (stopping, ended) = (core.heart.stopping(), at.session.lease.lost());
        self.core.heart.spawn("leave-queue", async move {
            let how = tokio::select! {
                biased;
                () = stopping.cancelled() => Left::SessionEnded,
                () = ended.cancelled() => Left::SessionEnded,
                how = withdraw(&core, &at, stands, tried) => how,
            };
            let _ = told.send(how);
        });
        Some(left)
    }
}

/// Leaves the queue, however often that takes. Who is told "not there" after a try without an answer has left by that one.
async fn withdraw(core: &Core, at: &At, mut stands: Stands, mut tried: bool) -> Left {
    let mut pause = Pause::new();
    loop {
        let attempt = match &stands {
            Stands::As(own) => core.store.leave(&at.session, &at.name, own).await,
            _ => match core.store.find(&at.session, &at.name, &at.ticket).await {
                Ok(Some(own)) => {
                    stands = Stands::As(own);
                    continue;
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            },
        };
        match attempt {
            Ok(true) => return Left::Done,
            Ok(false) if tried => return Left::Done,
            Ok(false) => return Left::WasGone,
            Err(error) => {
                tracing::debug!(lock = &*at.name, %error, "leaving the queue: again");
                tried = true;
                pause.wait().await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.leave_in_the_background(false));
    }
}
