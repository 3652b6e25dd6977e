//! What the keys of a lock are called, and what is in those that tooz does not know.

use std::borrow::Cow;

use redis::{Cmd, RedisWrite};
use serde::{Deserialize, Serialize};

use crate::name::{PREFIX, bare};
use crate::{Holder, Mode, Owner};

/// End of the key that tooz knows: `_tooz_cinder-…_lock`.
pub(super) const LOCK: &str = "_lock";
/// End of the key with the holder's details.
pub(super) const HOLDER: &str = "_holder";
/// End of the key with those who wait.
pub(super) const WAITERS: &str = "_waiters";
/// Those of one lock, in the order of `record.lua`.
const OF_A_LOCK: [&str; 5] = [LOCK, HOLDER, WAITERS, "_room", "_run"];

/// Names of keys in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    namespace: String,
    /// The counter of fencing tokens.
    token: String,
    /// Before the name of an instance: where it is told what concerns its claims.
    pub(super) channel: String,
}

impl Keys {
    /// How many [`Keys::give`] gives.
    pub(super) const GIVEN: usize = OF_A_LOCK.len() + 1;

    pub(super) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            token: format!("{namespace}_scoria_token"),
            channel: format!("{namespace}_scoria_wake:"),
        }
    }

    pub(super) fn of(&self, name: &str, end: &str) -> String {
        format!("{}_{name}{end}", self.namespace)
    }

    /// Hands the keys of a lock to a script, as `record.lua` expects them.
    pub(super) fn give(&self, call: &mut Cmd, name: &str) {
        for end in OF_A_LOCK {
            call.write_arg_fmt(format_args!("{}_{name}{end}", self.namespace));
        }
        call.arg(&self.token);
    }

    /// At least as many bytes as the keys of a lock have.
    pub(super) fn bytes(&self, name: &str) -> usize {
        Self::GIVEN * (self.token.len() + name.len())
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
pub(super) struct Details<'a> {
    pub(super) instance: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "str::is_empty", default)]
    operation: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    request_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    resource: Option<Cow<'a, str>>,
}

impl<'a> Details<'a> {
    pub(super) fn new(instance: &'a str, host: Option<&'a str>, owner: &'a Owner) -> Self {
        Self {
            instance: instance.into(),
            host: host.map(Into::into),
            operation: owner.operation.as_str().into(),
            request_id: owner.request_id.as_deref().map(Into::into),
            resource: owner.resource.as_deref().map(Into::into),
        }
    }

    /// A line of the list.
    pub(super) fn holder(self, name: &str, held: bool) -> Holder {
        Holder {
            name: name.to_owned(),
            mode: Mode::Exclusive,
            held,
            instance: self.instance.into_owned(),
            host: self.host.map(Cow::into_owned),
            owner: Owner {
                operation: self.operation.into_owned(),
                request_id: self.request_id.map(Cow::into_owned),
                resource: self.resource.map(Cow::into_owned),
            },
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
