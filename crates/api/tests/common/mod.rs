//! A front door on a free loopback port, with SQLite in a directory of its own and an in-process broker.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use scoria_api::volume::{FrontDoor, router};
use scoria_coordination::Coordinator;
use scoria_coordination::providers::MemoryProvider;
use scoria_db::{Database, NewService, Options, QuotaDefaults};
use scoria_rpc::Client;
use scoria_rpc::providers::memory::MemoryBroker;
use scoria_runtime::Tasks;
use serde_json::{Value, json};
use tempfile::TempDir;

use stand_in::StandIn;

/// The one back end.
pub(crate) const HOST: &str = "alone@store#pool";

/// The front door and all that is behind it.
pub(crate) struct Cloud {
    /// `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    pub(crate) database: Database,
    pub(crate) broker: MemoryBroker,
    pub(crate) coordinator: Coordinator,
    tasks: Tasks,
    _directory: TempDir,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Cloud {
    /// With a stand-in for the volume service that does what it is asked.
    pub(crate) async fn start() -> Self {
        let cloud = Self::deserted().await;
        cloud.serve_volumes().await;
        cloud
    }

    /// Without anybody who listens to messages.
    pub(crate) async fn deserted() -> Self {
        Self::with(|_| {}).await
    }

    /// Without anybody who listens to messages, and set up otherwise.
    pub(crate) async fn with(change: impl FnOnce(&mut FrontDoor)) -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite:///{}", directory.path().join("scoria.sqlite").display());
        let database = Database::connect(&Options::new(url)).await.unwrap();
        database.sync().await.unwrap();
        let service = NewService {
            host: "alone@store".to_owned(),
            binary: "cinder-volume".to_owned(),
            topic: "cinder-volume".to_owned(),
            availability_zone: "nova".to_owned(),
            cluster_name: None,
            enable_new_services: true,
        };
        database.service_register(&service).await.unwrap();

        let broker = MemoryBroker::recording();
        let coordinator = Coordinator::new(Arc::new(MemoryProvider::new()));
        let mut door = FrontDoor {
            database: database.clone(),
            rpc: Client::new(broker.transport(), Duration::from_secs(10)),
            coordinator: coordinator.clone(),
            host: HOST.parse().unwrap(),
            cluster: None,
            quotas: QuotaDefaults::default(),
            snapshots_use_gigabytes: true,
            token: None,
            availability_zone: "nova".to_owned(),
            default_volume_type: "__DEFAULT__".to_owned(),
            page_limit: 1000,
            service_down_time: 60,
        };
        change(&mut door);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.spawn("front door", async move {
            axum::serve(listener, router(door)).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
        });
        Self { url, database, broker, coordinator, tasks, _directory: directory }
    }

    /// Lets a stand-in take the volume service's messages from now on.
    pub(crate) async fn serve_volumes(&self) {
        let stand_in = StandIn::listen(self.database.clone(), &self.broker).await;
        self.tasks.spawn("stand-in", stand_in.run(self.tasks.stop_token()));
    }

    /// One request of the user `tester` of the project `project`, in the newest microversion.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(method, path, body, "3.71", "tester:project").await
    }

    /// One request.
    pub(crate) async fn call_as(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        version: &str,
        token: &str,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = reqwest::Client::new()
            .request(method, format!("{}/v3{path}", self.url))
            .header("OpenStack-API-Version", format!("volume {version}"))
            .header("X-Auth-Token", token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// A volume that the stand-in has finished; its id.
    pub(crate) async fn volume(&self, size: u64) -> String {
        let answer = self.post("/volumes", json!({"volume": {"size": size}})).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.text("/volume/id");
        self.until("/volumes", &id, "volume", "available").await;
        id
    }

    /// A snapshot that the stand-in has finished; its id.
    pub(crate) async fn snapshot(&self, volume: &str) -> String {
        let answer = self.post("/snapshots", json!({"snapshot": {"volume_id": volume}})).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.text("/snapshot/id");
        self.until("/snapshots", &id, "snapshot", "available").await;
        id
    }

    /// Waits until a resource has a status; `gone` is none.
    pub(crate) async fn until(&self, collection: &str, id: &str, key: &str, status: &str) {
        for _ in 0..200 {
            let answer = self.get(&format!("{collection}/{id}")).await;
            let now = match answer.status.as_u16() {
                404 => "gone".to_owned(),
                _ => answer.text(&format!("/{key}/status")),
            };
            if now == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{collection}/{id} did not become {status}");
    }
}

impl Answer {
    /// Sends a request and reads the answer.
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    /// The text at a JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {self:?}")).to_owned()
    }

    /// The message of Cinder's error body with this key, after a look at the status.
    pub(crate) fn fault(&self, status: u16, key: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.body[key]["code"], status, "{self:?}");
        self.text(&format!("/{key}/message"))
    }
}
