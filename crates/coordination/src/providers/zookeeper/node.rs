//! The names of contenders and what is written in them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::providers::queued::{Contender, Ticket};
use crate::{Holder, Mode, Owner};

/// What kazoo's contenders have before the number (`kazoo/recipe/lock.py: Lock._NODE_NAME`).
const KAZOO: &str = "__lock__";
/// What Curator's and Go's have.
const CURATOR: &str = "-lock-";
/// What ours have before [`KAZOO`] when they want to share.
const READER: &str = "-r";
/// The number that the servers give the first child of a node (`%010d` of how many were made in it).
pub(super) const FIRST: &str = "0000000000";
/// Above every number that has wrapped round to negative.
const POSITIVE: u64 = 1 << 32;

/// What a contender for this wish is called, up to the number that the server adds.
pub(super) fn prefix(ticket: &Ticket) -> String {
    let reader = if ticket.mode == Mode::Shared { READER } else { "" };
    format!("{}{reader}{KAZOO}", ticket.id)
}

/// A contender by the name of its node; `None` for anything else.
pub(super) fn contender(node: &str) -> Option<Contender> {
    let split = node.len().checked_sub(10).filter(|at| node.is_char_boundary(*at))?;
    let (before, digits) = node.split_at(split);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    // kazoo compares the numbers as text, so the negative ones that follow the highest come first.
    let known = |before: &str| before.ends_with(KAZOO) || before.ends_with(CURATOR);
    let (before, order) = match before.strip_suffix('-') {
        _ if known(before) => (before, POSITIVE + number),
        Some(before) if known(before) => (before, number),
        _ => return None,
    };
    let reader = before.strip_suffix(KAZOO).is_some_and(|id| id.ends_with(READER));
    let mode = if reader { Mode::Shared } else { Mode::Exclusive };
    Some(Contender { node: node.to_owned(), order, mode, token: None })
}

/// The contenders among the children of a lock, in order.
pub(super) fn queue(children: Vec<String>) -> Vec<Contender> {
    let mut queue: Vec<_> = children.iter().filter_map(|child| contender(child)).collect();
    queue.sort_by_key(|contender| contender.order);
    queue
}

/// What stands in a node of ours after the instance.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
}

/// The data of a node: the instance, as tooz writes its member id, then a blank and for whom.
pub(super) fn data(instance: &str, host: Option<&str>, owner: &Owner) -> Vec<u8> {
    let Owner { operation, request_id, resource } = owner.clone();
    let details = Details { host: host.map(str::to_owned), operation, request_id, resource };
    let details = serde_json::to_string(&details).expect("text as JSON");
    format!("{instance} {details}").into_bytes()
}

/// A line of the list of holders. `made` is the server's time of the node's creation, in milliseconds since 1970.
pub(super) fn holder(name: &str, contender: &Contender, held: bool, data: &[u8], made: i64) -> Holder {
    let data = String::from_utf8_lossy(data);
    let (instance, details) = data.split_once(" {").map_or((&*data, None), |(instance, rest)| (instance, Some(rest)));
    let details = details.and_then(|rest| serde_json::from_str::<Details>(&format!("{{{rest}")).ok());
    let Details { host, operation, request_id, resource } = details.unwrap_or_default();
    let made = SystemTime::UNIX_EPOCH + Duration::from_millis(made.max(0).cast_unsigned());
    Holder {
        name: name.to_owned(),
        mode: contender.mode,
        held,
        instance: instance.to_owned(),
        host,
        owner: Owner { operation, request_id, resource },
        // The clocks may differ by a little.
        since: Some(made.elapsed().unwrap_or_default()),
        token: contender.token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_told_from_anything_else() {
        for (node, mode) in [
            ("0a__lock__0000000007", Mode::Exclusive),
            ("0a-r__lock__0000000007", Mode::Shared),
            ("_c_9f-lock-0000000007", Mode::Exclusive),
            ("-r-lock-0000000007", Mode::Exclusive),
        ] {
            let found = contender(node).unwrap();
            assert_eq!((found.order, found.mode, found.node.as_str()), (POSITIVE + 7, mode, node));
        }
        for other in [
            "",
            "7",
            "0a__rlock__0000000007",
            "0a__lock__",
            "0a__lock__000000007",
            "0a__lock__00000000x7",
            "ä__lock__é000000007",
        ] {
            assert_eq!(contender(other), None, "{other}");
        }
    }

    #[test]
    fn the_order_is_kazoos_which_compares_text() {
        let texts =
            ["2147483646", "2147483647", "-2147483648", "-2147483647", "0000000000", "0000000009", "0000000010"];
        let mut ours: Vec<_> = texts.iter().map(|text| contender(&format!("x__lock__{text}")).unwrap()).collect();
        ours.sort_by_key(|contender| contender.order);
        let mut kazoos = texts.map(|text| format!("x__lock__{text}"));
        kazoos.sort();
        assert_eq!(ours.into_iter().map(|contender| contender.node).collect::<Vec<_>>(), kazoos);
    }

    #[test]
    fn what_is_written_is_read_and_a_peers_data_is_its_name() {
        let owner = Owner { operation: "delete".into(), request_id: Some("req-1".into()), resource: None };
        let data = data("cinder-1", Some("host"), &owner);
        assert_eq!(data, br#"cinder-1 {"host":"host","operation":"delete","request_id":"req-1"}"#);
        let place = contender("0a__lock__0000000007").unwrap();
        let read = holder("a", &place, true, &data, 0);
        assert_eq!((read.instance.as_str(), read.host.as_deref(), &read.owner), ("cinder-1", Some("host"), &owner));
        for peer in ["cinder-python", "odd {", ""] {
            let read = holder("a", &place, false, peer.as_bytes(), i64::MAX);
            assert_eq!(read.instance, peer.trim_end_matches(" {"));
        }
    }
}
