//! The drivers' conformance suite on real NFS mounts of every version, inside user-mode Linux.

use std::process::Command;

use scoria_testkit::repository;

fn on_version(version: &str) {
    let mut lane = Command::new(repository().join("tests/lanes/uml/nfs-run.sh"));
    let out = lane.args([version, "--", env!("CARGO_BIN_EXE_nfs-conformance")]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{stdout}");
    assert!(out.status.success(), "on NFS {version}: {}\n{stderr}", out.status);
    assert_eq!(stdout.matches(": ok (").count(), names().len(), "not every test ran on NFS {version}");
}

/// The tests that the driver crate's suite has.
fn names() -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("pub async fn ")?.split('(').next()?.to_owned());
    let names = |file: &str| {
        let suite = std::fs::read_to_string(repository().join("crates/drivers/src").join(file)).unwrap();
        suite.lines().filter_map(name).collect::<Vec<_>>()
    };
    ["conformance.rs", "conformance/attached.rs", "conformance/deaths.rs"].map(names).concat()
}

#[test]
fn the_suite_is_complete() {
    let listed = Command::new(env!("CARGO_BIN_EXE_nfs-conformance")).arg("--list").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names(), "tests/src/bin/nfs-conformance.rs must run them all");
}

#[test]
fn nfs_3() {
    on_version("3");
}

#[test]
fn nfs_4_0() {
    on_version("4.0");
}

#[test]
fn nfs_4_1() {
    on_version("4.1");
}

#[test]
fn nfs_4_2() {
    on_version("4.2");
}
