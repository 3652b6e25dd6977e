//! Rows of `services` and `clusters`, and the versions we announce in them.

use crate::Timestamp;

/// RPC version of the volume service that we serve (`cinder/volume/manager.py: RPC_API_VERSION`).
/// A lower one in any row pins every client of the cloud down.
pub const VOLUME_RPC_VERSION: &str = "3.20";

/// Object history version that we read and write (`cinder/objects/base.py: OBJ_VERSIONS`).
pub const OBJECT_VERSION: &str = "1.39";

/// One row of `services`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The id; `workers.service_id` refers to it.
    pub id: i64,
    /// Text id; `volumes.service_uuid` refers to it.
    pub uuid: Option<String>,
    /// `host@backend`.
    pub host: String,
    /// `cinder-volume`.
    pub binary: String,
    /// `cinder-volume`.
    pub topic: Option<String>,
    /// `cluster@backend`.
    pub cluster_name: Option<String>,
    /// Heartbeats so far.
    pub report_count: i64,
    /// Whether the scheduler must not use it.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Availability zone.
    pub availability_zone: Option<String>,
    /// RPC version it serves.
    pub rpc_current_version: Option<String>,
    /// Object history version it knows.
    pub object_current_version: Option<String>,
    /// Replication state.
    pub replication_status: Option<String>,
    /// Frozen by an administrator.
    pub frozen: bool,
    /// Replication target in use.
    pub active_backend_id: Option<String>,
    /// Row's birth.
    pub created_at: Option<Timestamp>,
    /// Last heartbeat.
    pub updated_at: Option<Timestamp>,
}

/// One row of `clusters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The id.
    pub id: i64,
    /// `cluster@backend`.
    pub name: String,
    /// `cinder-volume`.
    pub binary: String,
    /// Whether the scheduler must not use it.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Replication state.
    pub replication_status: Option<String>,
    /// Replication target in use.
    pub active_backend_id: Option<String>,
    /// Frozen by an administrator.
    pub frozen: bool,
}
