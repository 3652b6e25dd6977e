//! Health, metrics, what is running, who holds what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use scoria_api::admin::{AdminState, Status, router};
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Coordinator, LockRequest, LockSet, Options, Owner};
use scoria_runtime::Tasks;
use serde_json::{Value, json};

/// A volume service whose broker can be lost.
#[derive(Default)]
struct Service {
    broken: AtomicBool,
}

impl Status for Service {
    fn health(&self) -> Vec<(String, Result<(), String>)> {
        let broker = match self.broken.load(Ordering::Relaxed) {
            true => Err("no route to host".to_owned()),
            false => Ok(()),
        };
        vec![("database".to_owned(), Ok(())), ("message broker".to_owned(), broker)]
    }

    fn operations(&self) -> Value {
        json!([{"operation": "delete_volume", "request_id": "req-1"}])
    }
}

struct Admin {
    url: String,
    service: Arc<Service>,
    coordinator: Coordinator,
    _tasks: Tasks,
}

impl Admin {
    async fn start() -> Self {
        Self::on(Coordinator::new(Arc::new(MemoryProvider::new()))).await
    }

    async fn on(coordinator: Coordinator) -> Self {
        let service = Arc::new(Service::default());
        let state = AdminState {
            status: service.clone(),
            metrics: Arc::new(|| "scoria_up 1\n".to_owned()),
            coordinator: coordinator.clone(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        tasks.spawn("admin", async move { axum::serve(listener, router(state)).await.unwrap() });
        Self { url, service, coordinator, _tasks: tasks }
    }

    async fn get(&self, path: &str, accept: &str) -> Response {
        Client::new().get(format!("{}{path}", self.url)).header("Accept", accept).send().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str) -> (u16, Value) {
        let answer = Client::new().request(method, format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until the lock that the tests hold looks like this.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.json("/v1/locks/x-delete_volume").await["lock"]) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not after 30 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path, "application/json").await.json().await.unwrap()
    }
}

#[tokio::test]
async fn health_names_what_is_wrong() {
    let admin = Admin::start().await;
    let well = admin.get("/healthcheck", "*/*").await;
    assert_eq!((well.status().as_u16(), well.text().await.unwrap()), (200, "OK".to_owned()));
    let parts = json!({"database": null, "message broker": null});
    assert_eq!(admin.json("/healthcheck").await, json!({"healthy": true, "parts": parts}));

    admin.service.broken.store(true, Ordering::Relaxed);
    let ill = admin.get("/healthcheck", "*/*").await;
    assert_eq!(ill.status(), 503);
    assert_eq!(ill.text().await.unwrap(), "message broker: no route to host\n");
    let ill = admin.get("/healthcheck", "application/json").await;
    assert_eq!(ill.status(), 503);
    let body: Value = ill.json().await.unwrap();
    assert_eq!(body["parts"], json!({"database": null, "message broker": "no route to host"}));
}

#[tokio::test]
async fn metrics_come_as_prometheus_reads_them() {
    let admin = Admin::start().await;
    let answer = admin.get("/metrics", "*/*").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert_eq!(answer.text().await.unwrap(), "scoria_up 1\n");
}

#[tokio::test]
async fn operations_are_listed() {
    let admin = Admin::start().await;
    assert_eq!(admin.json("/v1/operations").await["operations"][0]["operation"], "delete_volume");
}

const NAME: &str = "x-delete_volume";

async fn deletion(coordinator: &Coordinator) -> LockSet {
    let owner = Owner {
        operation: "delete_volume".to_owned(),
        request_id: Some("req-1".to_owned()),
        resource: Some("x".to_owned()),
    };
    coordinator.acquire(LockRequest::new(owner).exclusive(NAME)).await.unwrap()
}

#[tokio::test]
async fn holders_and_waiters_are_listed() {
    let admin = Admin::start().await;
    assert_eq!(admin.json("/v1/locks").await, json!({"locks": [], "listing": "all"}));
    let (status, body) = admin.send(Method::GET, "/v1/locks/x-delete_volume").await;
    assert_eq!((status, body["error"].as_str()), (404, Some("nobody holds lock 'x-delete_volume' or waits for it")));

    let lock = deletion(&admin.coordinator).await;
    let locks = admin.json("/v1/locks").await["locks"].clone();
    assert_eq!(locks.as_array().map(Vec::len), Some(1), "{locks}");
    let expected = json!({"name": NAME, "mode": "exclusive", "held": true, "request_id": "req-1", "resource": "x"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(locks[0][key], *value, "{locks}");
    }

    let waiter = admin.coordinator.clone();
    let tasks = Tasks::new();
    let waiting = tasks.spawn("waiter", async move { deletion(&waiter).await });
    admin.until("a waiter", |lock| lock["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1)).await;
    let shown = admin.json("/v1/locks/x-delete_volume").await["lock"].clone();
    assert_eq!((&shown["name"], &shown["listing"]), (&NAME.into(), &"all".into()));
    assert_eq!((&shown["holders"][0]["token"], &shown["waiters"][0]["token"]), (&1.into(), &Value::Null));

    lock.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    admin.coordinator.close().await;
    let (status, body) = admin.send(Method::GET, "/v1/locks").await;
    assert!(status == 503 || body["locks"] == json!([]), "{status} {body}");
}

#[tokio::test]
async fn waiting_ends_when_the_lock_is_free_and_leaves_nothing() {
    let admin = Admin::start().await;
    let wait = "/v1/locks/x-delete_volume/wait";
    for bad in ["", "?seconds=soon", "?seconds=-1"] {
        assert_eq!(admin.send(Method::POST, &format!("{wait}{bad}")).await.0, 400, "{bad}");
    }
    assert_eq!(admin.send(Method::POST, &format!("{wait}?seconds=0")).await, (200, json!({"free": true})));

    let lock = deletion(&admin.coordinator).await;
    let (status, body) = admin.send(Method::POST, &format!("{wait}?seconds=0.1")).await;
    assert_eq!(status, 409);
    assert!(body["error"].as_str().unwrap().contains("is held by delete_volume of req-1"), "{body}");

    // Somebody who goes away while waiting does not wait on.
    let impatient = Client::new().post(format!("{}{wait}?seconds=60", admin.url)).timeout(Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    admin.until("no waiter", |lock| lock["waiters"] == json!([])).await;

    let seconds = format!("{wait}?seconds=60");
    let patient = admin.send(Method::POST, &seconds);
    let release = async {
        admin.until("a waiter", |lock| lock["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1)).await;
        lock.release().await.unwrap();
    };
    let (answer, ()) = futures_util::join!(patient, release);
    assert_eq!(answer, (200, json!({"free": true})));
    assert_eq!(admin.json("/v1/locks").await["locks"], json!([]));
}

#[tokio::test]
async fn a_lock_is_broken_only_when_that_is_confirmed() {
    let admin = Admin::start().await;
    let path = "/v1/locks/x-delete_volume";
    let confirmed = format!("{path}?confirm=yes&by=admin");
    assert_eq!(admin.send(Method::DELETE, &confirmed).await.0, 404);

    let lock = deletion(&admin.coordinator).await;
    for unconfirmed in ["", "?confirm=no", "?confirm="] {
        let (status, body) = admin.send(Method::DELETE, &format!("{path}{unconfirmed}")).await;
        assert_eq!(status, 400);
        assert!(body["error"].as_str().unwrap().contains("?confirm=yes"), "{body}");
    }
    assert!(!lock.is_lost());

    let (status, body) = admin.send(Method::DELETE, &confirmed).await;
    assert_eq!((status, &body["broken"][0]["request_id"]), (200, &"req-1".into()));
    assert!(lock.is_lost() && lock.lost().is_cancelled());
    deletion(&admin.coordinator).await.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_service_that_cannot_break_locks_says_what_to_do_instead() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let admin = Admin::on(Coordinator::open(&url, &Options::default()).await.unwrap()).await;
    let lock = deletion(&admin.coordinator).await;
    let (status, body) = admin.send(Method::DELETE, "/v1/locks/x-delete_volume?confirm=yes").await;
    assert_eq!(status, 501);
    assert!(body["error"].as_str().unwrap().contains("end the process that holds 'x-delete_volume'"), "{body}");
    assert!(!lock.is_lost());
    assert_eq!(admin.send(Method::GET, "/v1/locks/a%2Fb").await.0, 404);
    assert_eq!(admin.send(Method::POST, "/v1/locks/a%2Fb/wait?seconds=0").await.0, 400);
    lock.release().await.unwrap();
}
