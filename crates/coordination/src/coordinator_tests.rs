use std::io::Write;
use std::sync::Mutex;

use scoria_runtime::Deadline;

use super::*;
use crate::Owner;
use crate::providers::{FaultPoint, MemoryProvider};

fn fixture() -> (Coordinator, Arc<MemoryProvider>) {
    let provider = Arc::new(MemoryProvider::new());
    (Coordinator::new(provider.clone()), provider)
}

fn request() -> LockRequest {
    LockRequest::new(Owner {
        operation: "delete_volume".to_owned(),
        request_id: Some("req-42".to_owned()),
        resource: Some("3f2b".to_owned()),
    })
}

fn down() -> Error {
    Error::Unavailable("for the test".to_owned())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_held_for_long_is_warned_of_at_doubling_distances() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let (coordinator, _) = fixture();
    let set = coordinator.acquire(request().exclusive("a").exclusive("b")).await.unwrap();
    // Between the whole seconds, where nothing else is due.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut warned = Vec::new();
    for second in 1..=300 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if !std::mem::take(&mut *log.0.lock().unwrap()).is_empty() {
            warned.push(second);
        }
    }
    assert_eq!(warned, [60, 120, 240]);
    tokio::time::sleep(Duration::from_secs(200)).await;
    let line = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for part in ["WARN", "a, b", "delete_volume", "req-42", "3f2b", "480"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    set.release().await.unwrap();
    log.0.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert!(log.0.lock().unwrap().is_empty(), "nothing is warned of after the release");
}

#[tokio::test(start_paused = true)]
async fn waiting_holding_and_losing_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let _measured = ::metrics::set_default_local_recorder(&recorder);
    let (coordinator, provider) = fixture();
    let set = coordinator.acquire(request().exclusive("a").shared("b")).await.unwrap();
    let text = rendered.render();
    assert!(text.contains("scoria_locks_held{backend=\"memory\",mode=\"exclusive\"} 1"), "{text}");
    provider.lose("a");
    assert!(matches!(set.verify().await, Err(Error::Lost { .. })));
    assert!(matches!(set.release().await, Err(Error::Lost { .. })));
    let text = rendered.render();
    for line in [
        "scoria_locks_held{backend=\"memory\",mode=\"exclusive\"} 0",
        "scoria_locks_held{backend=\"memory\",mode=\"shared\"} 0",
        "scoria_locks_lost_total{backend=\"memory\",mode=\"exclusive\"} 1",
        "scoria_lock_wait_seconds_count{backend=\"memory\",mode=\"shared\"} 1",
        "scoria_lock_held_seconds_count{backend=\"memory\",mode=\"shared\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_failure_in_the_middle_gives_back_what_was_taken() {
    let (coordinator, provider) = fixture();
    let other = Coordinator::new(Arc::new(provider.another("other")));
    let held = other.acquire(request().exclusive("b")).await.unwrap();
    let waiting = coordinator.clone();
    let waiting =
        Tasks::new().spawn("waiting", async move { waiting.acquire(request().exclusive("a").exclusive("b")).await });
    while other.holders().await.unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    provider.lose("a");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Lost { name, reason } if name == "a" && reason.contains("'b'")), "{error}");
    held.release().await.unwrap();

    provider.fail_next(FaultPoint::Acquire, down());
    assert!(coordinator.acquire(request().exclusive("a").exclusive("b")).await.unwrap_err().is_retryable());
    assert_eq!(other.holders().await.unwrap(), []);
}

#[tokio::test]
async fn one_failed_release_does_not_keep_the_others() {
    let (coordinator, provider) = fixture();
    let set = coordinator.acquire(request().exclusive("a").exclusive("b")).await.unwrap();
    assert_eq!(set.token(), Some(2));
    provider.fail_next(FaultPoint::Release, down());
    assert!(matches!(set.release().await, Err(Error::Unavailable(_))));
    coordinator.acquire(request().exclusive("a").exclusive("b").wait(WaitPolicy::No)).await.unwrap();
}

#[tokio::test]
async fn the_loss_of_one_lock_of_a_set_is_told() {
    let (coordinator, provider) = fixture();
    let set = coordinator.acquire(request().exclusive("a").exclusive("b")).await.unwrap();
    provider.lose("b");
    assert!(set.lost().is_cancelled(), "in the same call, without a task in between");
    let single = coordinator.acquire(request().exclusive("c")).await.unwrap();
    provider.lose("c");
    assert!(single.lost().is_cancelled(), "as well as of a set of one");
    let none = coordinator.acquire(request()).await.unwrap();
    assert_eq!(none.names().count(), 0);
    none.release().await.unwrap();
}

#[tokio::test]
async fn busy_names_the_holder_of_another_instance_after_a_wait() {
    let (coordinator, provider) = fixture();
    let other = Coordinator::new(Arc::new(provider.another("other")));
    let _held = other.acquire(request().exclusive("a")).await.unwrap();
    let wait = WaitPolicy::Until(Deadline::after(Duration::from_millis(5)));
    let error = coordinator.acquire(request().exclusive("a").wait(wait)).await.unwrap_err().to_string();
    assert!(error.starts_with("lock 'a' is held by delete_volume of req-42 in other for 0."), "{error}");
}

#[tokio::test]
async fn urls_open_what_they_name_or_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("state/locks");
    let options = Options::default();
    let open = |url: String| {
        let options = options.clone();
        async move { Coordinator::open(&url, &options).await }
    };
    assert_eq!(
        open("memory://".to_owned()).await.unwrap().describe(),
        "lock service memory: this machine only, with shared mode, waiters of all instances in order, with fencing tokens"
    );
    // As in tooz: the host is dropped, a trailing slash does not matter, the timeout is for members of groups.
    for url in [format!("file://{}/", inside.display()), format!("file://host{}?timeout=5", inside.display())] {
        let coordinator = open(url).await.unwrap();
        coordinator.acquire(request().exclusive("a")).await.unwrap().release().await.unwrap();
        assert_eq!(coordinator.health(), Health::Up);
    }
    assert!(inside.join("cinder-a").exists());
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (url, says) in [
        ("".to_owned(), "no scheme"),
        ("sheep://h".to_owned(), "no lock service 'sheep://'; known are zookeeper://"),
        ("file://".to_owned(), "absolute directory"),
        ("file:relative".to_owned(), "absolute directory"),
        ("file:///x?timeout=soon".to_owned(), "timeout=soon"),
        (format!("file://{}", file.display()), "cannot be made"),
    ] {
        let error = open(url.clone()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{url}: {error}");
    }
}
