//! Locks for which contenders queue up under a session: ZooKeeper, etcd.

mod store;

pub(crate) use store::{Contender, Entered, QueueStore, Session, Ticket};
