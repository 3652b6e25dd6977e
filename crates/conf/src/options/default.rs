//! `[DEFAULT]`: the service itself.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use super::spec::{BOOL, HOST_ADDRESS, INT, LIST, STR, at_least, choice, int, options};

options! {
    /// `[DEFAULT]`: the service itself (`cinder/common/config.py`, `cinder/service.py`, `cinder/volume/manager.py`).
    pub struct DefaultOptions in "DEFAULT" => {
        /// The sections of the back ends to serve, separated by commas. At least one.
        enabled_backends: Vec<String> = LIST;
        /// The name of this node in the database and in the names of queues. It need not be resolvable. Changing it
        /// leaves the volumes of the old name without a service.
        host: String = STR.computed("host name", hostname);
        /// The cluster this node belongs to: all nodes of one cluster serve the same back ends together. Empty: none.
        cluster: Option<String> = STR;
        /// The directory for what the service keeps; most other paths are below it.
        state_path: PathBuf = STR.default("/var/lib/cinder");
        /// The address at which other nodes reach this one.
        my_ip: String = HOST_ADDRESS.computed("address of the default route", my_ip);
        /// The availability zone of the service, where a back end does not set its own.
        storage_availability_zone: String = STR.default("nova");
        /// Whether a new service or cluster is enabled when it first appears in the database.
        enable_new_services: bool = BOOL.default("true");
        /// Seconds between two signs of life in the database.
        report_interval: Duration = INT.default("10");
        /// Seconds without a sign of life after which a service counts as down. Should be more than `report_interval`.
        service_down_time: Duration = INT.default("60");
        /// Seconds between two runs of the periodic tasks; 0 switches them off.
        periodic_interval: Duration = INT.default("60");
        /// The periodic tasks begin after a random time of at most this many seconds, so that services started together do not
        /// work together.
        periodic_fuzzy_delay: Duration = INT.default("60");
        /// Seconds between two reports of a back end's capacity to the scheduler.
        backend_stats_polling_interval: Duration = at_least(3).default("60");
        /// How many more times a driver that cannot start is tried.
        reinit_driver_count: u32 = INT.default("3");
        /// How many volumes and snapshots are read at a time when the service starts; 0 reads all at once.
        init_host_max_objects_retrieval: u32 = INT.default("0");
        /// Whether the deletions that were interrupted by a stop go on in the background after the start.
        volume_service_inithost_offload: bool = BOOL.default("false");
        /// Seconds that running operations get to end when the service stops; 0 waits without end.
        graceful_shutdown_timeout: Duration = INT.default("60");
        /// The file name of a volume; `%s` stands for its id.
        volume_name_template: String = STR.default("volume-%s");
        /// The name of a snapshot in the back ends that name them; `%s` stands for its id.
        snapshot_name_template: String = STR.default("snapshot-%s");
        /// The volume type of requests that name none.
        default_volume_type: String = STR.default("__DEFAULT__");
        /// Seconds that a migration waits for its destination volume.
        migration_create_volume_timeout_secs: Duration = INT.default("300");
        /// Seconds that messages for users are kept.
        message_ttl: Duration = INT.default("2592000");
        /// The project that owns the volumes which the service keeps for itself. Needs the user as well.
        cinder_internal_tenant_project_id: Option<String> = STR;
        /// The user that owns the volumes which the service keeps for itself. Needs the project as well.
        cinder_internal_tenant_user_id: Option<String> = STR;
        /// An expression that tells the scheduler whether a back end takes a volume, for back ends without their own.
        filter_function: Option<String> = STR;
        /// An expression that tells the scheduler how well a back end suits, 0 to 100, for back ends without their own.
        goodness_function: Option<String> = STR;
        /// Bytes a second that copying data may use, for back ends without their own limit; 0 sets no limit.
        volume_copy_bps_limit: u64 = INT.default("0");
        /// How old volumes are overwritten where a driver does that, for back ends without their own setting.
        volume_clear: String = choice(&["none", "zero"]).default("zero");
        /// How many MiB of an old volume are overwritten; 0 means all.
        volume_clear_size: u32 = int(i64::MIN, 1024).default("0");
        /// The `ionice` arguments for overwriting, for example `-c3`.
        volume_clear_ionice: Option<String> = STR;
        /// The configuration of the root helper: commands that need root run as `sudo cinder-rootwrap FILE COMMAND`.
        rootwrap_config: PathBuf = STR.default("/etc/cinder/rootwrap.conf");
    }
}

/// The node's own name, as `socket.gethostname` gives it.
pub(super) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The address that a packet to the Internet would carry. Nothing is sent.
fn my_ip() -> String {
    let address = || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(("8.8.8.8", 80))?;
        socket.local_addr()
    };
    address().map_or_else(|_: std::io::Error| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}
