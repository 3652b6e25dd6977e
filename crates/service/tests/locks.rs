//! The lock service that a configuration names: what it protects, and what is refused.

use scoria_conf::{Config, LoadArgs, Source};
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

#[tokio::test]
async fn one_line_says_what_is_protected_by_what() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "", "");
    let locks = parts::coordinator(&config).await.unwrap();
    let line = parts::protection(&config, &locks);
    assert!(line.starts_with("lock service file: this machine only, "), "{line}");
    assert!(
        line.ends_with("it protects node@one, as long as no service on another machine serves the same back end"),
        "{line}"
    );
    locks.close().await;
}

#[tokio::test]
async fn a_cluster_whose_lock_service_protects_one_node_only_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    for (url, scheme) in [("", "file://"), ("backend_url = memory://", "memory://")] {
        let config = config(directory.path(), "cluster = many", url);
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
