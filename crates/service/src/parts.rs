//! From options to parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use scoria_compute::{Auth, Compute, Credential, Domain, Interface, Nova, Scope as TokenScope, User};
use scoria_conf::options::NovaOptions;
use scoria_conf::{
    Backend, Config, Driver, OverSubscription, SecureMode, Transport as Scheme, TransportHost, TransportUrl,
};
use scoria_coordination::{Coordinator, Scope};
use scoria_db::{Database, DatabaseLocks, QuotaDefaults};
use scoria_drivers::{LocalDriver, LocalOptions, NfsDriver, NfsOptions, VolumeDriver};
use scoria_manager::Options as ManagerOptions;
use scoria_model::LockTable;
use scoria_rpc::Transport;
use scoria_rpc::providers::amqp::{AmqpOptions, AmqpTransport, BrokerHost, Compression, Failover, LoginMethod};
use scoria_rpc::providers::memory::MemoryBroker;
use scoria_runtime::Executor;
use secrecy::ExposeSecret;

/// Connects to the database, and checks that its tables are of a revision we know.
///
/// # Errors
/// When it cannot be reached within `[database] max_retries`, or is not ours to use.
pub async fn database(config: &Config) -> anyhow::Result<Database> {
    let database = connect(config).await?;
    database.check_schema().await?;
    Ok(database)
}

/// Connects to the database, whatever is in it.
///
/// # Errors
/// When it cannot be reached within `[database] max_retries`.
pub async fn connect(config: &Config) -> anyhow::Result<Database> {
    Ok(Database::connect(&database_options(config)).await?)
}

fn database_options(config: &Config) -> scoria_db::Options {
    let section = &config.database;
    let mut url = section.connection.expose_secret().to_owned();
    if !section.connection_parameters.is_empty() {
        let joint = if url.contains('?') { '&' } else { '?' };
        url = format!("{url}{joint}{}", section.connection_parameters);
    }
    let count = |number: i64| u32::try_from(number).ok();
    scoria_db::Options {
        max_pool_size: section.max_pool_size,
        max_overflow: section.max_overflow,
        connection_recycle_time: section.connection_recycle_time,
        max_retries: count(section.max_retries),
        retry_interval: section.retry_interval,
        db_max_retries: count(section.db_max_retries).unwrap_or(u32::MAX),
        db_retry_interval: section.db_retry_interval,
        db_max_retry_interval: section.db_max_retry_interval,
        mysql_sql_mode: section.mysql_sql_mode.clone(),
        mysql_wsrep_sync_wait: section.mysql_wsrep_sync_wait.and_then(count),
        ..scoria_db::Options::new(url)
    }
}

/// Opens the lock service. For `database://` it gets the table of locks of the configured database.
///
/// # Errors
/// For a URL that names none, for a database without that table, and for a cluster whose lock service protects one node only.
pub async fn coordinator(config: &Config) -> anyhow::Result<Coordinator> {
    let section = &config.coordination;
    let backend_url = section.backend_url.expose_secret();
    let in_database = backend_url.trim_start().to_ascii_lowercase().starts_with("database:");
    let lock_table = in_database.then(|| DatabaseLocks::new(&database_options(config))).transpose()?;
    let options = scoria_coordination::Options {
        lock_table: lock_table.map(|table| Arc::new(table) as Arc<dyn LockTable>),
        heartbeat: section.heartbeat,
        initial_reconnect_backoff: section.initial_reconnect_backoff,
        max_reconnect_backoff: section.max_reconnect_backoff,
        // In stand-alone mode no Python process takes locks in our directory.
        exclusive_directory: config.scoria.standalone,
        ..scoria_coordination::Options::default()
    };
    let coordinator = Coordinator::open(backend_url, &options).await?;
    if let (Some(cluster), Scope::Node) = (&config.default.cluster, coordinator.scope()) {
        let scheme = section.backend_url.expose_secret().split(':').next().unwrap_or_default();
        bail!(
            "[DEFAULT] cluster = {cluster}: the lock service of [coordination] backend_url ({scheme}://) protects this node \
             only, so two members of the cluster could work on one volume. Name a lock service that all members share, or a \
             file:// directory on a file system that all of them mount, or unset cluster"
        );
    }
    Ok(coordinator)
}

/// Which lock service protects what, as a line for the log.
#[must_use]
pub fn protection(config: &Config, locks: &Coordinator) -> String {
    let services: Vec<_> = config.backends.iter().map(|backend| format!("{}@{}", backend.host, backend.name)).collect();
    let services = services.join(", ");
    let protected = match (&config.default.cluster, locks.scope()) {
        (Some(cluster), _) => format!("it protects cluster {cluster}, of which {services} is a member"),
        (None, Scope::Cluster) => format!("it protects {services}"),
        (None, Scope::Node) => {
            format!("it protects {services}, as long as no service on another machine serves the same back end")
        }
    };
    format!("{}; {protected}", locks.describe())
}

/// Opens the message transport. It connects in the background.
///
/// # Errors
/// For options that contradict each other.
pub fn transport(config: &Config) -> anyhow::Result<Arc<dyn Transport>> {
    let messaging = &config.messaging;
    if messaging.transport_url.transport == Scheme::Memory {
        return Ok(MemoryBroker::new().transport());
    }
    let rabbit = &messaging.rabbit;
    let compression = rabbit.kombu_compression.as_deref().filter(|method| !method.is_empty());
    let file = |path: &str| Some(PathBuf::from(path)).filter(|_| !path.is_empty());
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let options = AmqpOptions {
        hosts: brokers(&messaging.transport_url),
        virtual_host: messaging.transport_url.virtual_host.clone(),
        control_exchange: messaging.control_exchange.clone(),
        publish_timeout: messaging.rpc_response_timeout,
        process_name: "scoria-volume".to_owned(),
        rabbit: scoria_rpc::providers::amqp::RabbitOptions {
            amqp_durable_queues: rabbit.amqp_durable_queues,
            amqp_auto_delete: rabbit.amqp_auto_delete,
            ssl: rabbit.ssl,
            ssl_ca_file: file(&rabbit.ssl_ca_file),
            ssl_cert_file: file(&rabbit.ssl_cert_file),
            ssl_key_file: file(&rabbit.ssl_key_file),
            ssl_enforce_hostname_verification: rabbit.ssl_enforce_hostname_verification,
            kombu_reconnect_delay: rabbit.kombu_reconnect_delay,
            kombu_reconnect_splay: rabbit.kombu_reconnect_splay,
            kombu_missing_consumer_retry_timeout: rabbit.kombu_missing_consumer_retry_timeout,
            kombu_compression: compression.map(str::parse::<Compression>).transpose()?,
            kombu_failover_strategy: match rabbit.kombu_failover_strategy.as_str() {
                "shuffle" => Failover::Shuffle,
                _ => Failover::RoundRobin,
            },
            rabbit_login_method: rabbit.rabbit_login_method.parse::<LoginMethod>()?,
            rabbit_retry_interval: rabbit.rabbit_retry_interval,
            rabbit_retry_backoff: rabbit.rabbit_retry_backoff,
            rabbit_interval_max: rabbit.rabbit_interval_max,
            rabbit_ha_queues: rabbit.rabbit_ha_queues,
            rabbit_quorum_queue: rabbit.rabbit_quorum_queue,
            rabbit_transient_quorum_queue: rabbit.rabbit_transient_quorum_queue,
            rabbit_quorum_delivery_limit: rabbit.rabbit_quorum_delivery_limit,
            rabbit_quorum_max_memory_length: number(rabbit.rabbit_quorum_max_memory_length),
            rabbit_quorum_max_memory_bytes: number(rabbit.rabbit_quorum_max_memory_bytes),
            rabbit_transient_queues_ttl: rabbit.rabbit_transient_queues_ttl,
            rabbit_qos_prefetch_count: rabbit.rabbit_qos_prefetch_count,
            heartbeat_timeout_threshold: rabbit.heartbeat_timeout_threshold,
            enable_cancel_on_failover: rabbit.enable_cancel_on_failover,
            use_queue_manager: rabbit.use_queue_manager,
            hostname: rabbit.hostname.clone(),
            processname: rabbit.processname.clone(),
            rabbit_stream_fanout: rabbit.rabbit_stream_fanout,
        },
        notifications: scoria_rpc::providers::amqp::NotificationOptions {
            drivers: config.notifications.drivers.clone(),
            topics: config.notifications.topics.clone(),
            brokers: config.notifications.transport_url.as_ref().map(|url| (brokers(url), url.virtual_host.clone())),
        },
    };
    Ok(AmqpTransport::connect(options)?)
}

fn brokers(url: &TransportUrl) -> Vec<BrokerHost> {
    let broker =
        |host: &TransportHost| BrokerHost::new(&host.host, host.port, &host.username, host.password.expose_secret());
    url.hosts.iter().map(broker).collect()
}

/// Longest run of one external command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);

/// Makes the driver of a back end; nothing is touched before its set-up.
///
/// # Errors
/// For an option with a value it cannot have.
pub fn driver(config: &Config, backend: &Backend) -> anyhow::Result<Arc<dyn VolumeDriver>> {
    let options = &backend.options;
    let root_helper = ["sudo", "cinder-rootwrap"].into_iter().map(str::to_owned);
    let root_helper = root_helper.chain([config.default.rootwrap_config.to_string_lossy().into_owned()]).collect();
    let executor = Executor::new(Some(root_helper), COMMAND_TIMEOUT);
    let ratio = match options.max_over_subscription_ratio {
        OverSubscription::Ratio(ratio) => ratio.to_string(),
        OverSubscription::Auto => "auto".to_owned(),
    };
    let reserved_percentage = u8::try_from(options.reserved_percentage).unwrap_or(100);
    let volume_name_template = config.default.volume_name_template.clone();
    Ok(match options.volume_driver {
        Driver::Local => {
            let directory = std::path::absolute(&options.local_path)?;
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("[{}] local_path = {}", backend.name, directory.display()))?;
            let options = LocalOptions {
                backend_name: backend_name(backend),
                sparsed_volumes: options.nfs_sparsed_volumes,
                qcow2_volumes: options.nfs_qcow2_volumes,
                snapshots: options.nfs_snapshot_support,
                reserved_percentage,
                max_over_subscription_ratio: ratio.parse().unwrap_or(20.0),
                volume_name_template,
                ..LocalOptions::new(directory)
            };
            Arc::new(LocalDriver::new(options, executor)?)
        }
        Driver::Nfs => {
            let secure = |mode: SecureMode| match mode {
                SecureMode::Auto => "auto".to_owned(),
                SecureMode::True => "true".to_owned(),
                SecureMode::False => "false".to_owned(),
            };
            let options = NfsOptions {
                volume_backend_name: options.volume_backend_name.clone(),
                nfs_shares_config: Some(options.nfs_shares_config.clone()),
                nfs_sparsed_volumes: options.nfs_sparsed_volumes,
                nfs_qcow2_volumes: options.nfs_qcow2_volumes,
                nfs_mount_point_base: options.nfs_mount_point_base.clone(),
                nfs_mount_options: options.nfs_mount_options.clone(),
                nfs_mount_attempts: options.nfs_mount_attempts,
                nfs_snapshot_support: options.nfs_snapshot_support,
                nas_host: options.nas_host.clone(),
                nas_share_path: options.nas_share_path.clone(),
                nas_mount_options: options.nas_mount_options.clone(),
                nas_secure_file_operations: secure(options.nas_secure_file_operations),
                nas_secure_file_permissions: secure(options.nas_secure_file_permissions),
                reserved_percentage,
                max_over_subscription_ratio: ratio,
                volume_name_template,
            };
            Arc::new(NfsDriver::new(options, executor)?)
        }
    })
}

/// Makes the client of Nova; nothing is sent yet. `None` when `[nova] auth_type` is not set.
///
/// # Errors
/// For options that contradict each other, and for certificates that cannot be read.
pub fn compute(config: &Config) -> anyhow::Result<Option<Arc<dyn Compute>>> {
    let nova = &config.nova;
    let Some(auth_type) = given(&nova.auth_type) else {
        return Ok(None);
    };
    let file = |option: &Option<String>| given(option).map(PathBuf::from);
    let options = scoria_compute::Options {
        auth: nova_auth(nova, &auth_type)?,
        region_name: given(&nova.region_name),
        interface: match nova.interface.as_str() {
            "internal" => Interface::Internal,
            "admin" => Interface::Admin,
            _ => Interface::Public,
        },
        cafile: file(&nova.cafile),
        certfile: file(&nova.certfile),
        keyfile: file(&nova.keyfile),
        insecure: nova.insecure,
        timeout: nova.timeout,
    };
    Ok(Some(Arc::new(Nova::new(options)?)))
}

/// An empty text is none to keystoneauth.
fn given(option: &Option<String>) -> Option<String> {
    option.clone().filter(|text| !text.is_empty())
}

/// Which of the options are there has been checked when they were read.
fn nova_auth(nova: &NovaOptions, auth_type: &str) -> anyhow::Result<Auth> {
    let missing = |name: &str| format!("[nova] auth_type = {auth_type}: needs {name}");
    if auth_type == "none" {
        let endpoint = given(&nova.endpoint).or_else(|| given(&nova.endpoint_override));
        return Ok(Auth::None { endpoint: endpoint.with_context(|| missing("endpoint"))? });
    }
    // Ids go before names, also the default's; only this plug-in knows defaults (keystoneauth1/identity/generic).
    let default = |option: &Option<String>| given(option).filter(|_| auth_type == "password");
    let domain = |id: &Option<String>, name: &Option<String>| {
        let id = given(id).or_else(|| default(&nova.default_domain_id));
        let name = given(name).or_else(|| default(&nova.default_domain_name));
        id.map(Domain::Id).or_else(|| name.map(Domain::Name))
    };
    let user = || -> anyhow::Result<User> {
        if let Some(id) = given(&nova.user_id) {
            return Ok(User::Id(id));
        }
        let name = given(&nova.username).with_context(|| missing("username"))?;
        let domain = domain(&nova.user_domain_id, &nova.user_domain_name);
        Ok(User::Named { name, domain: domain.with_context(|| missing("user_domain_name"))? })
    };
    let auth_url = given(&nova.auth_url).with_context(|| missing("auth_url"))?;
    if auth_type == "v3applicationcredential" {
        let credential = match (given(&nova.application_credential_id), given(&nova.application_credential_name)) {
            (Some(id), _) => Credential::Id(id),
            (None, name) => {
                let name = name.with_context(|| missing("application_credential_id"))?;
                Credential::Named { name, user: user()? }
            }
        };
        let secret = nova.application_credential_secret.clone();
        let secret = secret.with_context(|| missing("application_credential_secret"))?;
        return Ok(Auth::ApplicationCredential { auth_url, credential, secret });
    }
    let scope = if let Some(id) = given(&nova.domain_id) {
        Some(TokenScope::Domain(Domain::Id(id)))
    } else if let Some(name) = given(&nova.domain_name) {
        Some(TokenScope::Domain(Domain::Name(name)))
    } else if let Some(id) = given(&nova.project_id) {
        Some(TokenScope::ProjectId(id))
    } else if let Some(name) = given(&nova.project_name) {
        let domain = domain(&nova.project_domain_id, &nova.project_domain_name);
        Some(TokenScope::Project { name, domain: domain.with_context(|| missing("project_domain_name"))? })
    } else {
        given(&nova.system_scope).map(|_| TokenScope::System)
    };
    let password = nova.password.clone().with_context(|| missing("password"))?;
    Ok(Auth::Password { auth_url, user: user()?, password, scope })
}

/// Name of the back end, as volume types ask for it; also its one pool's.
#[must_use]
pub fn backend_name(backend: &Backend) -> String {
    backend.options.volume_backend_name.clone().unwrap_or_else(|| backend.name.clone())
}

/// What the manager of a back end has to know.
///
/// # Errors
/// For `extra_capabilities` that are no JSON object.
pub fn manager_options(config: &Config, backend: &Backend) -> anyhow::Result<ManagerOptions> {
    let (default, options) = (&config.default, &backend.options);
    let host = options.backend_host.as_deref().unwrap_or(&default.host);
    let slots = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let messaging = &config.messaging;
    let or_global = |own: &Option<String>, global: &Option<String>| own.clone().or_else(|| global.clone());
    Ok(ManagerOptions {
        cluster: default.cluster.clone(),
        availability_zone: options
            .backend_availability_zone
            .clone()
            .unwrap_or_else(|| default.storage_availability_zone.clone()),
        enable_new_services: default.enable_new_services,
        report_interval: default.report_interval,
        service_down_time: default.service_down_time,
        stats_interval: default.backend_stats_polling_interval,
        reinit_driver_count: default.reinit_driver_count,
        response_timeout: config.messaging.rpc_response_timeout,
        lock_wait_timeout: Some(config.scoria.lock_wait_timeout).filter(|limit| !limit.is_zero()),
        operation_timeout: Some(config.scoria.operation_timeout).filter(|limit| !limit.is_zero()),
        late_ack_ceiling: config.scoria.late_ack_ceiling,
        graceful_shutdown_timeout: default.graceful_shutdown_timeout,
        // Messages that stay in the process do not come back by themselves.
        recovery_grace: match config.messaging.transport_url.transport {
            Scheme::Memory => Duration::ZERO,
            Scheme::Rabbit => Duration::from_secs(30),
        },
        messages_die_with_us: messaging.transport_url.transport == Scheme::Memory,
        quick_slots: slots(config.scoria.quick_lane_slots),
        heavy_slots: slots(config.scoria.heavy_lane_slots),
        no_snapshot_gb_quota: config.quota.no_snapshot_gb_quota,
        message_ttl: i64::try_from(default.message_ttl.as_secs()).unwrap_or(i64::MAX),
        extra_capabilities: serde_json::from_str(&options.extra_capabilities)
            .with_context(|| format!("[{}] extra_capabilities is not a JSON object", backend.name))?,
        filter_function: or_global(&options.filter_function, &default.filter_function),
        goodness_function: or_global(&options.goodness_function, &default.goodness_function),
        report_discard_supported: options.report_discard_supported,
        ..ManagerOptions::new(host, &backend.name)
    })
}

/// Limits of a project that has none of its own.
#[must_use]
pub fn quota_defaults(config: &Config) -> QuotaDefaults {
    let quota = &config.quota;
    let limits = [
        ("volumes", quota.quota_volumes),
        ("snapshots", quota.quota_snapshots),
        ("gigabytes", quota.quota_gigabytes),
        ("per_volume_gigabytes", quota.per_volume_size_limit),
    ];
    QuotaDefaults {
        limits: limits.map(|(name, limit)| (name.to_owned(), limit)).into(),
        use_default_class: quota.use_default_quota_class,
    }
}
