//! A stand-alone service and the lock service that its configuration names.

mod away;
mod shown;

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use scoria_testkit::{Process, free_port, program, scoria_volume, wait_until};
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The least and the most seconds between two tries to connect.
const BACKOFF: [f64; 2] = [0.2, 0.8];

/// A stand-alone service with a lock service elsewhere.
struct Service {
    process: Process,
    door: String,
    admin: String,
    _directory: tempfile::TempDir,
}

impl Service {
    fn start(lock_service: &str) -> Self {
        program("qemu-img", "qemu-utils").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (door, admin) = (free_port().unwrap(), free_port().unwrap());
        let dir = directory.path().display();
        let text = format!(
            "[DEFAULT]\nstate_path = {dir}\n[local]\nlocal_path = {dir}/volumes\n\
             [coordination]\nbackend_url = {lock_service}\ninitial_reconnect_backoff = {}\nmax_reconnect_backoff = {}\n\
             [scoria]\napi_listen_port = {door}\nadmin_listen_port = {admin}\n",
            BACKOFF[0], BACKOFF[1]
        );
        let conf = directory.path().join("cinder.conf");
        std::fs::write(&conf, text).unwrap();
        let mut command = Command::new(scoria_volume().unwrap());
        command.args(["--standalone", "--config-file"]).arg(&conf).current_dir(directory.path());
        let process = Process::spawn("scoria-volume", command, &directory.path().join("log")).unwrap();
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        Self { process, door: at(door), admin: at(admin), _directory: directory }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.process.log()).unwrap()).into_owned()
    }

    /// What it says of its health: empty when it is good, `None` when it does not answer.
    async fn trouble(&self) -> Option<String> {
        let answer = reqwest::get(format!("{}/healthcheck", self.admin)).await.ok()?;
        let is_good = answer.status().is_success();
        let text = answer.text().await.ok()?;
        Some(if is_good { String::new() } else { text })
    }

    async fn wait_for_trouble(&self, part: &str) {
        let says = async || self.trouble().await.is_some_and(|trouble| trouble.contains(part));
        self.wait(&format!("its health says: {part}"), says).await;
    }

    async fn wait_for_good_health(&self) {
        self.wait("its health is good", async || self.trouble().await.is_some_and(|trouble| trouble.is_empty())).await;
    }

    async fn wait(&self, what: &str, check: impl AsyncFnMut() -> bool) {
        if let Err(error) = wait_until(what, PATIENCE, check).await {
            panic!("{error}\n{}", self.process.log_tail());
        }
    }

    /// Asks for a volume; its URL.
    async fn ask_for_volume(&self) -> String {
        let volumes = format!("{}/v3/project/volumes", self.door);
        let ask = json!({"volume": {"size": 1}});
        let answer = reqwest::Client::new().post(&volumes).json(&ask).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let id = answer["volume"]["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
        format!("{volumes}/{id}")
    }

    async fn status(&self, volume: &str) -> String {
        let answer: Value = reqwest::get(volume).await.unwrap().json().await.unwrap();
        answer["volume"]["status"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Asks it to end, which it does.
    async fn ends(mut self) {
        self.process.signal(Signal::SIGTERM).unwrap();
        let status = self.process.wait(PATIENCE).await.unwrap();
        assert!(status.success() && self.log().trim_end().ends_with("ended"), "{}", self.log());
    }
}
