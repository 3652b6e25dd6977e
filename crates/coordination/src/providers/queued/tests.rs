//! Waiting, loss and answers that never come, in simulated time.

use std::sync::Arc;
use std::time::Duration;

use scoria_runtime::{Deadline, Tasks};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::test_store::{Fault, Service};
use super::{Contender, QueuedProvider, have_it, in_the_way};
use crate::{Error, HeldLock, Mode, Owner, Provider, WaitPolicy};

const LONG: Duration = Duration::from_secs(1000);

type Taken = Result<Box<dyn HeldLock>, Error>;

async fn take(provider: &QueuedProvider, mode: Mode, wait: WaitPolicy) -> Taken {
    provider.acquire("cinder-a", mode, &Owner::default(), wait).await
}

async fn once(provider: &QueuedProvider) -> Taken {
    take(provider, Mode::Exclusive, WaitPolicy::No).await
}

fn within(time: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(time))
}

/// Waits in the background, long enough to be in the queue.
async fn waiter(provider: &Arc<QueuedProvider>, mode: Mode) -> JoinHandle<Taken> {
    let provider = provider.clone();
    let waiting = Tasks::new().spawn("waiter", async move { take(&provider, mode, within(LONG)).await });
    settle().await;
    waiting
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn is_lost(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::Lost { name, .. }) if name == "a")
}

#[test]
fn readers_are_in_nobodys_way_but_a_writers() {
    let modes = [Mode::Shared, Mode::Shared, Mode::Exclusive, Mode::Shared, Mode::Exclusive];
    let place = |(order, mode)| Contender { node: String::new(), order, mode, token: None };
    let queue: Vec<_> = (0..).zip(modes).map(place).collect();
    let ahead: Vec<_> = queue.iter().map(|own| in_the_way(&queue, own).map(|other| other.order)).collect();
    assert_eq!(ahead, [None, None, Some(1), Some(2), Some(3)]);
    assert_eq!(have_it(&queue).map(|holder| holder.order).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_free_lock_costs_one_round_trip_and_its_release_another() {
    let (one, store) = Service::default().instance();
    let lock = once(&one).await.unwrap();
    assert_eq!((store.calls(), lock.token()), (vec!["enter".to_owned()], Some(1)));
    settle().await;
    assert_eq!(store.calls(), ["gone 1"], "our own place is watched in the background");
    lock.release().await.unwrap();
    settle().await;
    assert_eq!(store.calls(), ["leave 1"]);

    once(&one).await.unwrap().release().await.unwrap();
    settle().await;
    assert_eq!(store.calls(), ["enter", "leave 2"], "but not for a moment");
}

#[tokio::test(start_paused = true)]
async fn each_waiter_watches_only_the_nearest_one_in_its_way_and_they_come_in_order() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, store) = service.instance();
    let (two, first) = (Arc::new(two), once(&one).await.unwrap());
    let second = waiter(&two, Mode::Exclusive).await;
    let third = waiter(&two, Mode::Exclusive).await;
    let (fourth, fifth) = (waiter(&two, Mode::Shared).await, waiter(&two, Mode::Shared).await);
    let (calls, of_second) = (store.calls(), ["enter", "gone 2", "gone 1"]);
    assert_eq!(calls[..3], of_second, "who is next watches its own place as well, and first");
    assert_eq!(calls[3..], ["enter", "gone 2", "enter", "gone 3", "enter", "gone 3"]);
    first.release().await.unwrap();
    let second = second.await.unwrap().unwrap();
    settle().await;
    assert!(!third.is_finished() && !fourth.is_finished());
    assert_eq!(store.calls(), [""; 0], "its turn had come when the one before it had gone, and nobody else was woken");
    second.release().await.unwrap();
    third.await.unwrap().unwrap().release().await.unwrap();
    let (fourth, fifth) = (fourth.await.unwrap().unwrap(), fifth.await.unwrap().unwrap());
    let late = waiter(&two, Mode::Exclusive).await;
    assert!(!late.is_finished());
    fourth.release().await.unwrap();
    fifth.release().await.unwrap();
    late.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(service.places(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_whose_answer_was_lost_is_adopted() {
    let service = Service::default();
    let (one, store) = service.instance();
    store.fail("enter", Fault::AnswerLost);
    store.fail("find", Fault::NotDone);
    let lock = take(&one, Mode::Exclusive, within(LONG)).await.unwrap();
    assert_eq!(store.calls(), ["enter", "find", "find", "queue"]);
    lock.verify().await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(service.places(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_not_made_is_asked_for_again() {
    let service = Service::default();
    let (one, store) = service.instance();
    store.fail("enter", Fault::NotDone);
    let lock = take(&one, Mode::Exclusive, within(LONG)).await.unwrap();
    assert_eq!(store.calls(), ["enter", "find", "enter"]);
    drop(lock);
    settle().await;
    assert_eq!(service.places(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_tries_once_adopts_or_leaves_nothing() {
    let service = Service::default();
    let (one, store) = service.instance();
    store.fail("enter", Fault::AnswerLost);
    once(&one).await.unwrap().release().await.unwrap();
    for fault in [Fault::NotDone, Fault::Hangs(LONG)] {
        store.fail("enter", fault);
        assert!(matches!(once(&one).await, Err(Error::Unavailable(_))));
        settle().await;
        assert_eq!(service.places(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_at_any_moment_leaves_nothing() {
    let service = Service::default();
    let (one, store) = service.instance();
    let (two, _store) = service.instance();
    for held in [false, true] {
        let lock = if held { Some(once(&two).await.unwrap()) } else { None };
        for moment in 0..8 {
            for fault in [None, Some(Fault::AnswerLost), Some(Fault::NotDone)] {
                if let Some(fault) = fault {
                    store.fail("leave", fault);
                }
                let patience = Duration::from_micros(500 * moment);
                drop(tokio::time::timeout(patience, take(&one, Mode::Exclusive, within(LONG))).await);
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(service.places(), usize::from(held), "moment {moment}, {fault:?}");
            }
        }
        drop(lock);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_the_deadline_also_when_nobody_answers() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, store) = service.instance();
    let lock = once(&one).await.unwrap();
    let started = Instant::now();
    assert!(matches!(take(&two, Mode::Exclusive, within(Duration::from_secs(5))).await, Err(Error::Busy { .. })));
    assert!(started.elapsed() >= Duration::from_secs(5) && started.elapsed() < Duration::from_secs(6));
    assert_eq!(service.places(), 1);
    lock.release().await.unwrap();

    store.fail("enter", Fault::Hangs(LONG));
    let started = Instant::now();
    let hung = take(&two, Mode::Exclusive, within(Duration::from_secs(5))).await;
    assert!(matches!(hung, Err(Error::Unavailable(_))), "{hung:?}");
    assert!(started.elapsed() >= Duration::from_secs(5) && started.elapsed() < Duration::from_secs(6));
    let one_try = take(&two, Mode::Exclusive, within(Duration::ZERO)).await.unwrap();
    one_try.release().await.unwrap();
    assert_eq!(service.places(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_session_ends_queues_up_in_the_next_one() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, store) = service.instance();
    let (two, lock) = (Arc::new(two), once(&one).await.unwrap());
    let waiting = waiter(&two, Mode::Exclusive).await;
    store.expire();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(service.places(), 1, "only the holder");
    assert!(matches!(once(&two).await, Err(Error::Unavailable(_))));
    store.connect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(service.places(), 2);
    lock.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_look_fails_keeps_its_place() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, store) = service.instance();
    let (two, lock) = (Arc::new(two), once(&one).await.unwrap());
    store.fail("gone", Fault::NotDone);
    let waiting = waiter(&two, Mode::Exclusive).await;
    store.fail("queue", Fault::NotDone);
    lock.release().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.calls().iter().filter(|call| *call == "enter").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_place_was_removed_queues_up_again() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let two = Arc::new(service.instance().0);
    let lock = once(&one).await.unwrap();
    let waiting = waiter(&two, Mode::Exclusive).await;
    service.remove_first("cinder-a");
    service.remove_first("cinder-a");
    settle().await;
    assert!(lock.lost().is_cancelled());
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_next_and_loses_its_place_does_not_take_the_lock_for_its_own() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, store) = service.instance();
    let two = Arc::new(two);
    let lock = once(&one).await.unwrap();
    let waiting = waiter(&two, Mode::Exclusive).await;
    store.calls();
    // Its own place and then the one before it, at one stroke.
    service.remove_last("cinder-a");
    service.remove_first("cinder-a");
    waiting.await.unwrap().unwrap();
    assert_eq!(store.calls(), ["queue", "leave 2", "enter"], "it looks, and queues up anew");
    assert!(is_lost(lock.release().await));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_and_the_removal_of_the_place_are_losses() {
    let service = Service::default();
    let (one, store) = service.instance();
    let lock = once(&one).await.unwrap();
    store.expire();
    assert!(lock.is_lost() && lock.lost().is_cancelled(), "within the same call");
    store.connect();
    assert!(is_lost(lock.verify().await) && is_lost(lock.release().await));

    let lock = once(&one).await.unwrap();
    let beside = one.acquire("cinder-b", Mode::Exclusive, &Owner::default(), WaitPolicy::No).await.unwrap();
    settle().await;
    assert!(one.break_lock("cinder-a").await.unwrap());
    settle().await;
    assert!(lock.lost().is_cancelled() && is_lost(lock.verify().await) && is_lost(lock.release().await));
    beside.verify().await.unwrap();
    beside.release().await.unwrap();
    assert!(!one.break_lock("cinder-a").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_was_lost_is_no_loss() {
    let service = Service::default();
    let (one, store) = service.instance();
    for fault in [Fault::AnswerLost, Fault::NotDone] {
        let lock = once(&one).await.unwrap();
        store.fail("leave", fault);
        store.fail("leave", Fault::NotDone);
        lock.release().await.unwrap();
        assert_eq!(service.places(), 0);
    }
    let lock = once(&one).await.unwrap();
    store.fail("leave", Fault::Hangs(LONG));
    assert!(tokio::time::timeout(Duration::from_secs(1), lock.release()).await.is_err());
    settle().await;
    assert_eq!(service.places(), 0, "a dropped release is done in the background");
}

#[tokio::test(start_paused = true)]
async fn closing_frees_what_is_held_and_ends_waiting() {
    let service = Service::default();
    let (one, _store) = service.instance();
    let (two, lock) = (Arc::new(service.instance().0), once(&one).await.unwrap());
    let waiting = waiter(&two, Mode::Exclusive).await;
    two.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(once(&two).await, Err(Error::Closed)));
    one.close().await;
    assert!(lock.is_lost() && is_lost(lock.release().await));
    assert_eq!(service.places(), 0);
}
