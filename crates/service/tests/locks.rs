//! The lock service that a configuration names: what it protects, and what is refused.

use scoria_conf::{Config, LoadArgs, Source};
use scoria_db::{Database, Options};
use scoria_service::parts;

/// A configuration with one back end and these lines in `[DEFAULT]` and `[coordination]`.
fn config(directory: &std::path::Path, default: &str, coordination: &str) -> Config {
    let file = directory.join("cinder.conf");
    let text = format!(
        "[DEFAULT]\nhost = node\nenabled_backends = one\nstate_path = {}\n{default}\n[coordination]\n{coordination}\n\
         [one]\nvolume_driver = local\n",
        directory.display()
    );
    std::fs::write(&file, text).unwrap();
    Config::load(&LoadArgs { sources: vec![Source::File(file)], ..LoadArgs::default() }).unwrap()
}

/// What is said of this configuration.
async fn protection(config: &Config) -> String {
    let locks = parts::coordinator(config).await.unwrap();
    let line = parts::protection(config, &locks);
    locks.close().await;
    line
}

#[tokio::test]
async fn one_line_says_what_is_protected_by_what() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody has to be there: the service would start without.
    let nobody = format!("backend_url = zookeeper://127.0.0.1:{}", scoria_testkit::free_port().unwrap());
    for (default, coordination, begins, ends) in [
        (
            "",
            "",
            "lock service file: this machine only, ",
            "it protects node@one, as long as no service on another machine serves the same back end",
        ),
        ("", nobody.as_str(), "lock service zookeeper: the cluster, ", "; it protects node@one"),
        (
            "cluster = many",
            nobody.as_str(),
            "lock service zookeeper: the cluster, ",
            "; it protects cluster many, of which node@one is a member",
        ),
    ] {
        let line = protection(&config(directory.path(), default, coordination)).await;
        assert!(line.starts_with(begins) && line.ends_with(ends), "{line}");
    }
}

#[tokio::test]
async fn a_cluster_whose_lock_service_protects_one_node_only_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:///{}", directory.path().join("cinder.sqlite").display());
    let database = Database::connect(&Options::new(&sqlite)).await.unwrap();
    database.sync().await.unwrap();
    database.close().await;
    let in_database = format!("backend_url = database://\n[database]\nconnection = {sqlite}");
    for (coordination, scheme) in
        [("", "file://"), ("backend_url = memory://", "memory://"), (in_database.as_str(), "database://")]
    {
        let config = config(directory.path(), "cluster = many", coordination);
        let error = parts::coordinator(&config).await.unwrap_err().to_string();
        for part in [
            "[DEFAULT] cluster = many",
            "[coordination] backend_url",
            scheme,
            "that all members share",
            "unset cluster",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let line = protection(&config(directory.path(), "", &in_database)).await;
    assert!(line.starts_with("lock service database: this machine only, "), "without a cluster it will do: {line}");
}

#[tokio::test]
async fn no_error_about_the_lock_service_shows_its_password() {
    let directory = tempfile::tempdir().unwrap();
    for url in [
        "nonsense://admin:hush@host",
        "kubernetes://admin:hush@host",
        "admin:hush@host",
        "file://admin:hush@host/x?lost=hush",
    ] {
        let config = config(directory.path(), "", &format!("backend_url = {url}"));
        if let Err(error) = parts::coordinator(&config).await {
            assert!(!format!("{error:#}").contains("hush"), "{url}: {error:#}");
        }
    }
}
