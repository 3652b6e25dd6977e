//! The lock services.

use std::sync::Arc;

use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

mod advisory;
mod courtesy;
mod database;
mod etcd;
mod file;
pub(crate) mod leased;
mod memcached;
mod memory;
mod mysql;
mod postgresql;
pub(crate) mod queued;
mod redis;
mod zookeeper;

pub use file::FileProvider;
pub use memory::{FaultPoint, MemoryProvider};

/// How long somebody who gives up still waits to have left the queue; after that it goes on in the background.
pub(crate) const LEAVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// What can be written in `backend_url`, for the error about anything else.
const KNOWN: &str = "zookeeper:// (or kazoo://), redis://, etcd://, etcd3+http://, etcd3+https://, memcached://, mysql://, \
                     postgresql://, database:// (the service's own database), file:// (one machine, or a shared directory) \
                     and memory:// (one process)";

/// Opens the lock service that a URL names. Services in the network are connected to in the background: until that has
/// succeeded [`Provider::health`] says `Down`, and whoever wants a lock waits.
///
/// # Errors
/// [`Error::Config`] when the URL or an option of it is wrong or no such service is known, [`Error::Unavailable`] when it
/// cannot work on this machine.
pub async fn open(backend_url: &str, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let url = BackendUrl::parse(backend_url)?;
    match url.scheme.as_str() {
        "file" => Ok(Arc::new(FileProvider::open(&url, options).await?)),
        "memory" => Ok(Arc::new(MemoryProvider::named(&options.instance))),
        "zookeeper" | "kazoo" => zookeeper::open(&url, options),
        "redis" => redis::open(&url, options),
        "etcd" => etcd::open(&url, options),
        "etcd3+http" | "etcd3+https" => etcd::open_as_tooz(&url, options),
        "memcached" => memcached::open(&url, options),
        "mysql" => mysql::open(&url, options),
        "postgresql" => postgresql::open(&url, options),
        "database" => database::open(&url, options).await,
        other => Err(refused(other)),
    }
}

/// Why a scheme is none of ours; tooz knows, or knew, some of them.
fn refused(scheme: &str) -> Error {
    let why = match scheme {
        "ipc" => {
            "ipc:// (semaphores of one machine) is not supported: it can do nothing that file:// cannot; use file:// on one \
             machine"
        }
        "kubernetes" => {
            "kubernetes:// is not supported: it is deprecated in tooz; use the cluster's etcd, redis or zookeeper, or \
             database://"
        }
        "consul" => "consul:// is not supported: tooz has dropped it, so no Python service can share its locks",
        "zake" => "zake:// is not supported: it was a ZooKeeper in memory for tests of tooz, use memory:// in tests",
        "etcd3" => {
            "etcd3:// is not supported: tooz has dropped it; use etcd3+http:// beside Python services, else etcd://"
        }
        "rediss" => "rediss:// is not supported: tooz does not know it; write redis:// with ssl=true",
        "postgres" => "the scheme is written postgresql://",
        "mysql+pymysql" | "mariadb" => "the scheme is written mysql://",
        other => return Error::Config(format!("there is no lock service '{other}://'; known are {KNOWN}")),
    };
    Error::Config(format!("{why}; known are {KNOWN}"))
}
