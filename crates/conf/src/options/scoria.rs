//! `[scoria]`: what Cinder has no option for.

use std::time::Duration;

use secrecy::SecretString;

use super::spec::{BOOL, HOST_ADDRESS, OptionSpec, PORT, STR, at_least, choice, options};

const SINCE: &str = "Scoria 0.1.0";
const fn own(spec: OptionSpec) -> OptionSpec {
    spec.since(SINCE)
}

options! {
    /// `[scoria]`: Scoria's own options.
    pub struct ScoriaOptions in "scoria" => {
        /// Whether Scoria runs without OpenStack, with its own front door.
        standalone: bool = own(BOOL).default("false");
        /// The address of the front door.
        api_listen: String = own(HOST_ADDRESS).default("127.0.0.1");
        /// The port of the front door.
        api_listen_port: u16 = own(PORT).default("8776");
        /// The address for health and metrics.
        admin_listen: String = own(HOST_ADDRESS).default("127.0.0.1");
        /// The port for health and metrics.
        admin_listen_port: u16 = own(PORT).default("8780");
        /// The token that the front door wants in `X-Auth-Token`. Unset: everybody is let in.
        auth_token: Option<SecretString> = own(STR).secret();
        /// How many short operations (delete, extend, snapshot) run at a time.
        quick_lane_slots: usize = own(at_least(1)).default("64");
        /// How many operations that copy data run at a time.
        heavy_lane_slots: usize = own(at_least(1)).default("16");
        /// Seconds that an operation may take; 0: no limit.
        operation_timeout: Duration = own(at_least(0)).default("0");
        /// Seconds that an operation waits for its locks; 0: no limit.
        lock_wait_timeout: Duration = own(at_least(0)).default("3600");
        /// Seconds after which the message of an operation that still runs is acknowledged. Must be less than the broker's
        /// consumer time-out (RabbitMQ: 30 minutes).
        late_ack_ceiling: Duration = own(at_least(1)).default("600");
        /// How a log line looks: as Python services write it, or as a JSON object.
        log_format: String = own(choice(&["oslo", "json"])).default("oslo");
    }
}
