//! Real servers, Python peers and faults for tests: a development dependency, never part of what is shipped.
//!
//! Every server runs as a child of the test on free loopback ports with its data in a temporary directory. It is stopped
//! when its handle is dropped, and also when the test process is killed (see [`Process`]). A server program that is not
//! installed is an error that names the Debian package: nothing is skipped in silence.
//!
//! `start()` gives a server of the test's own, which it may stop, kill and cut off. `shared()` gives a fresh database or
//! virtual host on the server that `scoria-testkit run -- COMMAND` started for a whole test run, or a server of the test's own
//! when there is none; leave a shared server up.
//!
//! It is not a mock library: what cannot be had for real is not here.

mod cinder;
mod daemon;
mod etcd;
pub mod faults;
mod mariadb;
mod memcached;
mod ports;
mod postgres;
mod process;
mod programs;
mod python;
mod rabbitmq;
mod redis;
mod shared;
mod site;
mod zookeeper;

pub use cinder::{CinderPeer, PROJECT, PythonVolume};
pub use daemon::{Daemon, scoria_volume};
pub use etcd::Etcd;
pub use mariadb::MariaDb;
pub use memcached::Memcached;
pub use ports::free_port;
pub use postgres::Postgres;
pub use process::{Process, wait_until};
pub use programs::program;
pub use python::{PythonChild, PythonPeer, repository};
pub use rabbitmq::RabbitMq;
pub use redis::{Redis, RedisSentinels};
pub use shared::SharedServers;
pub use site::{BACKEND, Setting, Site, mount_point};
pub use zookeeper::{ZooKeeper, ZooKeeperEnsemble};
