//! The house rules that a program can check: who may import whom, where `anyhow` may be, how long a file may get.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use scoria_testkit::repository;
use serde_json::Value;

/// The layers from the bottom up; a crate may import those of lower layers only, so neighbours do not know each other.
const LAYERS: &[&[&str]] = &[
    &["model"],
    &["runtime"],
    &["conf", "coordination", "rpc", "db", "compute", "drivers"],
    &["manager"],
    &["api"],
    &["service"],
    &["cli"],
];
/// Crates that may use `anyhow`; everybody else's errors can be told apart by kind.
const ANYHOW: &[&str] = &["service", "cli", "testkit", "tests"];
/// Longer files want a split.
const MOST_LINES: usize = 900;

/// Crate → its dependencies as (name, development only), our own without their prefix.
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(repository());
    let out = metadata.output().unwrap();
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let short = |name: &Value| name.as_str().unwrap().trim_start_matches("scoria-").to_owned();
    let of = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.map(|dependency| (short(&dependency["name"]), dependency["kind"] == "dev")).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (short(&package["name"]), of(package))).collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[test]
fn crates_import_lower_layers_only() {
    let mut forbidden = Vec::new();
    for (name, dependencies) in dependencies() {
        for (dependency, dev) in dependencies {
            let allowed = match (layer(&name), layer(&dependency)) {
                // A crate's own tests may name it again, to switch features on.
                (Some(own), Some(other)) => other < own || (dev && name == dependency),
                // Only tests may use the test kit; the crates of tests may use everything.
                (Some(_), None) => dev || !["testkit", "tests"].contains(&dependency.as_str()),
                (None, _) => true,
            };
            if !allowed {
                forbidden.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(forbidden.is_empty(), "imports against the layers {LAYERS:?}: {forbidden:?}");
}

#[test]
fn every_crate_has_a_layer() {
    let homeless: Vec<_> = dependencies().into_keys().filter(|name| layer(name).is_none()).collect();
    assert_eq!(homeless, ["testkit", "tests"], "put new crates into LAYERS");
}

#[test]
fn libraries_have_errors_of_their_own() {
    let uses = |all: &[(String, bool)]| all.iter().any(|(name, dev)| name == "anyhow" && !dev);
    let found: Vec<_> = dependencies().into_iter().filter(|(_, all)| uses(all)).map(|(name, _)| name).collect();
    let wrong: Vec<_> = found.iter().filter(|name| !ANYHOW.contains(&name.as_str())).collect();
    assert!(wrong.is_empty(), "anyhow is for {ANYHOW:?}, not for {wrong:?}");
}

#[test]
fn no_file_is_too_long() {
    fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                sources(&entry, into);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                into.push(entry);
            }
        }
    }
    let mut files = Vec::new();
    sources(&repository().join("crates"), &mut files);
    sources(&repository().join("tests"), &mut files);
    let lines = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().count();
    let long: Vec<_> = files.iter().filter(|file| lines(file) > MOST_LINES).collect();
    assert!(!files.is_empty() && long.is_empty(), "over {MOST_LINES} lines: {long:?}");
}
