//! The real oslo.config and the real Cinder read the same things as we do.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use scoria_conf::options::{self, DefaultText, OptionSpec};
use scoria_conf::types::Kind;
use scoria_conf::{Config, LoadArgs, Source, ini};
use serde_json::{Value, json};

/// Asks `oslo_peer.py`.
fn ask(what: &str, question: &Value) -> Value {
    let venv = std::env::var("SCORIA_PEER_VENV")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/peer-venv").to_owned());
    let python = Path::new(&venv).join("bin/python");
    assert!(
        python.exists(),
        "the Python peers are missing at {venv}: install them by `make setup`, or set SCORIA_PEER_VENV"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oslo_peer.py");
    let mut child = Command::new(python)
        .args(["-W", "ignore"])
        .arg(script)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same `count` samples at each run.
fn samples<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn files_are_tokenised_alike() {
    let line = prop_oneof![
        "\\[[a-zA-Z ]{0,3}\\]?[ x]?",
        "[a-z_ ]{0,3} ?[=:] ?['\" a-z:=#;$,]{0,8}",
        "[ \t][a-z#;=\\[ ]{0,5}",
        "[#;][a-z =]{0,4}",
        "[ \t\u{a0}\u{1f}]{0,2}",
        "[a-z\u{85}\u{2028}é='\"\u{c}]{0,5}",
    ];
    let ending = prop_oneof![6 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\r")];
    let mut texts = samples(&prop::collection::vec((line, ending), 0..9), 3000)
        .into_iter()
        .map(|lines| lines.into_iter().flat_map(|(line, ending)| [line, ending.to_owned()]).collect::<String>())
        // Most random files have an option before the first section; with a section above, the rest of the file is read too.
        .flat_map(|text| [format!("[s]\n{text}"), text])
        .collect::<Vec<_>>();
    texts.push("[a]\nk = v\n  more\n\n[A]\nk = \"\n".to_owned());
    let answers = ask("ini", &json!(texts));
    let mut accepted = 0;
    for (text, answer) in texts.iter().zip(answers.as_array().unwrap()) {
        let ours = ini::parse(text).ok().map(|ini| {
            let mut values: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
            for entry in ini.entries {
                values.entry((entry.section, entry.key)).or_default().push(entry.value);
            }
            values.into_iter().map(|((section, key), values)| (section, key, values)).collect::<Vec<_>>()
        });
        let mut theirs: Option<Vec<(String, String, Vec<String>)>> = serde_json::from_value(answer.clone()).unwrap();
        theirs.iter_mut().for_each(|values| values.sort());
        accepted += usize::from(ours.is_some());
        assert_eq!(ours, theirs, "{text:?}");
    }
    assert!(accepted > 500, "only {accepted} of the samples are files at all");
}

#[test]
fn types_are_read_alike() {
    let kinds: [(&str, Kind, &str); 9] = [
        ("bool", Kind::Bool, "(true|YES|0|1|oFF|x| |tru)"),
        ("int", Kind::INT, "[-+ ]?[0-9_]{0,5}[ .x]?"),
        ("bounded", Kind::Int { min: 3, max: 100 }, "[0-9]{0,3}"),
        ("float", Kind::Float { min: 0.0, max: 4.5 }, "[-+]?[0-9_]{0,2}[.e]?[0-9_]{0,2}"),
        ("port", Kind::Port, "[-]?[0-9]{0,6}"),
        ("list", Kind::List, "[a,' \"]{0,9}"),
        ("dict", Kind::Dict, "[ab,: ]{0,9}"),
        ("host", Kind::HostAddress, "[a0-9.:-]{0,12}|[0-9]{1,3}(\\.[0-9]{1,3}){3}|[a-f0-9]{0,2}::[a-f0-9]{0,2}"),
        ("choice", Kind::Choice(&["a", "b c"]), "[ab c]{0,3}"),
    ];
    let mut cases: Vec<(&str, Kind, String)> = Vec::new();
    for (name, kind, pattern) in kinds {
        let strategy = proptest::string::string_regex(pattern).unwrap();
        cases.extend(samples(&strategy, 400).into_iter().map(|text| (name, kind, text)));
    }
    let question: Vec<_> = cases.iter().map(|(name, _, text)| json!([name, text])).collect();
    let answers = ask("types", &json!(question));
    for ((name, kind, text), answer) in cases.iter().zip(answers.as_array().unwrap()) {
        let ours = kind.parse(text).ok().map(|value| value.map(|value| value.to_string()).unwrap_or_default());
        assert_eq!(ours.as_deref(), answer.as_str(), "{name} {text:?}");
    }
}

fn load(files: &[PathBuf], environment: &[(&str, &str)]) -> Result<Config, scoria_conf::Error> {
    Config::load(&LoadArgs {
        sources: files.iter().cloned().map(Source::File).collect(),
        environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..LoadArgs::default()
    })
}

fn values(config: &Config) -> BTreeMap<(String, String), String> {
    config.show().unwrap().into_iter().map(|shown| ((shown.group, shown.option), shown.value)).collect()
}

#[test]
fn names_in_values_are_replaced_alike() {
    let dir = tempfile::tempdir().unwrap();
    let names =
        r"host|\{host\}|state_path|report_interval|connection|database\.connection|nothing|connection_parameters";
    let value = format!(r"([a$\\{{}} /]|\$({names})){{0,4}}");
    let cases: Vec<String> = samples(&proptest::string::string_regex(&value).unwrap(), 600)
        .into_iter()
        .map(|value| {
            format!(
                "[DEFAULT]\nhost = h$$h\nstate_path = /s\nconnection = $state_path\nenabled_backends = b\n\
                 [database]\nconnection = c-$host\nconnection_parameters = .{value}-\n[b]\nvolume_driver = nfs\n"
            )
        })
        .collect();
    let answers = ask("interpolation", &json!(cases));
    let mut accepted = 0;
    for (text, answer) in cases.iter().zip(answers.as_array().unwrap()) {
        let file = dir.path().join("cinder.conf");
        std::fs::write(&file, text).unwrap();
        let ours = load(&[file], &[]).ok().map(|config| config.database.connection_parameters);
        accepted += usize::from(ours.is_some());
        assert_eq!(ours.as_deref(), answer.as_str(), "{text}");
    }
    assert!((100..600).contains(&accepted), "{accepted} of the samples are accepted");
}

const ONE: &str = "
[DEFAULT]
enabled_backends = nfs-1, LVM2 ,
debug = yes
host = node-$my_ip
my_ip = 10.1.2.3
state_path = '/srv/cinder '
glance_api_servers = http://a:9292,
   http://b:9292
image_conversion_cpu_limit = 7
rpc_thread_pool_size = 3
transport_url = rabbit://u:p@h
filter_function = global
report_interval: 11
glance_request_timeout =
nfs_mount_options = not-read-from-here
reserved_percentage = 99

[backend_defaults]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
nfs_mount_options = vers=4.2
nas_mount_options = $volume_backend_name
backend_host = not-read-from-here
volume_backend_name = shared

[NFS-1]
volume_backend_name = gold
nfs_mount_options =
nfs_mount_attempts =
nfs_shares_config = $state_path/$volume_backend_name/${host}$$
backend_host = ha

[lvm2]
reserved_percentage = 5
nas_host = a ; b
";

const TWO: &str = "
[DEFAULT]
report_interval = 12
image_introspection_cpu_limit = 8
[oslo_messaging_notifications]
driver = messagingv2
driver = log
topics = a, b
[oslo_messaging_rabbit]
kombu_reconnect_timeout = 9
kombu_reconnect_delay = 2
[oslo_concurrency]
lock_path = $state_path/tmp
[database]
connection = mysql+pymysql://u:p@$my_ip/cinder
[backend_defaults]
nfs_mount_attempts = 4
";

#[test]
fn the_running_service_sees_the_same_values() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("one.conf", ONE), ("two.conf", TWO)].map(|(name, text)| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    });
    let environment = [("OS_DEFAULT__PERIODIC_INTERVAL", "61"), ("OS_NFS-1__NFS_QCOW2_VOLUMES", "on")];
    let config = load(&files, &environment).unwrap();
    let ours = values(&config);
    let question = json!({
        "files": files,
        "environment": environment.into_iter().collect::<BTreeMap<_, _>>(),
        "options": ours.keys().collect::<Vec<_>>(),
    });
    let answers = ask("cinder_values", &question);
    let mut compared = 0;
    for ((group, option), value) in &ours {
        // Programs have different names; Python is told secrets; log levels name other libraries.
        let differs = ["processname", "default_log_levels"].contains(&option.as_str()) || value == "***";
        if let Some(theirs) = answers[group][option].as_str().filter(|_| !differs) {
            assert_eq!(value, theirs, "[{group}] {option}");
            compared += 1;
        }
    }
    assert!(compared > 150, "only {compared} options were compared");
}

/// The default as Python declares it; computed ones have no text.
fn default_of(spec: &OptionSpec) -> Option<String> {
    match spec.default {
        DefaultText::None => Some(String::new()),
        DefaultText::Text(text) => {
            let parsed = if text.contains('$') { None } else { spec.kind.parse(text).unwrap() };
            Some(parsed.map_or_else(|| text.to_owned(), |value| value.to_string()))
        }
        DefaultText::Computed(..) => None,
    }
}

#[test]
fn every_option_of_cinder_is_known_and_declared_alike() {
    // Set by the service's code, not where they are declared; a hook's own levels; and what this release no longer has.
    let own_default =
        [("database", "connection"), ("DEFAULT", "default_log_levels"), ("oslo_concurrency", "lock_path")];
    let examples = [
        "sample_remote_file_source",
        "sample_castellan_source",
        "brcd_fabric_example",
        "cisco_fabric_example",
        "backend",
    ];
    let theirs = ask("every_option", &Value::Null);
    let mut compared = 0;
    for (group, known) in theirs.as_object().unwrap() {
        if examples.contains(&group.as_str()) {
            continue;
        }
        for (name, facts) in known.as_object().unwrap() {
            let Some(spec) = options::find(group, name) else {
                assert!(options::is_known(group, name), "[{group}] {name} is missing in known.txt");
                continue;
            };
            compared += 1;
            let place = format!("[{group}] {name}");
            let kind = match spec.kind {
                Kind::Str | Kind::Choice(_) => "String",
                Kind::Bool => "Boolean",
                Kind::Int { .. } => "Integer",
                Kind::Float { .. } => "Float",
                Kind::Port => "Port",
                Kind::List => "List",
                Kind::Dict => "Dict",
                Kind::MultiStr => "Multi",
                Kind::HostAddress => "HostAddress",
            };
            // What libraries do not type, or type by a class of their own, is a text.
            assert_eq!(kind, facts["type"].as_str().unwrap(), "{place}");
            if let Kind::Choice(choices) = spec.kind {
                assert_eq!(json!(choices), facts["choices"], "{place}");
            } else if spec.kind == Kind::Str {
                assert!(facts["choices"].is_null(), "{place}: {}", facts["choices"]);
            }
            if let Kind::Int { min, max } = spec.kind {
                assert_eq!(Some(min).filter(|min| *min != i64::MIN), facts["min"].as_i64(), "{place}");
                assert_eq!(Some(max).filter(|max| *max != i64::MAX), facts["max"].as_i64(), "{place}");
            }
            if let Some(default) = default_of(spec).filter(|_| !own_default.contains(&(group, name))) {
                assert_eq!(default, facts["default"].as_str().unwrap(), "{place}");
            }
            assert_eq!(json!(spec.secret), facts["secret"], "{place}");
            assert_eq!(json!(spec.mutable), facts["mutable"], "{place}");
            assert_eq!(json!(spec.deprecated), facts["deprecated"], "{place}");
        }
    }
    assert!(compared > 150, "only {compared} options were compared");
}
