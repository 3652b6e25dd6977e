//! The words of the volume service: ids, hosts, statuses, rows, faults, request contexts and versioned objects.
//!
//! What it is: plain data that every other crate speaks, with the checks that keep nonsense from being built.
//! What it is not: it does no I/O, knows no runtime, and decides nothing about operations.

mod attachment;
mod context;
mod fault;
mod host;
mod id;
mod lock_table;
pub mod object;
mod resource;
mod service;
mod snapshot;
mod status;
mod timestamp;
mod volume;

pub use attachment::{Attachment, Connector};
pub use context::{ReadDeleted, RequestContext};
pub use fault::{Fault, FaultClass};
pub use host::{Host, HostError};
pub use id::{AttachmentId, GroupId, IdError, MessageId, SnapshotId, UserMessageId, VolumeId, VolumeTypeId};
pub use lock_table::{LockAnswer, LockLease, LockRow, LockTable, LockTableError, LockWatch, LockWish};
pub use resource::{MessageAction, MessageDetail, ResourceType, UserMessage, Worker};
pub use service::{Cluster, OBJECT_VERSION, Service, VOLUME_RPC_VERSION};
pub use snapshot::Snapshot;
pub use status::{AttachStatus, SnapshotStatus, VolumeStatus};
pub use timestamp::Timestamp;
pub use volume::{Metadata, QosSpecs, Volume, VolumeType};

/// Bytes in one GiB, the unit of every size in the API.
pub const GIB: u64 = 1 << 30;
