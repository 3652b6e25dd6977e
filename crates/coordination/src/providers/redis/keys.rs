//! What the keys of a lock are called, and what is in those that tooz does not know.

use redis::ScriptInvocation;
use serde::{Deserialize, Serialize};

use crate::name::{PREFIX, bare};
use crate::{Holder, Mode, Owner};

/// End of the key that tooz knows: `_tooz_cinder-…_lock`.
pub(super) const LOCK: &str = "_lock";
/// End of the key with the holder's details.
pub(super) const HOLDER: &str = "_holder";
/// End of the key with those who wait.
pub(super) const WAITERS: &str = "_waiters";

/// Names of keys in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    namespace: String,
}

impl Keys {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    pub(super) fn of(&self, name: &str, end: &str) -> String {
        format!("{}_{name}{end}", self.namespace)
    }

    /// Hands the keys of a lock to a script, as `common.lua` expects them.
    pub(super) fn give<'a>(&self, script: &mut ScriptInvocation<'a>, name: &str) {
        for end in [LOCK, HOLDER, WAITERS, "_room", "_run"] {
            script.key(self.of(name, end));
        }
        script.key(format!("{}_scoria_token", self.namespace));
    }

    /// Before the name of an instance: where it is told what concerns its claims.
    pub(super) fn channel(&self) -> String {
        format!("{}_scoria_wake:", self.namespace)
    }

    /// A pattern of all keys of locks with this end.
    pub(super) fn pattern(&self, end: &str) -> String {
        let mut pattern = String::new();
        for c in self.namespace.chars() {
            if "*?[]^\\".contains(c) {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        format!("{pattern}_{PREFIX}*{end}")
    }

    /// The lock's name in a key, without the prefix.
    pub(super) fn name<'a>(&self, key: &'a str, end: &str) -> Option<&'a str> {
        let name = key.strip_prefix(self.namespace.as_str())?.strip_prefix('_')?.strip_suffix(end)?;
        name.starts_with(PREFIX).then(|| bare(name))
    }
}

/// Who holds or waits, as it stands in the details.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Details {
    pub(super) instance: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    host: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    resource: Option<String>,
}

impl Details {
    pub(super) fn new(instance: &str, host: Option<&str>, owner: &Owner) -> Self {
        Self {
            instance: instance.to_owned(),
            host: host.map(str::to_owned),
            operation: owner.operation.clone(),
            request_id: owner.request_id.clone(),
            resource: owner.resource.clone(),
        }
    }

    /// A line of the list.
    pub(super) fn holder(self, name: &str, held: bool) -> Holder {
        Holder {
            name: name.to_owned(),
            mode: Mode::Exclusive,
            held,
            instance: self.instance,
            host: self.host,
            owner: Owner { operation: self.operation, request_id: self.request_id, resource: self.resource },
            since: None,
            token: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tooz_own() {
        let keys = Keys::new("_tooz");
        assert_eq!(keys.of("cinder-3f2b-delete_volume", LOCK), "_tooz_cinder-3f2b-delete_volume_lock");
        assert_eq!(keys.name("_tooz_cinder-a_lock", LOCK), Some("a"));
        assert_eq!(keys.name("_tooz_leader_of_x_lock", LOCK), None);
        assert_eq!(Keys::new("a*").pattern(LOCK), "a\\*_cinder-*_lock");
    }
}
