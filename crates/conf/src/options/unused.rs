//! Options that belong to Scoria's work and still have no effect, and why: `config check` and the sample say so, so that nobody relies on
//! them. A test of the service compares the list with what it reads.

use super::spec::BACKEND_DEFAULTS;

const IMAGES: &str = "Scoria does nothing with images yet";
const TWO_CONNECTIONS: &str = "two connections to the broker carry everything";
const OTHER_DRIVERS: &str = "it is for drivers that Scoria does not have";
const MIGRATION: &str = "Scoria does not migrate volumes yet";
const LINES: &str =
    "the form of lines is fixed; log_date_format, use_json and log_config_append change what can be changed";
const ROTATION: &str = "Scoria does not rotate its log files: use logrotate, they are opened afresh without a signal";
const CIPHERS: &str = "what TLS 1.2 and 1.3 of rustls offer is offered";
const OWN_USER: &str = "Nova is always asked by the user that [nova] names, never by the user of a request";
const ONE_NOVA: &str = "Nova is the service of type compute, at the endpoint that interface and region_name choose";
const RATE: &str = "Scoria does not hold back log lines";

/// Group, option, reason.
const UNUSED: &[(&str, &str, &str)] = &[
    ("DEFAULT", "my_ip", "no other option of Scoria needs it, but other options may refer to it as $my_ip"),
    ("DEFAULT", "periodic_interval", "each periodic task has an interval of its own"),
    ("DEFAULT", "periodic_fuzzy_delay", "each periodic task has an interval of its own"),
    ("DEFAULT", "init_host_max_objects_retrieval", "the start reads what it needs in small portions"),
    ("DEFAULT", "volume_service_inithost_offload", "interrupted work always goes on in the background"),
    ("DEFAULT", "snapshot_name_template", OTHER_DRIVERS),
    ("DEFAULT", "migration_create_volume_timeout_secs", MIGRATION),
    ("DEFAULT", "cinder_internal_tenant_project_id", IMAGES),
    ("DEFAULT", "cinder_internal_tenant_user_id", IMAGES),
    ("DEFAULT", "volume_copy_bps_limit", "copies are not slowed down yet"),
    ("DEFAULT", "volume_clear", OTHER_DRIVERS),
    ("DEFAULT", "volume_clear_size", OTHER_DRIVERS),
    ("DEFAULT", "volume_clear_ionice", OTHER_DRIVERS),
    ("DEFAULT", "quota_groups", "Scoria has no groups yet"),
    ("DEFAULT", "reservation_expire", "what the front door reserves expires after a day"),
    ("DEFAULT", "until_refresh", "use is counted when a project's row is missing, and kept exact from then on"),
    ("DEFAULT", "max_age", "use is counted when a project's row is missing, and kept exact from then on"),
    ("DEFAULT", "glance_api_servers", IMAGES),
    ("DEFAULT", "glance_catalog_info", IMAGES),
    ("DEFAULT", "glance_num_retries", IMAGES),
    ("DEFAULT", "glance_request_timeout", IMAGES),
    ("DEFAULT", "glance_api_insecure", IMAGES),
    ("DEFAULT", "glance_ca_certificates_file", IMAGES),
    ("DEFAULT", "glance_core_properties", IMAGES),
    ("DEFAULT", "verify_glance_signatures", IMAGES),
    ("DEFAULT", "allowed_direct_url_schemes", IMAGES),
    ("DEFAULT", "image_conversion_dir", IMAGES),
    ("DEFAULT", "image_conversion_disable", IMAGES),
    ("DEFAULT", "image_compress_on_upload", IMAGES),
    ("DEFAULT", "allow_compression_on_image_upload", IMAGES),
    ("DEFAULT", "compression_format", IMAGES),
    ("DEFAULT", "image_conversion_cpu_limit", IMAGES),
    ("DEFAULT", "image_conversion_address_space_limit", IMAGES),
    ("DEFAULT", "image_introspection_cpu_limit", IMAGES),
    ("DEFAULT", "image_introspection_address_space_limit", IMAGES),
    ("DEFAULT", "vmdk_allowed_types", IMAGES),
    ("DEFAULT", "reserved_image_namespaces", IMAGES),
    ("DEFAULT", "log_color", LINES),
    ("DEFAULT", "logging_context_format_string", LINES),
    ("DEFAULT", "logging_default_format_string", LINES),
    ("DEFAULT", "logging_debug_format_suffix", LINES),
    ("DEFAULT", "logging_exception_prefix", LINES),
    ("DEFAULT", "logging_user_identity_format", LINES),
    ("DEFAULT", "log_rotation_type", ROTATION),
    ("DEFAULT", "log_rotate_interval", ROTATION),
    ("DEFAULT", "log_rotate_interval_type", ROTATION),
    ("DEFAULT", "max_logfile_count", ROTATION),
    ("DEFAULT", "max_logfile_size_mb", ROTATION),
    ("DEFAULT", "rate_limit_interval", RATE),
    ("DEFAULT", "rate_limit_burst", RATE),
    ("DEFAULT", "rate_limit_except_level", RATE),
    ("DEFAULT", "publish_errors", "errors are logged, not sent as notifications"),
    (BACKEND_DEFAULTS, "volume_copy_bps_limit", "copies are not slowed down yet"),
    (BACKEND_DEFAULTS, "volume_dd_blocksize", "volumes are not copied with dd"),
    (BACKEND_DEFAULTS, "backend_native_threads_pool_size", "each share has a pool of threads of a fixed size"),
    (BACKEND_DEFAULTS, "nas_volume_prov_type", "nfs_sparsed_volumes decides"),
    (BACKEND_DEFAULTS, "disk_geometry", "connections do not tell block sizes yet"),
    (BACKEND_DEFAULTS, "image_volume_cache_enabled", IMAGES),
    (BACKEND_DEFAULTS, "image_volume_cache_max_count", IMAGES),
    (BACKEND_DEFAULTS, "image_volume_cache_max_size_gb", IMAGES),
    (BACKEND_DEFAULTS, "image_upload_use_cinder_backend", IMAGES),
    (BACKEND_DEFAULTS, "image_upload_use_internal_tenant", IMAGES),
    ("database", "pool_timeout", "requests wait for a connection as long as they may take"),
    ("database", "db_inc_retry_interval", "waits between tries always grow"),
    ("database", "sqlite_synchronous", "SQLite always writes through"),
    ("database", "connection_debug", "statements are logged at level DEBUG of the logger sqlx"),
    ("nova", "auth_section", "the options of the user are read from [nova] only: write them there"),
    ("nova", "token", OWN_USER),
    ("nova", "token_auth_url", OWN_USER),
    ("nova", "trust_id", "trusts are not supported: give the user a role in a project"),
    ("nova", "service_name", ONE_NOVA),
    ("nova", "service_type", ONE_NOVA),
    ("nova", "valid_interfaces", ONE_NOVA),
    ("nova", "collect_timing", "nothing is measured of single requests"),
    ("nova", "split_loggers", "requests are logged by one logger"),
    ("nova", "tls_ciphers", CIPHERS),
    ("nova", "tls_min_version", CIPHERS),
    ("oslo_concurrency", "disable_process_locking", "locks are never left out"),
    ("oslo_messaging_rabbit", "rpc_conn_pool_size", TWO_CONNECTIONS),
    ("oslo_messaging_rabbit", "conn_pool_min_size", TWO_CONNECTIONS),
    ("oslo_messaging_rabbit", "conn_pool_ttl", TWO_CONNECTIONS),
    ("oslo_messaging_rabbit", "ssl_version", "the newest version that both sides know is used, TLS 1.2 or 1.3"),
    ("oslo_messaging_rabbit", "ssl_enforce_fips_mode", "there is no FIPS mode"),
    ("oslo_messaging_rabbit", "heartbeat_rate", "there are two heartbeats within heartbeat_timeout_threshold"),
    ("oslo_messaging_rabbit", "direct_mandatory_flag", "an answer that reaches nobody is always noticed"),
];

/// Why an option that is accepted has no effect; `None` for one that has.
#[must_use]
pub fn without_effect(group: &str, name: &str) -> Option<&'static str> {
    let found = UNUSED.iter().find(|(of, option, _)| (*of, *option) == (group, name));
    found.map(|(_, _, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{find, is_known};

    #[test]
    fn every_one_of_them_is_an_option_and_is_listed_once() {
        for (index, (group, name, reason)) in UNUSED.iter().enumerate() {
            assert!(find(group, name).is_some() || is_known(group, name), "[{group}] {name}");
            assert!(!UNUSED[..index].iter().any(|(of, other, _)| (of, other) == (group, name)), "[{group}] {name}");
            assert!(reason.len() > 10, "[{group}] {name}");
        }
    }
}
