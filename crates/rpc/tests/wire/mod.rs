//! Reading the captured messages, for several test files.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

pub(crate) fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The examples of one request, e.g. `volume.create_volume`.
pub(crate) fn examples(request: &str) -> Vec<Value> {
    read(&format!("rpc/{request}.json"))
}

/// Every captured request with the name of its file.
pub(crate) fn requests() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(directory().join("rpc")).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 50, "the captured messages are complete");
    let read = |name: String| read(&format!("rpc/{name}")).into_iter().map(move |example| (name.clone(), example));
    names.into_iter().flat_map(read).collect()
}

/// The body that carried this message.
pub(crate) fn sealed(message: &Value) -> Vec<u8> {
    json!({"oslo.version": "2.0", "oslo.message": message.to_string()}).to_string().into_bytes()
}

/// Every versioned object in a value, also within others.
pub(crate) fn objects(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    let inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(list) => Box::new(list.iter().flat_map(objects)),
        Value::Object(map) => Box::new(map.values().flat_map(objects)),
        _ => Box::new(std::iter::empty()),
    };
    let own = value.get("versioned_object.name").map(|_| value);
    Box::new(own.into_iter().chain(inner))
}

pub(crate) fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    &object["versioned_object.data"][name]
}

/// The same value with the lists of changes in order: their order means nothing.
pub(crate) fn normal(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(normal).collect(),
        Value::Object(map) => {
            let sorted = |key: &String, value: &Value| {
                let mut value = normal(value);
                if let (true, Some(names)) = (key == "versioned_object.changes", value.as_array_mut()) {
                    names.sort_by_key(Value::to_string);
                }
                (key.clone(), value)
            };
            map.iter().map(|(key, value)| sorted(key, value)).collect()
        }
        other => other.clone(),
    }
}

/// Asserts that our object says the same as theirs. Theirs may say more in nested objects (a type's projects, an
/// attachment's volume) that our types do not have, and need not have loaded everything that ours always tell.
pub(crate) fn same(theirs: &Value, ours: &Value, what: &str) {
    const NOT_OURS: [&str; 7] =
        ["projects", "qos_specs", "volume", "cluster", "group", "consistencygroup", "snapshots"];
    for key in ["versioned_object.name", "versioned_object.namespace", "versioned_object.version"] {
        assert_eq!(ours[key], theirs[key], "{what}");
    }
    let data = |object: &Value| object["versioned_object.data"].as_object().cloned().unwrap();
    let our_data = data(ours);
    for (name, theirs) in data(theirs) {
        let Some(our) = our_data.get(&name) else {
            assert!(NOT_OURS.contains(&name.as_str()) || theirs.is_null(), "{what}: {name} is lost: {theirs}");
            continue;
        };
        match (&theirs, our) {
            (Value::Object(map), our) if map.contains_key("versioned_object.name") => same(&theirs, our, what),
            (Value::Array(list), Value::Array(our)) if list.iter().any(Value::is_object) => {
                assert_eq!(list.len(), our.len(), "{what}: {name}");
                list.iter().zip(our).for_each(|(theirs, our)| same(theirs, our, what));
            }
            (theirs, our) => assert_eq!(our, theirs, "{what}: {name}"),
        }
    }
}
