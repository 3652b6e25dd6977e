//! The task that has a connection: it takes the lock, keeps it alive, and gives it back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use scoria_runtime::{CancellationToken, Deadline};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{ANSWER_WITHIN, Server, Session, Shared, busy, silent};
use crate::lease::Lease;
use crate::{Error, WaitPolicy};

/// Longest wait at the server in one go: it has to be a number.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Pause after a failed try, so that a server that refuses connections is not hammered.
const PAUSE: Duration = Duration::from_millis(200);
/// How many connections without a lock are kept for the next ones.
const MOST_IDLE: usize = 16;
/// How many are made at once.
const MOST_CONNECTING: usize = 4;
/// While they come back in shorter intervals than this, whoever finds none waits for one instead of making one more: the server has
/// a limit, and a connection costs it a thread or a process.
const LULL: Duration = Duration::from_millis(10);
/// But no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the holder of a lock may want.
#[derive(Debug)]
pub(super) enum Wish {
    /// Ask the server; the lease tells the answer.
    Verify(oneshot::Sender<()>),
    /// Give it back; true when it was ours to the end.
    Release(oneshot::Sender<bool>),
}

type Wishes = mpsc::UnboundedSender<Wish>;
type Granted = Result<(Lease, Wishes), Error>;

/// A lock of the server that we hold; dropping it gives it back in the background.
#[derive(Debug)]
pub(super) struct Grip {
    lease: Lease,
    wishes: Wishes,
    key: String,
    grips: Grips,
}

/// The locks of the server that this process holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Grips(Arc<Mutex<HashMap<String, Weak<Grip>>>>);

impl Grips {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Grip>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock if we hold it.
    pub(super) fn held(&self, key: &str) -> Option<Arc<Grip>> {
        let grip = self.table().get(key).and_then(Weak::upgrade);
        grip.filter(|grip| !grip.lease.is_lost())
    }

    pub(super) fn insert(&self, key: &str, lease: Lease, wishes: Wishes) -> Arc<Grip> {
        let grip = Arc::new(Grip { lease, wishes, key: key.to_owned(), grips: self.clone() });
        self.table().insert(key.to_owned(), Arc::downgrade(&grip));
        grip
    }
}

impl Grip {
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) async fn verify(&self) {
        let (reply, replied) = oneshot::channel();
        if self.wishes.send(Wish::Verify(reply)).is_err() || replied.await.is_err() {
            self.lease.lose("its connection has ended");
        }
    }

    pub(super) async fn release(self) -> bool {
        let (reply, replied) = oneshot::channel();
        let released = self.wishes.send(Wish::Release(reply)).is_ok() && replied.await.unwrap_or(false);
        if !released {
            self.lease.lose("its connection has ended");
        }
        released
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        let mut table = self.grips.table();
        if table.get(&self.key).is_some_and(|grip| grip.strong_count() == 0) {
            table.remove(&self.key);
        }
    }
}

/// Connections without a lock.
#[derive(Debug)]
pub(super) struct Idle<S> {
    kept: Mutex<Kept<S>>,
    longest: Duration,
    /// One more is there.
    returned: Notify,
    connecting: Semaphore,
}

#[derive(Debug)]
struct Kept<S> {
    sessions: Vec<(Instant, S)>,
    last_return: Option<Instant>,
}

impl<S: Session> Idle<S> {
    /// Keeps them for at most `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        let kept = Mutex::new(Kept { sessions: Vec::new(), last_return: None });
        Self { kept, longest, returned: Notify::new(), connecting: Semaphore::new(MOST_CONNECTING) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept<S>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<S> {
        let mut kept = self.kept();
        kept.sessions.retain(|(since, _)| since.elapsed() < self.longest);
        kept.sessions.pop().map(|(_, session)| session)
    }

    /// One of them, and true; or a new one, if none comes back soon.
    async fn take_or_connect(&self, server: &impl Server<Session = S>) -> Result<(S, bool), Error> {
        let patient_until = Instant::now() + PATIENCE;
        loop {
            if let Some(session) = self.take() {
                return Ok((session, true));
            }
            tokio::select! {
                biased;
                () = self.returned.notified() => {}
                _turn = self.turn_to_connect(patient_until) => return Ok((server.connect().await?, false)),
            }
        }
    }

    async fn turn_to_connect(&self, patient_until: Instant) -> Option<SemaphorePermit<'_>> {
        let expected_until = || self.kept().last_return.map(|last| (last + LULL).min(patient_until));
        let another_is_expected = || expected_until().filter(|until| *until > Instant::now());
        loop {
            while let Some(until) = another_is_expected() {
                sleep_until(until).await;
            }
            let turn = self.connecting.acquire().await.ok();
            if another_is_expected().is_none() {
                return turn;
            }
        }
    }

    fn put(&self, session: S) {
        let mut kept = self.kept();
        kept.last_return = Some(Instant::now());
        if kept.sessions.len() < MOST_IDLE {
            kept.sessions.push((Instant::now(), session));
            self.returned.notify_one();
        }
    }

    pub(super) async fn close(&self) {
        let sessions = std::mem::take(&mut self.kept().sessions);
        for (_, session) in sessions {
            let _ = timeout(ANSWER_WITHIN, session.close()).await;
        }
    }
}

/// Takes the lock, answers, and keeps it until it is given back or lost. When nobody waits for the answer any more, the
/// connection is closed: that withdraws the attempt.
pub(super) async fn run<S: Server>(
    shared: Arc<Shared<S>>,
    name: String,
    wait: WaitPolicy,
    mut answer: oneshot::Sender<Granted>,
) {
    let stopping = shared.heart.stopping();
    let taken = tokio::select! {
        biased;
        () = stopping.cancelled() => Err(Error::Closed),
        () = answer.closed() => return,
        taken = take(&shared, &name, wait) => taken,
    };
    let (session, lease, sent) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            let _ = answer.send(Err(error));
            return;
        }
    };
    let (wishes, wished) = mpsc::unbounded_channel();
    // When nobody is there any more, dropping the wishes makes it given back.
    let _ = answer.send(Ok((lease.clone(), wishes)));
    let holding = Holding { shared, name, session, lease, beaten: sent };
    holding.keep(wished, &stopping).await;
}

/// The connection with the lock, its lease, and when the request was sent from which the lease counts.
type Taken<S> = (<S as Server>::Session, Lease, Instant);

async fn take<S: Server>(shared: &Shared<S>, name: &str, wait: WaitPolicy) -> Result<Taken<S>, Error> {
    let deadline = match wait {
        // One try, also when the deadline has passed before it.
        WaitPolicy::Until(deadline) if !deadline.has_passed() => deadline,
        _ => {
            let one_try = timeout(ANSWER_WITHIN, try_once(shared, name));
            return one_try.await.unwrap_or_else(|_| Err(silent()));
        }
    };
    loop {
        shared.link.ready(WaitPolicy::Until(deadline)).await?;
        let error = tokio::select! {
            biased;
            waited = wait_at_server(shared, name, deadline) => match waited {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => continue,
                Err(error) => error,
            },
            // The server is silent: our place in its queue may be gone, or worth nothing.
            () = down(shared) => continue,
            () = deadline.wait() => return Err(busy(name)),
        };
        if deadline.has_passed() {
            return Err(error);
        }
        tracing::debug!(%error, lock = name, "waiting for the lock anew");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Resolves once the connection that tells how the server is has gone.
async fn down<S: Server>(shared: &Shared<S>) {
    while shared.link.current().is_ok() {
        tokio::time::sleep(shared.beat).await;
    }
}

async fn try_once<S: Server>(shared: &Shared<S>, name: &str) -> Result<Taken<S>, Error> {
    shared.link.ready(WaitPolicy::No).await?;
    loop {
        let (mut session, was_kept) = shared.idle.take_or_connect(&shared.server).await?;
        let sent = Instant::now();
        match session.lock(name, None).await {
            Ok(true) => return Ok((session, shared.lease(sent), sent)),
            Ok(false) => {
                shared.idle.put(session);
                return Err(busy(name));
            }
            // It was closed while nobody used it.
            Err(_) if was_kept => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits in the server's queue; `None` when the time there is over, or a kept connection turned out to be closed.
async fn wait_at_server<S: Server>(
    shared: &Shared<S>,
    name: &str,
    deadline: Deadline,
) -> Result<Option<Taken<S>>, Error> {
    let taken = timeout(ANSWER_WITHIN, shared.idle.take_or_connect(&shared.server)).await;
    let (mut session, was_kept) = taken.unwrap_or_else(|_| Err(silent()))?;
    let wait = deadline.remaining().map_or(LONGEST_WAIT, |left| left.min(LONGEST_WAIT));
    let mut sent = Instant::now();
    match session.lock(name, Some(wait)).await {
        Ok(true) => {}
        Ok(false) => {
            shared.idle.put(session);
            return Ok(None);
        }
        Err(_) if was_kept => return Ok(None),
        Err(error) => return Err(error),
    }
    // The server began to count when it granted the lock, which is after this was sent; after a long wait that is of no use.
    if sent.elapsed() > shared.server.session_timeout() / 4 {
        sent = Instant::now();
        if !session.beat(Some(name)).await? {
            return Ok(None);
        }
    }
    Ok(Some((session, shared.lease(sent), sent)))
}

impl<S: Server> Shared<S> {
    /// A lease that ends well before the server may give up on a connection from which it heard last after `sent`.
    fn lease(&self, sent: Instant) -> Lease {
        Lease::until(self.lease_end(sent))
    }

    fn lease_end(&self, sent: Instant) -> Instant {
        let timeout = self.server.session_timeout();
        sent + timeout - timeout / 6
    }
}

/// A lock that is held.
struct Holding<S: Server> {
    shared: Arc<Shared<S>>,
    name: String,
    session: S::Session,
    lease: Lease,
    beaten: Instant,
}

impl<S: Server> Holding<S> {
    /// Keeps the lock until it is given back or lost. A lost one's connection is dropped, which frees it at the server too.
    async fn keep(mut self, mut wishes: mpsc::UnboundedReceiver<Wish>, stopping: &CancellationToken) {
        let reply = loop {
            let next = self.beaten + self.shared.look;
            let verified = tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    self.lease.lose("the lock service was closed");
                    break None;
                }
                () = sleep_until(self.lease.deadline()) => None,
                wish = wishes.recv() => match wish {
                    Some(Wish::Verify(reply)) => Some(reply),
                    Some(Wish::Release(reply)) => break Some(reply),
                    None => break None,
                },
                () = sleep_until(next) => None,
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => self.lease.lose("the lock service was closed"),
                () = self.beat() => {}
            }
            if let Some(reply) = verified {
                let _ = reply.send(());
            }
            if self.lease.is_lost() {
                return;
            }
        };
        let released = self.release().await;
        if let Some(reply) = reply {
            let _ = reply.send(released);
        }
    }

    /// Asks the server whether the connection still has the lock.
    async fn beat(&mut self) {
        let sent = Instant::now();
        match timeout_at(self.lease.deadline(), self.session.beat(Some(&self.name))).await {
            Ok(Ok(true)) => {
                self.lease.renew(self.shared.lease_end(sent));
                self.beaten = sent;
            }
            Ok(Ok(false)) => self.lease.lose("its connection no longer has it"),
            Ok(Err(error)) => self.lease.lose(format!("its connection has ended: {error}")),
            // Past the deadline it is lost by itself.
            Err(_) => {}
        }
    }

    /// Gives it back. What cannot be given back in time goes with the connection.
    async fn release(mut self) -> bool {
        let closed = self.shared.heart.stopping().is_cancelled();
        let limit = self.lease.deadline().min(Instant::now() + ANSWER_WITHIN);
        match timeout_at(limit, self.session.unlock(&self.name)).await {
            Ok(Ok(true)) => {
                if closed {
                    let _ = timeout(ANSWER_WITHIN, self.session.close()).await;
                } else {
                    self.shared.idle.put(self.session);
                }
                return !closed;
            }
            Ok(Ok(false)) => self.lease.lose("its connection no longer had it"),
            Ok(Err(error)) => self.lease.lose(format!("its connection has ended: {error}")),
            Err(_) => self.lease.lose("the server did not confirm that it was given back"),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::future::join_all;

    use super::*;

    /// Not a database server: it counts what is asked of one.
    #[derive(Debug, Default)]
    struct Counting {
        connecting: AtomicUsize,
        most_at_once: AtomicUsize,
        connected: AtomicUsize,
    }

    #[derive(Debug)]
    struct Connected;

    #[async_trait]
    impl Server for Counting {
        type Session = Connected;

        fn kind(&self) -> &'static str {
            "counting"
        }

        fn key(&self, name: &str) -> Result<String, Error> {
            Ok(name.to_owned())
        }

        fn session_timeout(&self) -> Duration {
            Duration::from_secs(60)
        }

        async fn connect(&self) -> Result<Connected, Error> {
            let now = self.connecting.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.connecting.fetch_sub(1, Ordering::SeqCst);
            self.connected.fetch_add(1, Ordering::SeqCst);
            Ok(Connected)
        }

        async fn inspect(&self, _: &mut Connected) -> Result<(), Error> {
            Ok(())
        }
    }

    #[async_trait]
    impl Session for Connected {
        async fn lock(&mut self, _: &str, _: Option<Duration>) -> Result<bool, Error> {
            Ok(true)
        }

        async fn unlock(&mut self, _: &str) -> Result<bool, Error> {
            Ok(true)
        }

        async fn beat(&mut self, _: Option<&str>) -> Result<bool, Error> {
            Ok(true)
        }

        async fn break_lock(&mut self, _: &str) -> Result<bool, Error> {
            Ok(true)
        }

        async fn close(self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_short_locks_share_a_few_connections() {
        let (idle, server) = (Idle::new(Duration::from_secs(60)), Counting::default());
        let short = async || {
            let (session, _) = idle.take_or_connect(&server).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            idle.put(session);
        };
        join_all((0..1000).map(|_| short())).await;
        assert_eq!(server.most_at_once.load(Ordering::SeqCst), MOST_CONNECTING);
        // The first ones, and those that were begun before one of them came back; from then on they come back all the time.
        assert_eq!(server.connected.load(Ordering::SeqCst), 2 * MOST_CONNECTING);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_one_that_others_get() {
        let (idle, server) = (Idle::new(Duration::from_secs(60)), Counting::default());
        let busy = async {
            loop {
                let (session, _) = idle.take_or_connect(&server).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                // It is taken again before whoever was told of it looks.
                idle.put(session);
            }
        };
        let one = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let began = Instant::now();
            let taken = timeout(PATIENCE * 2, idle.take_or_connect(&server)).await;
            (taken.unwrap().unwrap(), began.elapsed())
        };
        let ((_session, _), waited) = tokio::select! {
            () = busy => unreachable!(),
            one = one => one,
        };
        assert!(waited <= PATIENCE + Duration::from_millis(20), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_lull_one_is_made_at_once() {
        let (idle, server) = (Idle::new(Duration::from_secs(60)), Counting::default());
        let (session, _) = idle.take_or_connect(&server).await.unwrap();
        idle.put(session);
        let _held = idle.take_or_connect(&server).await.unwrap();
        tokio::time::sleep(LULL).await;
        let began = Instant::now();
        assert!(!idle.take_or_connect(&server).await.unwrap().1);
        assert_eq!(began.elapsed(), Duration::from_millis(20), "the time it takes to connect");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_long_locks_have_a_connection_each() {
        let (idle, server) = (Idle::new(Duration::from_secs(60)), Counting::default());
        let sessions = join_all((0..100).map(|_| idle.take_or_connect(&server))).await;
        assert!(sessions.iter().all(|taken| matches!(taken, Ok((_, false)))));
        assert_eq!(server.connected.load(Ordering::SeqCst), 100);
        assert_eq!(server.most_at_once.load(Ordering::SeqCst), MOST_CONNECTING);
    }
}
