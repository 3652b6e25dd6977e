//! Locks that are records with a time to live: redis, memcached, etcd as tooz uses it, a table of the database.

mod store;

pub(crate) use store::{Claim, LeaseStore, Take, Taken};
