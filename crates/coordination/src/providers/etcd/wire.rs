//! The messages of etcd's gRPC interface that locks need (`etcdserver/etcdserverpb/rpc.proto`, `mvcc/mvccpb/kv.proto`).
//!
//! They are so few that they are written out here: a client made of etcd's own files would want `protoc` on the machine that
//! builds Scoria. Fields that nobody reads are left out, protobuf passes over them. Revisions are `int64` there and never
//! negative, which has the same form as `uint64`.

use prost::{Message, Oneof};

/// A request and the method that takes it.
pub(super) trait Call: Message + Clone + 'static {
    type Answer: Message + Default + 'static;
    const METHOD: &'static str;
}

macro_rules! calls {
    ($($request:ty => $answer:ty, $method:literal;)*) => {
        $(impl Call for $request {
            type Answer = $answer;
            const METHOD: &'static str = $method;
        })*
    };
}

calls! {
    RangeRequest => Range, "/etcdserverpb.KV/Range";
    DeleteRequest => Deleted, "/etcdserverpb.KV/DeleteRange";
    TxnRequest => Txn, "/etcdserverpb.KV/Txn";
    WatchRequest => Watched, "/etcdserverpb.Watch/Watch";
    LeaseGrantRequest => Lease, "/etcdserverpb.Lease/LeaseGrant";
    LeaseRevokeRequest => Nothing, "/etcdserverpb.Lease/LeaseRevoke";
    LeaseKeepAliveRequest => Lease, "/etcdserverpb.Lease/LeaseKeepAlive";
    AuthenticateRequest => Authenticated, "/etcdserverpb.Auth/Authenticate";
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
pub(super) fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> Operation {
    Request::Put(PutRequest { key: key.into(), value: value.into(), lease }).into()
}

/// Reads one key.
pub(super) fn range(key: &str) -> Operation {
    Request::Range(RangeRequest { key: key.into(), ..RangeRequest::default() }).into()
}

/// Reads all keys that begin with `prefix`.
pub(super) fn range_of(prefix: &str) -> Operation {
    Request::Range(RangeRequest::of(prefix)).into()
}

/// Removes one key.
pub(super) fn delete(key: &str) -> Operation {
    Request::Delete(DeleteRequest::one(key)).into()
}

/// Removes all keys that begin with `prefix`.
pub(super) fn delete_of(prefix: &str) -> Operation {
    Request::Delete(DeleteRequest { key: prefix.into(), range_end: end_of(prefix) }).into()
}

/// The key does not exist, as tooz asks it.
pub(super) fn is_absent(key: &str) -> Compare {
    Compare::equal(key, 1, Expected::CreateRevision(0))
}

/// The key has this value.
pub(super) fn has_value(key: &str, value: impl Into<Vec<u8>>) -> Compare {
    Compare::equal(key, 3, Expected::Value(value.into()))
}

/// The key was last written at this revision.
pub(super) fn written_at(key: &str, revision: u64) -> Compare {
    Compare::equal(key, 2, Expected::ModRevision(revision))
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    /// `EQUAL`, the only one used, is 0.
    #[prost(int32, tag = "1")]
    result: i32,
    /// `CREATE` is 1, `MOD` 2, `VALUE` 3.
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "Expected", tags = "5, 6, 7")]
    expected: Option<Expected>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Expected {
    #[prost(uint64, tag = "5")]
    CreateRevision(u64),
    #[prost(uint64, tag = "6")]
    ModRevision(u64),
    #[prost(bytes = "vec", tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    fn equal(key: &str, target: i32, expected: Expected) -> Self {
        Self { result: 0, target, key: key.into(), expected: Some(expected) }
    }
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRequest),
}

impl From<Request> for Operation {
    fn from(request: Request) -> Self {
        Self { request: Some(request) }
    }
}

/// Reads one key, or from a key up to the end of a range.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(bool, tag = "9")]
    pub(super) count_only: bool,
}

impl RangeRequest {
    /// All keys that begin with `prefix`.
    pub(super) fn of(prefix: &str) -> Self {
        Self { key: prefix.into(), range_end: end_of(prefix), count_only: false }
    }

    /// Whether a key is there.
    pub(super) fn count(key: &str) -> Self {
        Self { key: key.into(), range_end: Vec::new(), count_only: true }
    }
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

/// Removes one key, or from a key up to the end of a range.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
}

impl DeleteRequest {
    /// One key.
    pub(super) fn one(key: &str) -> Self {
        Self { key: key.into(), range_end: Vec::new() }
    }
}

/// If all conditions hold `success` is done, otherwise `failure`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<Operation>,
}

/// Every answer says as of when.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "3")]
    pub(super) revision: u64,
    /// Rises with each new leader.
    #[prost(uint64, tag = "4")]
    pub(super) raft_term: u64,
}

/// One key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) create_revision: u64,
    #[prost(uint64, tag = "3")]
    pub(super) mod_revision: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub(super) lease: i64,
}

impl KeyValue {
    /// What comes after `prefix` in the key, when it begins with it and is text.
    pub(super) fn key_after(&self, prefix: &str) -> Option<&str> {
        std::str::from_utf8(&self.key).ok()?.strip_prefix(prefix)
    }
}

/// What a read found.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Range {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
    #[prost(uint64, tag = "4")]
    pub(super) count: u64,
}

/// What a removal removed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Deleted {
    #[prost(uint64, tag = "2")]
    pub(super) deleted: u64,
}

/// The answer to one operation of a transaction.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(oneof = "Response", tags = "1, 2, 3")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Response {
    #[prost(message, tag = "1")]
    Range(Range),
    #[prost(message, tag = "2")]
    Put(Nothing),
    #[prost(message, tag = "3")]
    Delete(Deleted),
}

/// The answer to a transaction.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Txn {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    responses: Vec<Answer>,
}

impl Txn {
    /// As of when; of what was written, when it was.
    pub(super) fn revision(&self) -> u64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }

    /// What the operation at `index`, a read, found.
    pub(super) fn found(&self, index: usize) -> &[KeyValue] {
        match self.responses.get(index).and_then(|answer| answer.response.as_ref()) {
            Some(Response::Range(range)) => &range.kvs,
            _ => &[],
        }
    }

    /// How many keys the operation at `index` removed.
    pub(super) fn deleted(&self, index: usize) -> u64 {
        match self.responses.get(index).and_then(|answer| answer.response.as_ref()) {
            Some(Response::Delete(deleted)) => deleted.deleted,
            _ => 0,
        }
    }
}

/// Makes a lease with an id of our choice.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseGrantRequest {
    /// In seconds.
    #[prost(int64, tag = "1")]
    pub(super) ttl: i64,
    #[prost(int64, tag = "2")]
    pub(super) id: i64,
}

/// Ends a lease, with every key that goes with it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

/// Extends a lease.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

/// The answer to the grant or the extension of a lease. No time to live: the lease is not there.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Lease {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    /// In seconds; may be longer than asked for.
    #[prost(int64, tag = "3")]
    pub(super) ttl: i64,
}

/// An answer of which nobody reads anything.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// Asks for a token.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

/// A token.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Authenticated {
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

/// What may be said on a stream of changes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(uint64, tag = "3")]
    start_revision: u64,
    /// `NOPUT` is 0.
    #[prost(int32, repeated, tag = "5")]
    filters: Vec<i32>,
}

impl WatchRequest {
    /// Follows the removal of keys that begin with `prefix`, from a revision on or (0) from now on.
    pub(super) fn removals_of(prefix: &str, from: u64) -> Self {
        let (key, range_end) = (prefix.into(), end_of(prefix));
        Self { create: Some(WatchCreateRequest { key, range_end, start_revision: from, filters: vec![0] }) }
    }
}

/// One message of a stream of changes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Watched {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(uint64, tag = "5")]
    pub(super) compact_revision: u64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

/// A change of one key. We only ask for removals.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field by field, by the numbers of etcd's own files.
    #[test]
    fn requests_have_etcds_form() {
        let txn = TxnRequest {
            compare: vec![is_absent("k"), written_at("g", 300), has_value("k", "v")],
            success: vec![put("k", "v", 7), delete_of("/a/")],
            failure: vec![range("k")],
        };
        let expected: [&[u8]; 6] = [
            b"\x0a\x07\x10\x01\x1a\x01k\x28\x00",
            b"\x0a\x08\x10\x02\x1a\x01g\x30\xac\x02",
            b"\x0a\x08\x10\x03\x1a\x01k\x3a\x01v",
            b"\x12\x0a\x12\x08\x0a\x01k\x12\x01v\x18\x07",
            b"\x12\x0c\x1a\x0a\x0a\x03/a/\x12\x03/a0",
            b"\x1a\x05\x0a\x03\x0a\x01k",
        ];
        assert_eq!(txn.encode_to_vec(), expected.concat());
        let watch = WatchRequest::removals_of("/a/", 5).encode_to_vec();
        assert_eq!(watch, b"\x0a\x0f\x0a\x03/a/\x12\x03/a0\x18\x05\x2a\x01\x00");
    }

    #[test]
    fn answers_are_read_and_what_is_not_needed_is_passed_over() {
        // A cluster, a member, revision 2, term 3; succeeded; a put; one key in a range, with its version.
        let key = b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x01b\x30\x92\x21";
        let found = [b"\x12\x0f", key.as_slice(), b"\x20\x01"].concat();
        let txn = [
            b"\x0a\x08\x08\x09\x10\x08\x18\x02\x20\x03".as_slice(),
            b"\x10\x01",
            b"\x1a\x06\x12\x04\x0a\x02\x18\x02",
            b"\x1a\x15\x0a\x13",
            &found,
        ];
        let txn = Txn::decode(txn.concat().as_slice()).unwrap();
        assert!(txn.succeeded && txn.revision() == 2 && txn.found(0).is_empty() && txn.deleted(0) == 0);
        let found = &txn.found(1)[0];
        assert_eq!((found.key_after(""), found.value.as_slice(), found.lease), (Some("a"), b"b".as_slice(), 4242));
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it() {
        assert_eq!(end_of("/tooz/locks"), b"/tooz/lockt");
        assert_eq!(end_of("/scoria/"), b"/scoria0");
    }
}
