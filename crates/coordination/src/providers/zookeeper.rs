//! `zookeeper://` and `kazoo://`: tooz' locks on ZooKeeper (`tooz/drivers/zookeeper.py: KazooDriver`).
//!
//! A contender is an ephemeral sequential node `/<namespace>/locks/<name>/<id>__lock__<number>`, as kazoo makes it; the lowest has
//! the lock. Readers of ours are `<id>-r__lock__<number>`: for Python contenders like any other. Everything hangs on one session
//! of the process, whose end is told before the server can give its locks away. The fencing token is the transaction that made
//! the contender.

mod connection;
mod node;
mod parents;
mod settings;
mod store;
mod tls;

use std::sync::Arc;

use self::settings::Settings;
use self::store::ZooKeeperStore;
use super::queued::QueuedProvider;
use crate::heart::Heart;
use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

/// Opens it; the connection is made in the background.
pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let settings = Settings::read(url)?;
    let heart = Heart::start_on_async_io("zookeeper")?;
    let store = Arc::new(ZooKeeperStore::new(settings, options));
    heart.spawn("zookeeper-session", store.clone().keep_connected());
    heart.spawn("zookeeper-parents", store.clone().keep_tidy());
    Ok(Arc::new(QueuedProvider::new(store, heart)))
}
