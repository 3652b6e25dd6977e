//! What is running now: for the drain, for `/v1/operations`, for the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scoria_runtime::{Gate, GateClosed, GateGuard};
use tokio::time::Instant;

/// One operation that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningOperation {
    /// Method.
    pub operation: String,
    /// Volume or snapshot.
    pub resource: String,
    /// Request id.
    pub request_id: Option<String>,
    /// What it is doing: `waiting for locks`, or a step's name.
    pub state: String,
    /// For how long.
    pub since: Duration,
}

#[derive(Debug)]
struct Record {
    operation: String,
    resource: String,
    request_id: Option<String>,
    state: String,
    since: Instant,
}

/// The list of what is running; entering it is entering the gate that a shutdown waits for.
#[derive(Debug, Clone, Default)]
pub struct Running {
    gate: Gate,
    records: Arc<Mutex<(u64, BTreeMap<u64, Record>)>>,
}

/// A place in the list; dropping it leaves the list.
#[derive(Debug)]
pub(crate) struct Entry {
    running: Running,
    id: u64,
    _guard: GateGuard,
}

impl Running {
    /// Everything that is running, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<RunningOperation> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let show = |record: &Record| RunningOperation {
            operation: record.operation.clone(),
            resource: record.resource.clone(),
            request_id: record.request_id.clone(),
            state: record.state.clone(),
            since: record.since.elapsed(),
        };
        records.1.values().map(show).collect()
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether anything runs on the resource.
    pub(crate) fn is_at_work_on(&self, resource: &str) -> bool {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).1.values().any(|record| record.resource == resource)
    }

    pub(crate) fn enter(&self, operation: &str, resource: &str, request_id: Option<&str>) -> Result<Entry, GateClosed> {
        let guard = self.gate.enter(format!("{operation} {resource}"))?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.0 += 1;
        let id = records.0;
        let record = Record {
            operation: operation.to_owned(),
            resource: resource.to_owned(),
            request_id: request_id.map(str::to_owned),
            state: "starting".to_owned(),
            since: Instant::now(),
        };
        records.1.insert(id, record);
        Ok(Entry { running: self.clone(), id, _guard: guard })
    }
}

impl Entry {
    pub(crate) fn set_state(&self, state: &str) {
        let mut records = self.running.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = records.1.get_mut(&self.id) {
            state.clone_into(&mut record.state);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.records.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}
