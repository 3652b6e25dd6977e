//! What the configuration has and the service reads are the same.

use std::path::Path;

use scoria_conf::options::{all, without_effect};
use scoria_conf::{Config, LoadArgs, Source};
use scoria_service::parts;

/// The sources that read options: ours, and those of the configuration that make one value of several options.
fn readers() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = std::fs::read_dir(root.join("src")).unwrap().map(|file| file.unwrap().path());
    let combine = ["config", "options/log", "options/messaging", "options/notifications"];
    let theirs = combine.map(|name| root.join("../conf/src").join(name).with_extension("rs"));
    ours.chain(theirs).map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn an_option_is_read_or_listed_as_one_without_effect() {
    let readers = readers();
    // A field, or a name in a pattern that takes fields out.
    let is_read = |name: &str| {
        let after = |text: &str| !text.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let found = |prefix: &str| {
            let name = format!("{prefix}{name}");
            readers.match_indices(&name).any(|(at, _)| after(&readers[at + name.len()..]))
        };
        found(".") || found("Section { ") || found(", ")
    };
    let unread: Vec<_> = all()
        .filter(|spec| !is_read(spec.name) && without_effect(spec.group, spec.name).is_none())
        .map(|spec| format!("[{}] {}", spec.group, spec.name))
        .collect();
    assert!(unread.is_empty(), "read them, or list them in conf/src/options/unused.rs: {unread:?}");
    let listed: Vec<_> = all()
        .filter(|spec| spec.group != "backend_defaults" || spec.name != "volume_copy_bps_limit")
        .filter(|spec| readers.contains(&format!(".{},", spec.name)) && without_effect(spec.group, spec.name).is_some())
        .map(|spec| format!("[{}] {}", spec.group, spec.name))
        .collect();
    assert!(listed.is_empty(), "they are read now, take them from conf/src/options/unused.rs: {listed:?}");
}

#[tokio::test]
async fn a_compression_that_is_not_known_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cinder.conf");
    let text = "[DEFAULT]\nenabled_backends = one\ntransport_url = rabbit://broker\n[oslo_messaging_rabbit]\n\
                kombu_compression = lzma\n[one]\nvolume_driver = local\n";
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&LoadArgs { sources: vec![Source::File(file)], ..LoadArgs::default() }).unwrap();
    let error = parts::transport(&config).unwrap_err().to_string();
    assert!(error.contains("kombu_compression = lzma") && error.contains("use gzip or bzip2"), "{error}");
}
