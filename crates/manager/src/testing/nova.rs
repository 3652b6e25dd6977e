//! A stand-in for Nova and the server behind it: what it is asked it does at once with `qemu-img`, and reports in the snapshot's
//! row as nova-compute has cinder-api do. (With the real API and QEMU: `tests/tests/attached_snapshots.rs`.)

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use scoria_compute::{Compute, Error};
use scoria_db::{Database, Expect, SnapshotChange};
use scoria_model::{SnapshotId, SnapshotStatus};
use serde_json::Value;

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As it should.
    Good,
    /// Nova refuses it.
    Refused,
    /// The server does it, but the answer is lost.
    Lost,
    /// The server cannot do it, and says so.
    Fails,
    /// The server does it, and says that it could not.
    Lies,
}

/// Every volume of a share is attached to one server.
pub(crate) struct ServersWithNova {
    db: Database,
    share: PathBuf,
    answer: Mutex<Answer>,
    asked: Mutex<Vec<Value>>,
}

impl std::fmt::Debug for ServersWithNova {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServersWithNova")
    }
}

impl ServersWithNova {
    pub(crate) fn new(db: Database, share: PathBuf) -> Self {
        Self { db, share, answer: Mutex::new(Answer::Good), asked: Mutex::default() }
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a request, does it unless it fails, and reports.
    async fn take_on(
        &self,
        snapshot: &str,
        info: &Value,
        done: SnapshotStatus,
        failed: SnapshotStatus,
        work: impl FnOnce(),
    ) -> Result<(), Error> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(info.clone());
        let answer = *self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        if answer == Answer::Refused {
            return Err(Error::NotDone("Nova refuses it".to_owned()));
        }
        if answer != Answer::Fails {
            work();
        }
        let status = if matches!(answer, Answer::Fails | Answer::Lies) { failed } else { done };
        let change = SnapshotChange { progress: Some(Some("90%".to_owned())), ..SnapshotChange::status(status) };
        let id: SnapshotId = snapshot.parse().unwrap();
        assert!(self.db.snapshot_update(&id, &Expect::any(), &change).await.unwrap().is_done());
        if answer == Answer::Lost { Err(Error::Unknown("no answer".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Compute for ServersWithNova {
    async fn create_volume_snapshot(&self, _: Option<&str>, _volume_id: &str, info: &Value) -> Result<(), Error> {
        let snapshot = info["snapshot_id"].as_str().unwrap();
        let overlay = self.share.join(info["new_file"].as_str().unwrap());
        assert!(overlay.exists(), "the server finds the overlay");
        self.take_on(snapshot, info, SnapshotStatus::Creating, SnapshotStatus::Error, || {}).await
    }

    async fn delete_volume_snapshot(&self, _: Option<&str>, id: &str, info: &Value) -> Result<(), Error> {
        let volume = info["volume_id"].as_str().unwrap();
        let text = std::fs::read(self.share.join(format!("volume-{volume}.info"))).unwrap();
        let chain: Value = serde_json::from_slice(&text).unwrap();
        let active = self.share.join(chain["active"].as_str().unwrap());
        assert_eq!(info["merge_target_file"], Value::Null, "the tests here have one snapshot each");
        let pull = || {
            let done = Command::new("qemu-img").args(["rebase", "-q", "-f", "qcow2", "-b", ""]).arg(active).status();
            assert!(done.unwrap().success());
        };
        self.take_on(id, info, SnapshotStatus::Deleting, SnapshotStatus::ErrorDeleting, pull).await
    }
}
