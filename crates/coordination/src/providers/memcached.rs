//! `memcached://`: locks as tooz keeps them in memcached (`tooz/drivers/memcached.py`).
//!
//! For clusters that have it already. Memcached is a cache: it forgets locks when it is started again or runs out of memory, and
//! can tell nobody about either. See [`store`] for what is done about that.

mod client;
mod options;
mod store;
mod tls;
mod wire;

use std::sync::Arc;

use self::options::Settings;
use self::store::{KIND, Store};
use super::leased::LeasedProvider;
use crate::heart::Heart;
use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let settings = Settings::read(url, options)?;
    tracing::warn!(
        "memcached:// forgets locks when memcached is started again or its memory is full, and two services may then work on \
         one volume; use zookeeper://, etcd3+http:// or database:// instead, and memcached:// only beside services that have \
         nothing else"
    );
    let heart = Heart::start(KIND)?;
    let store = Store::open(settings, options, heart.clone());
    Ok(Arc::new(LeasedProvider::new(Arc::new(store), &heart, options)))
}
