//! The JSON of etcd's gateway (`etcdserver/etcdserverpb/rpc.proto` by way of grpc-gateway): keys and values in base64,
//! 64-bit numbers as text, zeros left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Bytes as the gateway writes them.
pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The first key after all that begin with `prefix`: what etcd calls the end of the range.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Our prefixes are ASCII, so the last byte has a successor.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Writes a key that goes with a lease.
pub(super) fn put(key: &str, value: impl AsRef<[u8]>, lease: i64) -> Value {
    json!({ "request_put": { "key": encoded(key), "value": encoded(value), "lease": lease.to_string() } })
}

/// Reads one key.
pub(super) fn range(key: &str) -> Value {
    json!({ "request_range": { "key": encoded(key) } })
}

/// Reads all keys that begin with `prefix`.
pub(super) fn range_of(prefix: &str) -> Value {
    json!({ "request_range": { "key": encoded(prefix), "range_end": encoded(end_of(prefix)) } })
}

/// Removes one key.
pub(super) fn delete(key: &str) -> Value {
    json!({ "request_delete_range": { "key": encoded(key) } })
}

/// Removes all keys that begin with `prefix`.
pub(super) fn delete_of(prefix: &str) -> Value {
    json!({ "request_delete_range": { "key": encoded(prefix), "range_end": encoded(end_of(prefix)) } })
}

/// The key does not exist, as tooz asks it.
pub(super) fn is_absent(key: &str) -> Value {
    json!({ "key": encoded(key), "result": "EQUAL", "target": "CREATE", "create_revision": "0" })
}

/// The key has this value.
pub(super) fn has_value(key: &str, value: impl AsRef<[u8]>) -> Value {
    json!({ "key": encoded(key), "result": "EQUAL", "target": "VALUE", "value": encoded(value) })
}

/// The key was last written at this revision.
pub(super) fn written_at(key: &str, revision: u64) -> Value {
    json!({ "key": encoded(key), "result": "EQUAL", "target": "MOD", "mod_revision": revision.to_string() })
}

/// Every answer says as of when.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
    /// Rises with each new leader.
    #[serde(deserialize_with = "number")]
    pub(super) raft_term: u64,
}

/// One key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub(super) create_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(super) lease: i64,
}

impl KeyValue {
    /// What comes after `prefix` in the key, when it begins with it and is text.
    pub(super) fn key_after(&self, prefix: &str) -> Option<&str> {
        std::str::from_utf8(&self.key).ok()?.strip_prefix(prefix)
    }
}

/// What a read found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub(super) count: u64,
}

/// What a removal removed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Deleted {
    #[serde(deserialize_with = "number")]
    pub(super) deleted: u64,
}

/// The answer to one operation of a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) response_range: Range,
    pub(super) response_delete_range: Deleted,
}

/// The answer to a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Answer>,
}

impl Txn {
    /// What the operation at `index`, a read, found.
    pub(super) fn found(&self, index: usize) -> &[KeyValue] {
        self.responses.get(index).map_or(&[], |answer| &answer.response_range.kvs)
    }

    /// How many keys the operation at `index` removed.
    pub(super) fn deleted(&self, index: usize) -> u64 {
        self.responses.get(index).map_or(0, |answer| answer.response_delete_range.deleted)
    }
}

/// The answer to the grant or the extension of a lease. No TTL: the lease is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Granted {
    pub(super) header: Header,
    /// In seconds; may be longer than asked for.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

/// One message of a stream.
#[derive(Debug, Deserialize)]
pub(super) enum Streamed<T> {
    #[serde(rename = "result")]
    Result(T),
    #[serde(rename = "error")]
    Error(Refusal),
}

/// Why etcd did not do it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) message: String,
    /// gRPC's code.
    #[serde(alias = "grpc_code")]
    pub(super) code: u32,
}

/// One message of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
    pub(super) cancel_reason: String,
    pub(super) events: Vec<Event>,
}

/// A change of one key. We only ask for removals.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) kv: KeyValue,
}

fn number<'de, D, N>(from: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: std::str::FromStr + TryFrom<i64>,
{
    let bad = || D::Error::custom("not a number");
    match Value::deserialize(from)? {
        Value::String(text) => text.parse().map_err(|_| bad()),
        Value::Number(number) => number.as_i64().and_then(|number| N::try_from(number).ok()).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd 3.4 answered.
    #[test]
    fn answers_are_read() {
        let txn = r#"{"header":{"cluster_id":"10144879847569953045","revision":"2","raft_term":"2"},"succeeded":true,
            "responses":[{"response_put":{"header":{"revision":"2"}}},{"response_range":{"header":{"revision":"2"},
            "kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg==","lease":"4242"}],
            "count":"1"}}]}"#;
        let txn: Txn = serde_json::from_str(txn).unwrap();
        assert!(txn.succeeded && txn.header.revision == 2 && txn.found(0).is_empty());
        let found = &txn.found(1)[0];
        assert_eq!((found.key_after(""), found.value.as_slice(), found.lease), (Some("a"), b"b".as_slice(), 4242));

        let gone = r#"{"result":{"header":{"revision":"1"},"ID":"4243"}}"#;
        assert!(matches!(serde_json::from_str(gone).unwrap(), Streamed::Result(Granted { ttl: 0, .. })));
        let lost = r#"{"result":{"header":{"raft_term":"2"},"canceled":true,"compact_revision":"3"}}"#;
        let Streamed::Result(lost) = serde_json::from_str::<Streamed<Watched>>(lost).unwrap() else { panic!() };
        assert!(lost.canceled && lost.compact_revision == 3);
        let refused =
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"x"}}"#;
        let Streamed::Error(refused) = serde_json::from_str::<Streamed<Watched>>(refused).unwrap() else { panic!() };
        assert_eq!((refused.code, refused.message.as_str()), (14, "etcdserver: no leader"));
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it() {
        assert_eq!(end_of("/tooz/locks"), b"/tooz/lockt");
        assert_eq!(end_of("/scoria/"), b"/scoria0");
    }
}
