//! `scoria config`.

use crate::run::{scoria, site};

#[test]
fn the_sample_is_the_one_in_the_repository() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/cinder.conf.sample");
    let stored = std::fs::read_to_string(file).unwrap();
    assert!(scoria(&["config", "sample"]).done() == stored, "write it anew: scoria config sample > {file}");
}

#[test]
fn a_bad_file_is_named_with_its_lines() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.conf");
    let text = "[DEFAULT]\nenabled_backends = one\nreport_interval = soon\n[one]\nvolume_driver = local\nreserved_percentage = x\n";
    std::fs::write(&file, text).unwrap();
    let name = file.display().to_string();

    for run in [scoria(&["config", "check", &name]), scoria(&["--config-file", &name, "config", "check"])] {
        for line in [3, 6] {
            assert!(run.stdout.contains(&format!("{name}:{line}: error: ")), "{run:?}");
        }
        assert!(run.failed(1).contains("would not start"));
    }

    let run = scoria(&["--json", "config", "check", &name]);
    let findings: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((findings[0]["line"].as_u64(), findings[0]["severity"].as_str()), (Some(3), Some("error")));
    assert_eq!(run.code, Some(1));
}

#[test]
fn a_good_file_passes_and_a_missing_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(scoria(&["config", "check", &site(directory.path())]).done(), "");
    let missing = directory.path().join("none.conf").display().to_string();
    let run = scoria(&["config", "check", &missing]);
    assert!(run.stdout.contains(&missing), "{run:?}");
    assert_eq!(run.code, Some(1));
    assert!(scoria(&["--config-file", &missing, "config", "show"]).failed(1).contains(&missing));
}

#[test]
fn what_is_in_force_is_shown_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let conf = site(directory.path());
    let mut text = std::fs::read_to_string(&conf).unwrap();
    text += "[database]\nconnection = mysql+pymysql://cinder:hush@db/cinder\n[scoria]\nauth_token = hush\n\
             [coordination]\nbackend_url = redis://:hush@locks/?sentinel=main&password=hush\n";
    std::fs::write(&conf, text).unwrap();
    for args in [&["config", "check", "--all"][..], &["config", "check", "--all", "--json"]] {
        let run = scoria(&[&["--config-file", &conf], args].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{run:?}");
    }
    for args in [&["config", "show"][..], &["config", "show", "--json"], &["config", "show", "--changed", "-v"]] {
        let run = scoria(&[&["--config-file", &conf], args].concat());
        assert_eq!(run.code, Some(0));
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{run:?}");
        assert!(run.stdout.contains("***"), "{run:?}");
    }
    let shown = scoria(&["--config-file", &conf, "--json", "config", "show", "--changed"]).json();
    let backends = shown.as_array().unwrap().iter().find(|value| value["option"] == "enabled_backends").unwrap();
    assert_eq!(backends["value"], "one");
    assert_eq!(backends["origin"], format!("{conf}:3"));
}
