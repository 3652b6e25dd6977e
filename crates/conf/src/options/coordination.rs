//! `[coordination]`.

use std::time::Duration;

use secrecy::SecretString;

use super::spec::{STR, float, options};

options! {
    /// `[coordination]`: the lock service (`cinder/coordination.py`). The three intervals were options of the first release that
    /// had this group; Cinder has dropped them since, Scoria honours them.
    pub struct CoordinationOptions in "coordination" => {
        /// The lock service, as Tooz writes it: `file://DIR`, `zookeeper://HOST:PORT` (or `kazoo://…`), `redis://…`,
        /// `etcd3+http://…`, `etcd3+https://…`, `memcached://…`, `mysql://…`, `postgresql://…`; without Python services beside it also
        /// `etcd://…`, or `database://` for a table in the database of the service itself.
        /// Services on several nodes of one cluster need one that they share.
        backend_url: SecretString = STR.default("file://$state_path").secret();
        /// Seconds between two heartbeats, where the lock service needs them.
        heartbeat: Duration = float(0.001, f64::INFINITY).default("1.0");
        /// Seconds before the first new try after the lock service was lost.
        initial_reconnect_backoff: Duration = float(0.0, f64::INFINITY).default("0.1");
        /// The most seconds between two tries.
        max_reconnect_backoff: Duration = float(0.0, f64::INFINITY).default("60.0");
    }
}
