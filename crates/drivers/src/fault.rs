//! Named points at which a test can interrupt a driver.

/// Points at which a driver may be made to stop for good, as if its process had died. Without the feature `conformance`
/// there is nothing here and nothing happens.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    #[cfg(feature = "conformance")]
    state: std::sync::Arc<armed::State>,
}

impl Faults {
    /// Passes a point; where it is armed, never returns.
    #[cfg(not(feature = "conformance"))]
    #[allow(clippy::unused_async, reason = "with the feature it waits")]
    pub(crate) async fn at(&self, _point: &'static str) {}
}

#[cfg(feature = "conformance")]
mod armed {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use tokio::sync::Notify;

    use super::Faults;

    #[derive(Debug, Default)]
    pub(super) struct State {
        armed: Mutex<Option<&'static str>>,
        seen: Mutex<BTreeSet<&'static str>>,
        reached: Notify,
    }

    impl Faults {
        pub(crate) async fn at(&self, point: &'static str) {
            self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(point);
            let hit = *self.state.armed.lock().unwrap_or_else(PoisonError::into_inner) == Some(point);
            if hit {
                self.state.reached.notify_one();
                std::future::pending::<()>().await;
            }
        }

        /// Arms one point, or none.
        pub fn arm(&self, point: Option<&'static str>) {
            *self.state.armed.lock().unwrap_or_else(PoisonError::into_inner) = point;
        }

        /// Resolves when the armed point is reached.
        pub async fn reached(&self) {
            self.state.reached.notified().await;
        }

        /// The points passed since this was last asked.
        #[must_use]
        pub fn take_seen(&self) -> BTreeSet<&'static str> {
            std::mem::take(&mut *self.state.seen.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}
