//! The whole configuration from files: what comes out, and what is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use scoria_conf::{Config, Driver, Error, LoadArgs, Origin, OverSubscription, SecureMode, Source, Transport};
use secrecy::ExposeSecret;

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("cinder.conf");
    std::fs::write(&path, text).unwrap();
    path
}

fn load(text: &str) -> Result<Config, Error> {
    let dir = tempfile::tempdir().unwrap();
    let sources = vec![Source::File(file(dir.path(), text))];
    Config::load(&LoadArgs { sources, ..LoadArgs::default() })
}

const NFS: &str = "[DEFAULT]\nenabled_backends = nfs1\n[nfs1]\nvolume_driver = cinder.volume.drivers.nfs.NfsDriver\n";

#[test]
fn a_cinder_file_becomes_typed_options() {
    let config = load(
        "[DEFAULT]\nenabled_backends = nfs1, here,\ncluster =  blue \nhost = node1\nreport_interval = 7\n\
         transport_url = rabbit://u:pw@h1:1,u:pw@[::1]:2/v?rabbit_quorum_queue=true&heartbeat_timeout_threshold=30\n\
         filter_function = f\nvolume_copy_bps_limit = 9\n\
         [nfs1]\nvolume_driver = cinder.volume.drivers.nfs.NfsDriver\nbackend_host = shared\nnas_secure_file_operations = False\n\
         max_over_subscription_ratio = auto\ngoodness_function = 50\n\
         [here]\nvolume_driver = scoria.local\n\
         [backend_defaults]\nnfs_mount_options = vers=4.2\n\
         [oslo_messaging_rabbit]\nheartbeat_timeout_threshold = 90\nheartbeat_rate = 4\n\
         [coordination]\nbackend_url = redis://h\nheartbeat = 0.5\nmax_reconnect_backoff = 5\n\
         [oslo_messaging_notifications]\ndriver = messagingv2\ntransport_url = rabbit://other\n\
         [scoria]\nauth_token = t0ken\n[vendor]\nanything = goes\n",
    )
    .unwrap();

    assert_eq!(config.default.enabled_backends, ["nfs1", "here"]);
    assert_eq!(config.default.cluster.as_deref(), Some("blue"));
    assert_eq!(config.default.report_interval, Duration::from_secs(7));
    assert_eq!(config.default.service_down_time, Duration::from_secs(60));

    let [nfs, here] = &config.backends[..] else { panic!("two back ends") };
    assert_eq!((nfs.name.as_str(), nfs.host.as_str(), nfs.driver), ("nfs1", "shared", Driver::Nfs));
    assert_eq!((here.name.as_str(), here.host.as_str(), here.driver), ("here", "node1", Driver::Local));
    assert_eq!(nfs.options.nfs_mount_options.as_deref(), Some("vers=4.2"));
    assert_eq!(nfs.options.nfs_mount_point_base, Path::new("/var/lib/cinder/mnt"));
    assert_eq!(nfs.options.nas_secure_file_operations, SecureMode::False);
    assert_eq!(nfs.options.max_over_subscription_ratio, OverSubscription::Auto);
    assert_eq!(here.options.max_over_subscription_ratio, OverSubscription::Ratio(20.0));
    let functions = (nfs.options.filter_function.as_deref(), nfs.options.goodness_function.as_deref());
    assert_eq!(functions, (Some("f"), Some("50")), "the first falls back to [DEFAULT]");
    assert_eq!(nfs.options.volume_copy_bps_limit, 9);

    let messaging = &config.messaging;
    assert_eq!(messaging.transport_url.hosts.len(), 2);
    assert_eq!(messaging.transport_url.virtual_host, "v");
    assert!(messaging.rabbit.rabbit_quorum_queue, "the query wins over the default");
    assert_eq!(messaging.rabbit.heartbeat_timeout_threshold, Duration::from_secs(30), "and over the group");
    assert_eq!(messaging.rabbit.heartbeat_rate, 4);
    assert_eq!(config.notifications.transport_url.as_ref().unwrap().hosts[0].host, "other");
    assert_eq!(config.notifications.drivers, ["messagingv2"]);

    assert_eq!(config.coordination.backend_url.expose_secret(), "redis://h");
    assert_eq!(config.coordination.heartbeat, Duration::from_millis(500));
    assert_eq!(config.coordination.initial_reconnect_backoff, Duration::from_millis(100));
    assert_eq!(config.coordination.max_reconnect_backoff, Duration::from_secs(5));
    assert_eq!(config.database.connection.expose_secret(), "sqlite:////var/lib/cinder/cinder.sqlite");
    assert_eq!(config.scoria.lock_wait_timeout, Duration::from_secs(3600));
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = "[DEFAULT]\ntransport_url = rabbit://u:s3cret@h\n[database]\nconnection = mysql://u:s3cret@h/c\n\
                   [coordination]\nbackend_url = redis://:s3cret@h\n[scoria]\nauth_token = s3cret\n[nova]\npassword = s3cret\n";
    let config = load(&format!("{NFS}{secrets}")).unwrap();
    let mut seen = format!("{config:?}");
    for shown in config.show().unwrap() {
        seen.push_str(&shown.to_string());
    }
    assert!(!seen.contains("s3cret"), "{seen}");
    assert!(seen.contains("connection = ***"));
    for wrong in [
        "transport_url = rabbit://u:s3cret@h:port",
        "transport_url = kafka://u:s3cret@h",
        "transport_url = rabbit://u:s3cret@h/?x=1",
        "transport_url = $s3cret",
    ] {
        let error = load(&format!("{NFS}[DEFAULT]\n{wrong}\n")).unwrap_err().to_string();
        assert!(error.contains("cinder.conf:6: [DEFAULT] transport_url = ***: "), "{error}");
        assert!(!error.contains(":s3cret"), "{error}");
    }
}

#[test]
fn every_wrong_value_is_refused_with_its_place_and_the_remedy() {
    let cases = [
        ("[DEFAULT]\nreport_interval = soon", ":6: [DEFAULT] report_interval = soon: must be a whole number"),
        ("[DEFAULT]\nreport_interval =", ":6: [DEFAULT] report_interval = : must not be empty"),
        (
            "[DEFAULT]\nreport_interval = -1",
            ":6: [DEFAULT] report_interval = -1: must be a number of seconds from 0 on",
        ),
        ("[DEFAULT]\nbackend_stats_polling_interval = 2", "= 2: must be a whole number, at least 3"),
        ("[DEFAULT]\nmy_ip = 10.0.0.300", "must be an IPv4 address, an IPv6 address or a host name"),
        ("[DEFAULT]\nhost = $nothing", "'$nothing' names no option; a plain dollar sign is written '$$'"),
        ("[DEFAULT]\nhost = $cluster\ncluster = $host", "leads back to this option"),
        ("[DEFAULT]\nhost = $enabled_backends", "is a list"),
        ("[DEFAULT]\nhost =", "[DEFAULT] host = : must be a name without '#'"),
        ("[DEFAULT]\nenabled_backends = a@b", "'a@b' must not contain"),
        ("[DEFAULT]\nhost = $osapi_volume_listen", "write the value out"),
        ("[DEFAULT]\ndebug =", "[DEFAULT] debug = : must be true or false"),
        ("[DEFAULT]\nenabled_backends =", "names no back end; set enabled_backends = NAME"),
        ("[DEFAULT]\nenabled_backends = nfs1,nfs1", "names 'nfs1' twice"),
        ("[DEFAULT]\nenabled_backends = database", "'database' is the name of a group of options"),
        ("[nfs1]\nvolume_driver = a.b.CephDriver", "'cinder.volume.drivers.nfs.NfsDriver' (or 'nfs') and 'local'"),
        ("[nfs1]\nnas_secure_file_permissions = maybe", "must be 'auto', 'true' or 'false'"),
        ("[nfs1]\nmax_over_subscription_ratio = 0.5", "must be 'auto' or a number from 1 on"),
        ("[nfs1]\nreserved_percentage = 101", ":6: [nfs1] reserved_percentage = 101: must be a whole number, 0 to 100"),
        (
            "[backend_defaults]\nnfs_mount_attempts = x",
            ":6: [backend_defaults] nfs_mount_attempts = x: must be a whole number",
        ),
        ("[DEFAULT]\ntransport_url = rabbit://h/?nothing=1", "its query sets 'nothing', which is no option"),
        (
            "[DEFAULT]\ntransport_url = rabbit://h/?ssl=maybe",
            "[oslo_messaging_rabbit] ssl = maybe: must be true or false",
        ),
        ("[scoria]\nlog_format = xml", "must be one of 'oslo', 'json'"),
    ];
    for (text, expected) in cases {
        let error = load(&format!("{NFS}{text}\n")).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = load("[DEFAULT]\nenabled_backends = a\n").unwrap_err().to_string();
    assert!(error.contains("default: [a] volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver"), "{error}");
}

#[test]
fn the_environment_and_the_command_line_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = LoadArgs {
        sources: vec![Source::File(file(dir.path(), NFS))],
        overrides: vec![("DEFAULT".to_owned(), "state_path".to_owned(), "/srv".to_owned())],
        ..LoadArgs::default()
    };
    for (name, value) in [
        ("OS_NFS1__NFS_QCOW2_VOLUMES", "true"),
        ("OSLO_LOCK_PATH", "/run/lock/cinder"),
        ("OS_DEFAULT__STATE_PATH", "/env"),
    ] {
        args.environment.insert(name.to_owned(), value.to_owned());
    }
    let config = Config::load(&args).unwrap();
    assert!(config.backends[0].options.nfs_qcow2_volumes);
    assert_eq!(config.concurrency.lock_path.as_deref(), Some(Path::new("/run/lock/cinder")));
    assert_eq!(config.coordination.backend_url.expose_secret(), "file:///srv");
}

#[test]
fn every_effective_value_names_its_origin() {
    let config = load(&format!("{NFS}[backend_defaults]\nnfs_mount_options = vers=3\n")).unwrap();
    let shown = config.show().unwrap();
    let origin = |option: &str| shown.iter().find(|shown| shown.option == option).map(|shown| shown.origin.clone());
    assert!(matches!(origin("nfs_mount_options"), Some(Origin::File(_, 6))));
    assert!(matches!(origin("volume_driver"), Some(Origin::File(_, 4))));
    assert_eq!(origin("nfs_mount_attempts"), Some(Origin::Default));
    let line = shown.iter().find(|shown| shown.option == "nfs_mount_options").unwrap().to_string();
    assert!(line.starts_with("[nfs1] nfs_mount_options = vers=3    (") && line.ends_with("cinder.conf:6)"), "{line}");
}

#[test]
fn earlier_names_work_and_are_told() {
    let config = load(&format!("{NFS}[DEFAULT]\nrpc_thread_pool_size = 8\nlogdir = /var/log/cinder\n")).unwrap();
    assert_eq!(config.messaging.executor_thread_pool_size, 8);
    assert_eq!(config.log.path().unwrap(), Path::new("/var/log/cinder/cinder-volume.log"));
    assert_eq!(config.warnings.len(), 2);
    assert!(config.warnings[1].ends_with(
        "cinder.conf:6: [DEFAULT] rpc_thread_pool_size is deprecated: use [DEFAULT] executor_thread_pool_size"
    ));
}

#[test]
fn stand_alone_mode_needs_no_file() {
    let config = Config::standalone(Path::new("/srv/sco$ria"));
    assert!(config.scoria.standalone);
    assert_eq!(config.default.state_path, Path::new("/srv/sco$ria"));
    assert_eq!(config.database.connection.expose_secret(), "sqlite:////srv/sco$ria/cinder.sqlite");
    assert_eq!(config.coordination.backend_url.expose_secret(), "file:///srv/sco$ria");
    assert_eq!(config.messaging.transport_url.transport, Transport::Memory);
    let [backend] = &config.backends[..] else { panic!("one back end") };
    assert_eq!((backend.name.as_str(), backend.driver), ("local", Driver::Local));
    assert_eq!(backend.options.local_path, Path::new("/srv/sco$ria/volumes-local"));
    assert!(backend.options.nfs_snapshot_support);

    let dir = tempfile::tempdir().unwrap();
    let sources = vec![Source::File(file(dir.path(), "[scoria]\napi_listen_port = 9000\n"))];
    let args = LoadArgs { standalone: Some("/srv".into()), sources, ..LoadArgs::default() };
    assert_eq!(Config::load(&args).unwrap().scoria.api_listen_port, 9000, "a file may change it");
}
