//! Isolation: without its lock service, or without its database for longer than `service_down_time`, an instance takes no
//! work, and comes back by itself (DESIGN §5).
//!
//! Without the database others may by now hold us for dead and have taken our work over, so what runs is stopped at its next
//! safe point. Without the lock service what runs goes on for as long as it can prove that it holds its locks: each set of
//! locks knows that itself.
//!
//! While the locks are away no heartbeat is sent, because the scheduler must not choose a service that cannot work
//! (`cinder/service.py: Service.report_state` with a manager that is not working). `disabled` is the administrator's word
//! and stays untouched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_coordination::Health;
use scoria_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::failure::Interruption;
use crate::manager::VolumeManager;
use crate::metrics;

/// How often the lock service's health is looked at: asking costs nothing, it is what the provider knows anyway.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether work is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Not yet: the lock service has not answered since the start, and there is still hope.
    Starting,
    /// Work is taken.
    Open,
    /// No work is taken; why, for an operator.
    Isolated(String),
}

/// What we know of our two lifelines, and what follows from it.
#[derive(Debug)]
pub(crate) struct Isolation {
    access: watch::Sender<Access>,
    database: Mutex<Contact>,
    /// Cancelled when what runs has to stop at its next safe point; a new one for those who start after that.
    cut: Mutex<CancellationToken>,
}

/// What the database last said.
#[derive(Debug)]
struct Contact {
    at: Instant,
    trouble: Option<String>,
}

/// What is isolated from what.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    Locks(String),
    Database,
}

impl Missing {
    fn reason(&self) -> String {
        match self {
            Self::Locks(reason) => format!("locks unavailable: {reason}"),
            Self::Database => "database unavailable for longer than service_down_time".to_owned(),
        }
    }
}

/// Decides what is missing, given what was seen since when.
#[derive(Debug)]
struct Outlook {
    grace: Duration,
    service_down_time: Duration,
    locks_down_since: Option<Instant>,
}

impl Outlook {
    /// `None`: nothing that has been missing for long enough.
    fn missing(&mut self, now: Instant, locks: &Health, contact: Instant) -> Option<Missing> {
        if now.saturating_duration_since(contact) > self.service_down_time {
            return Some(Missing::Database);
        }
        let Health::Down(reason) = locks else {
            self.locks_down_since = None;
            return None;
        };
        let since = *self.locks_down_since.get_or_insert(now);
        (now.saturating_duration_since(since) >= self.grace).then(|| Missing::Locks(reason.clone()))
    }
}

impl Isolation {
    pub(crate) fn new() -> Self {
        Self {
            access: watch::Sender::new(Access::Starting),
            database: Mutex::new(Contact { at: Instant::now(), trouble: None }),
            cut: Mutex::default(),
        }
    }

    fn contact(&self) -> std::sync::MutexGuard<'_, Contact> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database answered, or why it did not.
    pub(crate) fn database_answered(&self, answer: Result<(), String>) {
        let mut contact = self.contact();
        if answer.is_ok() {
            contact.at = Instant::now();
        }
        contact.trouble = answer.err();
    }

    /// What the last sign of life met.
    pub(crate) fn database_trouble(&self) -> Option<String> {
        self.contact().trouble.clone()
    }

    /// For an operation that starts now: cancelled when it has to stop because the database has been away for too long.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self, missing: &Missing) {
        let reason = missing.reason();
        match missing {
            Missing::Locks(_) => tracing::error!("{reason}; no work is taken until they are back"),
            Missing::Database => {
                tracing::error!("{reason}; no work is taken until it is back, what runs stops at its next safe point");
                let cut = std::mem::take(&mut *self.cut.lock().unwrap_or_else(PoisonError::into_inner));
                cut.cancel();
            }
        }
        self.access.send_replace(Access::Isolated(reason));
    }

    fn open(&self) {
        if matches!(self.access.send_replace(Access::Open), Access::Isolated(_)) {
            tracing::info!("locks and database are available again, taking work");
        }
    }
}

impl VolumeManager {
    /// Whether work is taken, and every change of that.
    #[must_use]
    pub fn access(&self) -> watch::Receiver<Access> {
        self.isolation.access.subscribe()
    }

    /// Why no work is taken; `None` when it is, or while it is too early to tell.
    #[must_use]
    pub fn isolated(&self) -> Option<String> {
        match &*self.isolation.access.borrow() {
            Access::Isolated(reason) => Some(reason.clone()),
            Access::Starting | Access::Open => None,
        }
    }

    /// Whether work cannot be taken at the start, once that is known.
    pub(crate) async fn starts_isolated(&self) -> bool {
        let mut access = self.access();
        let known = access.wait_for(|access| *access != Access::Starting);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => false,
            known = known => known.is_ok_and(|access| *access != Access::Open),
        }
    }

    /// Whether work may be begun.
    pub(crate) fn is_open(&self) -> bool {
        *self.isolation.access.borrow() == Access::Open
    }

    /// Waits until work may be taken. False: the process is to end before that.
    pub(crate) async fn opened(&self) -> bool {
        let mut access = self.access();
        let opened = access.wait_for(|access| *access == Access::Open);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => false,
            opened = opened => opened.is_ok(),
        }
    }

    /// Resolves when nothing may be begun any more, with the reason.
    pub(crate) async fn closed(&self) -> Interruption {
        let mut access = self.access();
        let isolated = access.wait_for(|access| matches!(access, Access::Isolated(_)));
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Interruption::Draining,
            _ = isolated => Interruption::Unavailable(self.isolated().unwrap_or_default()),
        }
    }

    /// Watches lock service and database for as long as the process runs.
    pub(crate) fn watch_lifelines(self: &Arc<Self>) {
        let manager = self.clone();
        let stop = self.tasks.stop_token();
        self.tasks.spawn("isolation", async move {
            let mut outlook = Outlook {
                grace: manager.options.isolation_grace,
                service_down_time: manager.options.service_down_time(),
                locks_down_since: None,
            };
            let mut every = tokio::time::interval(LOOK_EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = every.tick() => manager.look(&mut outlook),
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    fn look(&self, outlook: &mut Outlook) {
        let locks = self.locks.health();
        let missing = outlook.missing(Instant::now(), &locks, self.isolation.contact().at);
        let isolated = self.isolated().is_some();
        match missing {
            // One line when it begins, whatever is missing next.
            Some(missing) if !isolated => self.isolation.close(&missing),
            // Within the grace time nothing changes, in either direction.
            None if locks == Health::Up && !self.is_open() => self.isolation.open(),
            _ => return,
        }
        let isolated = if self.isolated().is_some() { 1.0 } else { 0.0 };
        ::metrics::gauge!(metrics::ISOLATED, "backend" => self.name()).set(isolated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);
    const DOWN_TIME: Duration = Duration::from_secs(60);

    fn outlook() -> (Outlook, Instant) {
        (Outlook { grace: GRACE, service_down_time: DOWN_TIME, locks_down_since: None }, Instant::now())
    }

    #[test]
    fn locks_that_are_away_for_a_moment_isolate_nobody() {
        let (mut outlook, start) = outlook();
        let down = Health::Down("no route".to_owned());
        assert_eq!(outlook.missing(start, &down, start), None);
        assert_eq!(outlook.missing(start + GRACE / 2, &down, start), None);
        assert_eq!(outlook.missing(start + GRACE / 2, &Health::Up, start), None);
        // The grace time begins anew.
        assert_eq!(outlook.missing(start + GRACE, &down, start), None);
        let missing = outlook.missing(start + GRACE * 2, &down, start);
        assert_eq!(missing, Some(Missing::Locks("no route".to_owned())));
        assert_eq!(missing.unwrap().reason(), "locks unavailable: no route");
        assert_eq!(outlook.missing(start + GRACE * 2, &Health::Up, start), None);
    }

    #[test]
    fn a_database_may_be_away_for_as_long_as_a_service_may() {
        let (mut outlook, start) = outlook();
        assert_eq!(outlook.missing(start + DOWN_TIME, &Health::Up, start), None);
        let later = start + DOWN_TIME + Duration::from_millis(1);
        assert_eq!(outlook.missing(later, &Health::Up, start), Some(Missing::Database));
        assert_eq!(outlook.missing(later, &Health::Up, later), None);
    }
}
