//! `check` names everything that is wrong, and nothing else.

use std::path::PathBuf;

use scoria_conf::{Severity, check, sample};

fn findings(texts: &[&str]) -> Vec<(String, Severity)> {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..texts.len()).map(|index| dir.path().join(format!("{index}.conf"))).collect();
    for (file, text) in files.iter().zip(texts) {
        std::fs::write(file, text).unwrap();
    }
    let prefix = format!("{}/", dir.path().display());
    check(&files).into_iter().map(|finding| (finding.to_string().replace(&prefix, ""), finding.severity)).collect()
}

fn lines(texts: &[&str]) -> Vec<String> {
    findings(texts).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn a_good_file_has_nothing_to_tell() {
    let good =
        "[DEFAULT]\nenabled_backends = nfs1\ndebug = true\n[NFS1]\nvolume_driver = nfs\nnfs_mount_options = vers=4\n";
    assert_eq!(lines(&[good]), Vec::<String>::new());
}

#[test]
fn what_is_accepted_without_effect_is_named_with_the_reason() {
    let text = "[DEFAULT]\nenabled_backends = nfs1\nlog_rotation_type = size\n[nfs1]\nvolume_driver = nfs\ndisk_geometry = 512\n";
    let expected = [
        "0.conf:3: warning: [DEFAULT] log_rotation_type: is accepted and has no effect: Scoria does not rotate its log files: \
         use logrotate, they are opened afresh without a signal",
        "0.conf:6: warning: [nfs1] disk_geometry: is accepted and has no effect: connections do not tell block sizes yet",
    ];
    assert_eq!(lines(&[text]), expected);
}

#[test]
fn everything_is_named_at_once() {
    let text = "[DEFAULT]
enabled_backends = nfs1
report_intervall = 5
report_interval = x
osapi_volume_listen = 0.0.0.0
nfs_mount_options = a
rpc_thread_pool_size = 5
foo-bar = 1
[nfs1]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
nfs_mount_option = a
reserved_percentage = 200
rbd_pool = volumes
[default]
debug = true
[nsf1]
x = 1
[scorria]
[backend_defaults]
backend_host = ha
[database]
max_pool_size = many
";
    let expected = [
        "0.conf:3: warning: [DEFAULT] report_intervall: is no option of this group: it has no effect; did you mean 'report_interval'?",
        "0.conf:4: error: [DEFAULT] report_interval: x: must be a whole number",
        "0.conf:5: info: [DEFAULT] osapi_volume_listen: is an option of Cinder that Scoria does not use",
        "0.conf:6: warning: [DEFAULT] nfs_mount_options: is not read from [DEFAULT]: move it to the back end's section or to [backend_defaults]",
        "0.conf:7: warning: [DEFAULT] rpc_thread_pool_size: is deprecated: use [DEFAULT] executor_thread_pool_size",
        "0.conf:8: warning: [DEFAULT] foo-bar: is no option of this group: it has no effect",
        "0.conf:11: warning: [nfs1] nfs_mount_option: is no option of this group: it has no effect; did you mean 'nfs_mount_options'?",
        "0.conf:12: error: [nfs1] reserved_percentage: 200: must be a whole number, 0 to 100",
        "0.conf:13: info: [nfs1] rbd_pool: is an option of Cinder that Scoria does not use",
        "0.conf:14: warning: [default]: is not [DEFAULT], which is written in capitals; it has no effect",
        "0.conf:16: warning: [nsf1]: is neither a group of options nor in enabled_backends: it has no effect; did you mean 'nfs1'?",
        "0.conf:18: warning: [scorria]: is neither a group of options nor in enabled_backends: it has no effect; did you mean 'scoria'?",
        "0.conf:20: warning: [backend_defaults] backend_host: has an effect only in the section of a back end",
        "0.conf:22: error: [database] max_pool_size: many: must be a whole number",
    ];
    let found = lines(&[text]);
    for line in &expected {
        assert!(found.contains(&(*line).to_owned()), "missing: {line}\nin: {found:#?}");
    }
    let driver = found.iter().filter(|line| line.starts_with("0.conf:10: error: [nfs1] volume_driver: ")).count();
    assert_eq!((driver, found.len()), (1, expected.len() + 1), "{found:#?}");
}

#[test]
fn files_are_checked_together() {
    let one = "[DEFAULT]\nenabled_backends = a\n[a]\nvolume_driver = local\n";
    let two = "[a]\nreserved_percentage = no\n[DEFAULT]\ntransport_url = rabbit://u:s3cret@h/?x=1\n";
    let found = lines(&[one, two]);
    assert_eq!(found[0], "1.conf:2: error: [a] reserved_percentage: no: must be a whole number, 0 to 100");
    assert!(found[1].starts_with("1.conf:4: error: [DEFAULT] transport_url: ***: its query sets 'x'"), "{found:#?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn broken_and_missing_files_are_named() {
    let (line, severity) = findings(&["[DEFAULT]\nenabled_backends\n"]).remove(0);
    assert_eq!(
        (line.as_str(), severity),
        ("0.conf:2: error: neither a section, nor a comment, nor KEY = VALUE", Severity::Error)
    );
    let missing = check(&[PathBuf::from("/nonexistent/cinder.conf")]).remove(0).to_string();
    assert!(missing.starts_with("/nonexistent/cinder.conf: error: cannot be read: "), "{missing}");
    assert!(check(&[])[0].to_string().starts_with("error: [DEFAULT] enabled_backends: : names no back end"));
}

#[test]
fn the_committed_sample_is_the_current_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/cinder.conf.sample");
    if std::env::var_os("SCORIA_WRITE_SAMPLE").is_some() {
        std::fs::write(path, sample()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == sample(),
        "config/cinder.conf.sample is out of date: run this test with SCORIA_WRITE_SAMPLE=1 and commit it"
    );
}
