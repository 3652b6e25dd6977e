//! `scoria db`, and lists from a database.

use crate::run::{scoria, site};

#[test]
fn tables_are_made_once_and_told_with_their_maker() {
    let directory = tempfile::tempdir().unwrap();
    let conf = site(directory.path());
    let run = scoria(&["--config-file", &conf, "--json", "db", "version"]);
    assert!(run.stdout.contains("\"made_by\": null"), "{run:?}");
    assert!(run.failed(1).contains("scoria db sync"));
    let run = scoria(&["--config-file", &conf, "volume", "list"]);
    assert!(run.failed(1).contains("scoria db sync"));

    for _ in 0..2 {
        let synced = scoria(&["--config-file", &conf, "--json", "db", "sync"]).json();
        assert_eq!(synced["made_by"], "scoria");
    }
    let version = scoria(&["--config-file", &conf, "--json", "db", "version"]).json();
    assert_eq!((&version["made_by"], version["version"].as_i64()), (&"scoria".into(), Some(2)));
    assert!(scoria(&["--config-file", &conf, "db", "version"]).done().contains("scoria"));

    for what in ["volume", "snapshot", "service"] {
        assert_eq!(scoria(&["--config-file", &conf, "--json", what, "list"]).json(), serde_json::json!([]), "{what}");
    }
    let id = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11";
    for what in ["volume", "snapshot"] {
        assert!(scoria(&["--config-file", &conf, what, "show", id]).failed(3).contains(id));
    }
}

#[test]
fn stand_alone_mode_needs_a_directory_only() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state").display().to_string();
    let synced = scoria(&["--standalone", "--state-path", &state, "--json", "db", "sync"]).json();
    assert_eq!(synced["made_by"], "scoria");
}

#[test]
fn a_database_that_is_not_there_is_named_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let conf = site(directory.path());
    let mut text = std::fs::read_to_string(&conf).unwrap();
    let port = scoria_testkit::free_port().unwrap();
    text += &format!("[database]\nconnection = mysql+pymysql://cinder:hush@127.0.0.1:{port}/cinder\n");
    std::fs::write(&conf, text).unwrap();
    let error = scoria(&["--config-file", &conf, "db", "version"]).failed(69);
    assert!(error.contains("[database] connection") && !error.contains("hush"), "{error}");
}

#[test]
fn a_command_that_needs_a_configuration_says_how_to_name_one() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.conf").display().to_string();
    assert!(scoria(&["--config-file", &missing, "db", "version"]).failed(1).contains("none.conf"));
    let empty = directory.path().display().to_string();
    assert!(scoria(&["--config-dir", &empty, "--config-file", &missing, "db", "sync"]).failed(1).contains("none.conf"));
}
