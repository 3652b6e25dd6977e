//! What every lock service must do: one suite for all providers (cargo feature `conformance`).
//!
//! A test file writes a [`Subject`] for its service and one line: `scoria_coordination::conformance_suite!(Subject::new())`.
//! Each case panics with what is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use scoria_runtime::{Deadline, Tasks};

use crate::{Coordinator, Error, Health, Listing, LockRequest, LockSet, Order, Owner, Provider, WaitPolicy};

/// A lock service under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A further instance on the same service, as if in another process.
    async fn instance(&self, name: &str) -> Arc<dyn Provider>;
    /// Makes whoever holds `name` (without prefix) lose it: a server's session ends, a file is removed.
    async fn lose(&self, name: &str);
    /// How many at once take locks and give them back, when it is seen whether anything is left of many.
    fn pairs_at_once(&self) -> usize {
        32
    }
    /// What is left at the service that should not be, when nobody holds or waits.
    async fn leftovers(&self) -> Vec<String>;
}

/// Makes a test of each case. The argument is an expression that gives a fresh [`Subject`] on a fresh service.
#[macro_export]
macro_rules! conformance_suite {
    ($subject:expr) => {
        $crate::conformance_suite!($subject; exclusive_excludes shared_goes_beside_shared sets_are_all_or_none
            crossed_sets_do_not_deadlock waiting_ends_at_the_deadline waiting_ends_with_the_release
            waiters_are_served_in_order waiters_of_all_instances_are_served_in_order a_cancelled_wait_leaves_nothing release_is_awaited dropping_gives_back
            losses_are_told holders_and_waiters_are_listed tokens_rise bad_names_are_refused closing_gives_back
            a_broken_lock_is_lost_and_free nothing_is_left_after_many_pairs never_two_inside
            no_waiter_gets_less_than_half_the_turns_of_another);
    };
    ($subject:expr; $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let subject = $subject;
                $crate::conformance::$case(&subject).await;
            }
        )*
    };
}

/// Long enough for anything that is to happen by itself, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

async fn coordinator(subject: &dyn Subject, name: &str) -> Coordinator {
    let coordinator = Coordinator::new(subject.instance(name).await);
    assert_eq!(coordinator.health(), Health::Up);
    coordinator
}

fn request() -> LockRequest {
    let owner = Owner {
        operation: "delete_volume".to_owned(),
        request_id: Some("req-42".to_owned()),
        resource: Some("volume".to_owned()),
    };
    LockRequest::new(owner)
}

fn once(name: &str) -> LockRequest {
    request().exclusive(name).wait(WaitPolicy::No)
}

fn within(timeout: Duration) -> WaitPolicy {
    WaitPolicy::Until(Deadline::after(timeout))
}

async fn get(coordinator: &Coordinator, name: &str) -> LockSet {
    coordinator.acquire(request().exclusive(name).wait(within(SOON))).await.expect("a free lock")
}

async fn assert_busy(coordinator: &Coordinator, request: LockRequest) -> String {
    match coordinator.acquire(request).await {
        Err(Error::Busy { by, .. }) => by,
        Err(other) => panic!("busy was expected: {other}"),
        Ok(locks) => panic!("got {:?}, which another instance holds", locks.names().collect::<Vec<_>>()),
    }
}

/// One holder; a second instance, and the same one, stay out until the release.
pub async fn exclusive_excludes(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "a").await;
    assert_busy(&two, once("a")).await;
    assert!(assert_busy(&one, once("a")).await.contains("delete_volume of req-42"), "busy says who holds");
    let other = get(&two, "b").await;
    held.verify().await.expect("held");
    assert!(!held.lost().is_cancelled());
    held.release().await.expect("release");
    let held = two.acquire(once("a")).await.expect("free after the release");
    held.release().await.expect("release");
    other.release().await.expect("release");
}

/// Readers of several instances beside each other, nobody alone beside them; where there is no shared mode they exclude.
pub async fn shared_goes_beside_shared(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let shared = || request().shared("a").wait(WaitPolicy::No);
    let first = one.acquire(shared()).await.expect("first reader");
    if !one.features().shared {
        assert_busy(&two, shared()).await;
        return;
    }
    let second = two.acquire(shared()).await.expect("second reader, another instance");
    let third = one.acquire(shared()).await.expect("third reader, same instance");
    assert_busy(&two, once("a")).await;
    assert_busy(&one, once("a")).await;
    for reader in [first, second, third] {
        reader.verify().await.expect("still held");
        reader.release().await.expect("release");
    }
    let alone = two.acquire(once("a")).await.expect("alone after the readers");
    assert_busy(&one, shared()).await;
    alone.release().await.expect("release");
}

/// A set of which one lock is held by somebody else takes none.
pub async fn sets_are_all_or_none(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "b").await;
    assert_busy(&two, request().exclusive("c").exclusive("a").exclusive("b").exclusive("a").wait(WaitPolicy::No)).await;
    for free in ["a", "c"] {
        one.acquire(once(free)).await.expect("not taken").release().await.expect("release");
    }
    held.release().await.expect("release");
    let set = two.acquire(request().exclusive("b").exclusive("a").wait(WaitPolicy::No)).await.expect("all free");
    assert_eq!(set.names().collect::<Vec<_>>(), ["a", "b"], "sorted");
    set.verify().await.expect("held");
    set.release().await.expect("release");
}

/// Two instances that name the same locks in different order never wait for each other for ever.
pub async fn crossed_sets_do_not_deadlock(subject: &dyn Subject) {
    let tasks = Tasks::new();
    let mut running = Vec::new();
    for (instance, names) in [("one", ["a", "b"]), ("two", ["b", "a"])] {
        let coordinator = coordinator(subject, instance).await;
        running.push(tasks.spawn("crossed", async move {
            for _ in 0..20 {
                let wanted = names.iter().fold(request(), |request, name| request.exclusive(*name));
                let set = coordinator.acquire(wanted.wait(within(SOON * 3))).await.expect("no deadlock");
                tokio::task::yield_now().await;
                set.release().await.expect("release");
            }
        }));
    }
    for task in running {
        task.await.expect("task");
    }
}

/// Not before the deadline, and not long after it; a deadline that has passed means one try.
pub async fn waiting_ends_at_the_deadline(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "a").await;
    let started = Instant::now();
    assert_busy(&two, request().exclusive("a").wait(within(Duration::from_millis(300)))).await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(299) && waited < SOON, "{waited:?}");
    held.release().await.expect("release");
    let late = two.acquire(request().exclusive("a").wait(within(Duration::ZERO))).await.expect("one try at least");
    late.release().await.expect("release");
}

/// A waiter of another instance gets the lock soon after the release, and not before.
pub async fn waiting_ends_with_the_release(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let for_ever = request().exclusive("a");
    for waits in [for_ever.clone(), for_ever.wait(within(SOON * 2))] {
        let held = get(&one, "a").await;
        let released = Arc::new(AtomicBool::new(false));
        let (seen, two) = (released.clone(), two.clone());
        let waiter = Tasks::new().spawn("waiter", async move {
            let held = two.acquire(waits).await.expect("a lock that was given back");
            assert!(seen.load(Ordering::SeqCst), "two holders");
            held.release().await.expect("release");
        });
        tokio::time::sleep(Duration::from_millis(250)).await;
        released.store(true, Ordering::SeqCst);
        held.release().await.expect("release");
        tokio::time::timeout(SOON, waiter).await.expect("woken").expect("waiter");
    }
}

/// Waiters of one instance are served in the order in which they came.
pub async fn waiters_are_served_in_order(subject: &dyn Subject) {
    let one = coordinator(subject, "one").await;
    served_in_order(subject, &[&one]).await;
}

/// Where the service promises it ([`Order::All`]), so are the waiters of several instances.
pub async fn waiters_of_all_instances_are_served_in_order(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    if one.features().order == Order::All {
        served_in_order(subject, &[&one, &two]).await;
    }
}

/// Waiters come one after the other, by turns of these instances, and are served in that order.
async fn served_in_order(subject: &dyn Subject, instances: &[&Coordinator]) {
    // Who stands in the service's queue is seen from outside; who stands in a queue of the instance, by itself.
    let observer = match instances[0].features().order {
        Order::All => coordinator(subject, "observer").await,
        Order::Own => instances[0].clone(),
    };
    let held = get(instances[0], "a").await;
    let served = Arc::new(AtomicU64::new(0));
    let tasks = Tasks::new();
    let mut waiting = Vec::new();
    for (place, instance) in (0..8).zip(instances.iter().cycle()) {
        let (coordinator, served) = ((*instance).clone(), served.clone());
        // Listed is whoever begins to wait: polled here, it stands in the instance's queue before the next one comes.
        let mut turn = Box::pin(async move { get(&coordinator, "a").await });
        assert!(futures_util::poll!(turn.as_mut()).is_pending(), "two holders");
        waiting.push(tasks.spawn("waiter", async move {
            let held = turn.await;
            assert_eq!(served.fetch_add(1, Ordering::SeqCst), place, "served out of order");
            held.release().await.expect("release");
        }));
        let in_line = async {
            while observer.holders().await.expect("holders").iter().filter(|holder| !holder.held).count()
                <= place as usize
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, in_line).await.expect("the waiter is in the queue");
    }
    held.release().await.expect("release");
    for waiter in waiting {
        waiter.await.expect("waiter");
    }
}

/// Who gives up waiting withdraws: from the queue, from the list, and with the locks of the set taken before.
pub async fn a_cancelled_wait_leaves_nothing(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "b").await;
    for wait in [0, 1, 30, 200] {
        let set = request().exclusive("a").exclusive("b");
        let waited = tokio::time::timeout(Duration::from_millis(wait), two.acquire(set)).await;
        assert!(waited.is_err(), "two holders");
    }
    get(&one, "a").await.release().await.expect("release");
    held.verify().await.expect("the holder is untouched");
    held.release().await.expect("release");
    get(&one, "b").await.release().await.expect("release");
    assert_eq!(two.holders().await.expect("holders"), []);
    one.close().await;
    two.close().await;
    assert_eq!(subject.leftovers().await, Vec::<String>::new());
}

/// After the release has been awaited the lock is free for anybody, at once.
pub async fn release_is_awaited(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    for _ in 0..100 {
        get(&one, "a").await.release().await.expect("release");
        two.acquire(once("a")).await.expect("free at once").release().await.expect("release");
    }
}

/// Dropping gives back in the background.
pub async fn dropping_gives_back(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    drop(one.acquire(request().exclusive("a").exclusive("b")).await.expect("free"));
    get(&two, "a").await.release().await.expect("release");
    get(&two, "b").await.release().await.expect("release");
}

/// A lock that is lost tells so by itself, when asked, and at the release; the others of the set are given back.
pub async fn losses_are_told(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let set = one.acquire(request().exclusive("a").exclusive("b").wait(within(SOON))).await.expect("free");
    let bystander = get(&one, "c").await;
    subject.lose("b").await;
    tokio::time::timeout(SOON, set.lost().cancelled()).await.expect("the loss is told");
    assert!(matches!(set.verify().await, Err(Error::Lost { .. })));
    assert!(matches!(set.release().await, Err(Error::Lost { .. })));
    two.acquire(once("a")).await.expect("given back all the same").release().await.expect("release");

    let asked = get(&one, "d").await;
    subject.lose("d").await;
    assert!(matches!(asked.verify().await, Err(Error::Lost { name, .. }) if name == "d"));
    assert!(asked.lost().is_cancelled(), "what verify finds is told");
    drop(asked);
    drop(bystander);
}

/// Each instance sees who holds and who waits, for which operation, since when.
pub async fn holders_and_waiters_are_listed(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "a").await;
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { get(&waiter, "a").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (of_one, of_two) = (one.holders().await.expect("holders"), two.holders().await.expect("holders"));
    // Whoever can only name holders, or nobody but itself, does at least that.
    let expected: [&[bool]; 2] = match one.features().listing {
        Listing::All => [&[true, false], &[true, false]],
        Listing::Holders => [&[true], &[true, false]],
        Listing::Own => [&[true], &[false]],
    };
    for (list, expected) in [&of_one, &of_two].into_iter().zip(expected) {
        assert_eq!(list.iter().map(|holder| holder.held).collect::<Vec<_>>(), expected, "{list:#?}");
        if !expected[0] {
            continue;
        }
        for (holder, instance) in list.iter().zip(["one", "two"]) {
            assert_eq!((holder.name.as_str(), holder.instance.as_str()), ("a", instance));
            let since = holder.since.expect("since when");
            assert!(since >= Duration::from_millis(100) && since < SOON, "{since:?}");
        }
        assert_eq!(list[0].owner, request().owner);
    }
    assert_eq!(of_two.last().map(|waiter| &waiter.owner), Some(&request().owner));
    held.release().await.expect("release");
    waiting.await.expect("waiter").release().await.expect("release");
    assert_eq!(one.holders().await.expect("holders"), []);
}

/// Where the service has fencing tokens, each later holder's is higher.
pub async fn tokens_rise(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let mut last = None;
    for coordinator in [&one, &two, &one, &two] {
        let held = get(coordinator, "a").await;
        assert_eq!(held.token().is_some(), coordinator.features().token);
        assert!(held.token().is_none() || held.token() > last, "{:?} after {last:?}", held.token());
        last = held.token();
        held.release().await.expect("release");
    }
}

/// Where an operator can break a lock, its holder is told and the next one gets it; nobody else is harmed.
pub async fn a_broken_lock_is_lost_and_free(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let (held, bystander) = (get(&one, "a").await, get(&one, "b").await);
    let waiter = two.clone();
    let waiting = Tasks::new().spawn("waiter", async move { waiter.acquire(request().exclusive("a")).await });
    tokio::time::sleep(Duration::from_millis(250)).await;
    match two.break_lock("a").await {
        Err(Error::Unsupported(_)) => {
            assert!(held.verify().await.is_ok(), "an error changes nothing");
            assert!(!waiting.is_finished(), "two holders");
            waiting.abort();
            return;
        }
        broken => assert!(broken.expect("it can be broken"), "it was held"),
    }
    tokio::time::timeout(SOON, held.lost().cancelled()).await.expect("the holder is told");
    assert!(held.is_lost());
    let waited = tokio::time::timeout(SOON, waiting).await.expect("who waits for it has it").expect("waiter");
    waited.expect("free").release().await.expect("release");
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    assert!(!two.break_lock("a").await.expect("nobody holds it"), "nobody held it");
    bystander.verify().await.expect("untouched");
    bystander.release().await.expect("release");
}

/// Names that Cinder could not use, or that would escape, are refused before anything is taken.
pub async fn bad_names_are_refused(subject: &dyn Subject) {
    let one = coordinator(subject, "one").await;
    for bad in ["", "ä", "../../etc/passwd", "a/b", "a\0b"] {
        let refused = one.acquire(request().exclusive("a").exclusive(bad)).await;
        assert!(matches!(refused, Err(Error::Name { .. })), "{bad:?}");
    }
    assert_eq!(one.holders().await.expect("holders"), []);
}

/// Closing tells the holders, frees their locks, and ends waiting.
pub async fn closing_gives_back(subject: &dyn Subject) {
    let (one, two) = (coordinator(subject, "one").await, coordinator(subject, "two").await);
    let held = get(&one, "a").await;
    let other = get(&two, "b").await;
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { waiter.acquire(request().exclusive("b")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    one.close().await;
    assert!(held.lost().is_cancelled());
    get(&two, "a").await.release().await.expect("release");
    assert!(matches!(waiting.await.expect("waiter"), Err(Error::Closed)));
    assert!(matches!(one.acquire(once("c")).await, Err(Error::Closed)));
    assert!(matches!(held.release().await, Err(Error::Lost { .. })));
    assert!(matches!(one.health(), Health::Down(_)));
    other.verify().await.expect("the other instance is untouched");
    other.release().await.expect("release");
}

/// A hundred thousand locks taken and given back leave nothing at the service.
pub async fn nothing_is_left_after_many_pairs(subject: &dyn Subject) {
    const PAIRS: usize = 100_000;
    let at_once = subject.pairs_at_once();
    let one = coordinator(subject, "one").await;
    let tasks = Tasks::new();
    let pairs = |task: usize| {
        let one = one.clone();
        tasks.spawn("pairs", async move {
            for round in 0..PAIRS.div_ceil(at_once) {
                let name = format!("volume-{task}-{}", round % 3);
                get(&one, &name).await.release().await.expect("release");
            }
        })
    };
    for task in (0..at_once).map(pairs).collect::<Vec<_>>() {
        task.await.expect("task");
    }
    assert_eq!(one.holders().await.expect("holders"), []);
    one.close().await;
    assert_eq!(subject.leftovers().await, Vec::<String>::new());
}

/// Many tasks of several instances count together, and never are two inside.
pub async fn never_two_inside(subject: &dyn Subject) {
    const TASKS: u64 = 12;
    const ROUNDS: u64 = 25;
    let (inside, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks = Tasks::new();
    let mut running = Vec::new();
    for instance in ["one", "two", "three"] {
        let coordinator = coordinator(subject, instance).await;
        for _ in 0..TASKS / 3 {
            let (coordinator, inside, count) = (coordinator.clone(), inside.clone(), count.clone());
            running.push(tasks.spawn("counter", async move {
                for _ in 0..ROUNDS {
                    let wanted = request().exclusive("counter").wait(within(SOON * 6));
                    let held = coordinator.acquire(wanted).await.expect("served in the end");
                    assert!(!inside.swap(true, Ordering::SeqCst), "two inside");
                    let seen = count.load(Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    count.store(seen + 1, Ordering::SeqCst);
                    inside.store(false, Ordering::SeqCst);
                    held.release().await.expect("release");
                }
            }));
        }
    }
    for task in running {
        task.await.expect("task");
    }
    assert_eq!(count.load(Ordering::SeqCst), TASKS * ROUNDS);
}

/// Whoever wants the same lock again and again, here or in another instance, has it about as often as the others.
pub async fn no_waiter_gets_less_than_half_the_turns_of_another(subject: &dyn Subject) {
    const MOST: u64 = 60;
    let most = Arc::new(AtomicU64::new(0));
    let tasks = Tasks::new();
    let mut instances = Vec::new();
    for instance in ["one", "two", "three"] {
        instances.push(coordinator(subject, instance).await);
    }
    let mut crowd = Vec::new();
    // All at once: whoever is alone for a while may have it many times before it makes room.
    for coordinator in &instances {
        for _ in 0..2 {
            let (coordinator, most) = (coordinator.clone(), most.clone());
            crowd.push(tasks.spawn("crowd", async move {
                let mut turns = 0;
                while most.load(Ordering::SeqCst) < MOST {
                    let wanted = request().exclusive("a").wait(within(SOON * 6));
                    let held = coordinator.acquire(wanted).await.expect("served in the end");
                    turns += 1;
                    most.fetch_max(turns, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    held.release().await.expect("release");
                }
                turns
            }));
        }
    }
    let mut turns = Vec::new();
    for one in crowd {
        turns.push(one.await.expect("task"));
    }
    assert!(turns.iter().all(|turns| turns * 2 >= MOST), "{turns:?}");
}
