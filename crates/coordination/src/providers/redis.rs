//! `redis://`: tooz' keys and tokens, on one server or on the master that sentinels name.
//!
//! A lock is the key `<namespace>_<name>_lock` with the holder's claim as its value and a time to live, so that tooz processes and we
//! exclude each other (`tooz/drivers/redis.py: RedisLock`, `redis/lock.py: Lock`). Beside it stand, with a time to live too, the
//! holder's details, who waits, and whether polling peers have room; and one counter per namespace gives fencing tokens.
//!
//! A server that dies forgets what it was told, unless it writes everything down at once (`appendonly yes`, `appendfsync always`): when
//! nobody listens any more on its port, everything that was held there is lost at once. A connection that ends otherwise costs
//! nothing if there is another one in time.
//!
//! Redis replicates without waiting: a failover may forget a lock that was granted just before, and a master that is cut off
//! goes on for a while. What is held is looked at again on every new connection, and tokens go by the clock so that they rise
//! all the same; but two holders at once cannot be excluded there. The other fences stand behind.

mod connection;
mod keys;
mod list;
mod options;
mod scripts;
mod store;
mod wakes;

use std::sync::Arc;

use crate::heart::Heart;
use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

use super::leased::LeasedProvider;
use options::RedisOptions;
use store::RedisStore;

pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let redis = RedisOptions::read(url)?;
    let heart = Heart::start("redis")?;
    let store = RedisStore::start(redis, options, &heart);
    Ok(Arc::new(LeasedProvider::new(Arc::new(store), &heart, options)))
}
