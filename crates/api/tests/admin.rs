//! Health, metrics, what is running, who holds what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Client, Response};
use scoria_api::admin::{AdminState, Status, router};
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Coordinator, LockRequest, Owner};
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
        let service = Arc::new(Service::default());
        let coordinator = Coordinator::new(Arc::new(MemoryProvider::new()));
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
async fn operations_and_locks_are_listed() {
    let admin = Admin::start().await;
    assert_eq!(admin.json("/v1/operations").await["operations"][0]["operation"], "delete_volume");
    assert_eq!(admin.json("/v1/locks").await, json!({"locks": []}));
    let owner = Owner {
        operation: "delete_volume".to_owned(),
        request_id: Some("req-1".to_owned()),
        resource: Some("x".to_owned()),
    };
    let request = LockRequest::new(owner).exclusive("x-delete_volume");
    let lock = admin.coordinator.acquire(request).await.unwrap();
    let locks = admin.json("/v1/locks").await["locks"].clone();
    assert_eq!(locks.as_array().map(Vec::len), Some(1), "{locks}");
    let expected = json!({"name": "x-delete_volume", "mode": "exclusive", "held": true, "request_id": "req-1"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(locks[0][key], *value, "{locks}");
    }
    lock.release().await.unwrap();
    admin.coordinator.close().await;
    assert!(
        admin.get("/v1/locks", "*/*").await.status().as_u16() == 503
            || admin.json("/v1/locks").await["locks"] == json!([])
    );
}
