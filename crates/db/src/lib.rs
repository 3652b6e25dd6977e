//! Repositories over Cinder's tables on SQLite, MySQL (MariaDB) and PostgreSQL.
//!
//! What it is: one [`Database`] handle whose methods are the statements that the volume service needs, grouped in files by use
//! case. Every change of a status is a compare-and-swap, fenced by the `workers` row where there is one ([`Expect`],
//! [`Swap`]). Statements are built once with sea-query and rendered per dialect; rows become `scoria_model` structs.
//!
//! What it is not: no object-relational mapper and no migration of Cinder's schema. In a database that `cinder-manage` made it
//! creates and alters nothing; the tables of stand-alone mode are in `migrations/`. It decides nothing about operations.

mod attachments;
mod cas;
mod clusters;
mod connect;
mod detach;
mod error;
mod glance;
mod lock_line;
mod lock_rows;
mod lock_table;
mod lock_watch;
mod messages;
mod metadata;
mod pool;
mod quota_commit;
mod quota_limits;
mod quotas;
mod retry;
mod rows;
mod schema;
mod services;
mod snapshots;
mod statement;
mod types;
mod url;
mod volume_destroy;
mod volume_load;
mod volume_update;
mod volumes;
mod workers;

pub use attachments::{AttachmentChange, AttachmentFilter, Json};
pub use cas::{Expect, Swap};
pub use clusters::ClusterChange;
pub use connect::Options;
pub use detach::{Attached, Detached};
pub use error::{Error, OverQuota, Result};
pub use lock_table::DatabaseLocks;
pub use pool::{Database, Dialect};
pub use quotas::{QuotaDefaults, QuotaRelease, Usage};
pub use schema::{CINDER_REVISIONS, SchemaOrigin};
pub use services::{NewService, ServiceChange, ServiceFilter};
pub use snapshots::{LoadedSnapshot, SnapshotChange, SnapshotFilter};
pub use volume_load::Loaded;
pub use volume_update::VolumeChange;
pub use volumes::{ServiceVolume, SortDirection, VolumeFilter, VolumeOwner};
pub use workers::{WorkerClaim, WorkerFilter};
