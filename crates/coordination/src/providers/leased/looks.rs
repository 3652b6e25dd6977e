//! What a waiter may believe of a message that says that a lock is its own.

use std::time::Duration;

use tokio::time::Instant;

use super::Taken;

/// What a waiter has seen of a lock that others have, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// When it last looked (or looks for the first time) and somebody else had the lock, and the highest token then. What it is handed
    /// with a higher one was handed to it after that look was sent, in whatever order answers and messages arrive.
    last: Option<(Instant, u64)>,
    handed_on: Option<Taken>,
}

impl Looks {
    /// It is about to look. Before the first look nothing can be handed to it.
    pub(crate) fn looks(&mut self, sent: Instant) {
        self.last.get_or_insert((sent, 0));
    }

    /// When it asked then, somebody else had the lock, and this was the highest token.
    pub(crate) fn looked(&mut self, sent: Instant, token: u64) {
        self.last = Some((sent, token));
    }

    /// It is told that it was handed the lock with this token for so long, or to look.
    pub(crate) fn told(&mut self, token: Option<u64>, time_to_live: Duration) {
        let later = self.last.zip(token).filter(|((_, highest), token)| token > highest);
        self.handed_on = later.map(|((sent, _), token)| Taken { token: Some(token), deadline: sent + time_to_live });
    }

    /// What it was told last: the lock, or nothing.
    pub(crate) fn handed_on(&self) -> Option<Taken> {
        self.handed_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_TO_LIVE: Duration = Duration::from_secs(3);

    fn told(looks: &mut Looks, token: u64) -> Option<Taken> {
        looks.told(Some(token), TIME_TO_LIVE);
        looks.handed_on()
    }

    #[test]
    fn what_was_handed_on_counts_from_the_last_look_before_it() {
        let (mut looks, began) = (Looks::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(told(&mut looks, 7), None, "it has not asked");
        looks.looks(began);
        let taken = Taken { token: Some(7), deadline: began + TIME_TO_LIVE };
        assert_eq!(told(&mut looks, 7), Some(taken));
        looks.told(None, TIME_TO_LIVE);
        assert_eq!(looks.handed_on(), None, "it has to look");

        looks.looked(after(1), 7);
        // Whoever looks again has no answer yet when it is told.
        looks.looks(after(2));
        assert_eq!(told(&mut looks, 8).unwrap().deadline, after(1) + TIME_TO_LIVE);

        looks.looked(after(3), 9);
        assert_eq!(told(&mut looks, 9), None, "that is long over");
    }
}
