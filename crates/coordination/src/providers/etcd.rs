//! etcd, by gRPC: `etcd3+http://` and `etcd3+https://` in tooz' format, and `etcd://`, which is ours.
//!
//! One session per process ([`session`]): a lease that is kept alive, on which every key of ours hangs. It is granted at
//! connect and revoked at close, never per lock, so nothing is left at etcd that does not go with a live process or its time to
//! live.

mod details;
mod endpoints;
mod guard;
mod queue;
mod removals;
mod session;
mod settings;
mod tooz;
mod wire;

use std::sync::Arc;

use super::leased::LeasedProvider;
use super::queued::QueuedProvider;
use crate::heart::Heart;
use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

/// `etcd://[user:password@]host[:port][,host…]`: contenders in order, shared mode, fencing tokens. Python services do not know
/// it.
pub(super) fn open(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let settings = settings::Settings::as_own(url)?;
    let heart = Heart::start("etcd")?;
    let store = queue::EtcdQueue::start(settings, options, &heart)?;
    Ok(Arc::new(QueuedProvider::new(Arc::new(store), heart)))
}

/// `etcd3+http://host[:port]` and `etcd3+https://host[:port]`: for clusters with Python services.
pub(super) fn open_as_tooz(url: &BackendUrl<'_>, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let settings = settings::Settings::as_tooz(url)?;
    let kind = if url.scheme.ends_with("https") { "etcd3+https" } else { "etcd3+http" };
    let heart = Heart::start(kind)?;
    let store = tooz::ToozLocks::start(kind, settings, options, &heart)?;
    Ok(Arc::new(LeasedProvider::new(Arc::new(store), &heart, options)))
}
