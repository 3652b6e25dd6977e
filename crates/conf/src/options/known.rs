//! The options of Cinder that Scoria does not use: of other services, other drivers, other parts of OpenStack. They are
//! accepted, and `config check` can tell them from misspelt ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// `group name` lines, read from what Cinder 29.0.0 and its libraries register (`tests/oslo_peer.rs` compares).
static NAMES: LazyLock<BTreeMap<&'static str, BTreeSet<&'static str>>> = LazyLock::new(|| {
    let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (group, name) in include_str!("known.txt").lines().filter_map(|line| line.split_once(' ')) {
        groups.entry(group).or_default().insert(name);
    }
    groups
});

/// Whether Cinder knows an option of that name in that group (`backend_defaults` for those of back ends).
#[must_use]
pub fn is_known(group: &str, name: &str) -> bool {
    NAMES.get(group).is_some_and(|names| names.contains(name))
}

/// The names that Cinder knows in a group; `None` when there is no such group.
#[must_use]
pub fn known_names(group: &str) -> Option<&'static BTreeSet<&'static str>> {
    NAMES.get(group)
}
