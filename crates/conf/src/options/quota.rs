//! `[DEFAULT]`: quota.

use std::time::Duration;

use super::spec::{BOOL, INT, options};

options! {
    /// `[DEFAULT]`: quota (`cinder/quota.py`). A limit of -1 is none.
    pub struct QuotaOptions in "DEFAULT" => {
        /// How many volumes a project may have.
        quota_volumes: i64 = INT.default("10");
        /// How many snapshots a project may have.
        quota_snapshots: i64 = INT.default("10");
        /// How many groups a project may have.
        quota_groups: i64 = INT.default("10");
        /// How many GiB of volumes and snapshots a project may have.
        quota_gigabytes: i64 = INT.default("1000");
        /// How many GiB one volume may have.
        per_volume_size_limit: i64 = INT.default("-1");
        /// Seconds after which a reservation that nobody committed expires.
        reservation_expire: Duration = INT.default("86400");
        /// After how many reservations a project's use is counted afresh; 0: never.
        until_refresh: u32 = INT.default("0");
        /// Seconds after which a project's use is counted afresh; 0: never.
        max_age: Duration = INT.default("0");
        /// Whether the limits of the quota class `default` stand before the options above.
        use_default_quota_class: bool = BOOL.default("true");
        /// Whether snapshots are left out of the GiB.
        no_snapshot_gb_quota: bool = BOOL.default("false");
    }
}
