//! Who holds, in words: what a key of ours says beside that it is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::name::bare;
use crate::{Holder, Mode, Owner};

/// The value of a key, as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    /// Milliseconds since 1970, by the clock of the host.
    since: u64,
}

impl Details {
    /// Of a wish.
    pub(super) fn new(instance: &str, mode: Mode, owner: &Owner, since: Instant) -> Self {
        Self {
            instance: instance.to_owned(),
            host: nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()),
            shared: mode == Mode::Shared,
            operation: owner.operation.clone(),
            request_id: owner.request_id.clone(),
            resource: owner.resource.clone(),
            since: u64::try_from(now().saturating_sub(since.elapsed()).as_millis()).unwrap_or_default(),
        }
    }

    /// Of a holder of whom nothing else is known than what to call it.
    pub(super) fn of_peer(called: String) -> Self {
        Self { instance: called, ..Self::default() }
    }

    /// From the value of a key. Something else than ours says nothing but that it is there.
    pub(super) fn read(value: &[u8]) -> Self {
        serde_json::from_slice(value).unwrap_or_default()
    }

    /// As the value of a key.
    pub(super) fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers can always be written as JSON")
    }

    /// Whoever cannot say otherwise is alone.
    pub(super) fn mode(&self) -> Mode {
        if self.shared { Mode::Shared } else { Mode::Exclusive }
    }

    /// A line of the list of holders; `name` is complete.
    pub(super) fn holder(self, name: &str, held: bool, token: u64) -> Holder {
        let since = (self.since > 0).then(|| now().saturating_sub(Duration::from_millis(self.since)));
        Holder {
            name: bare(name).to_owned(),
            mode: self.mode(),
            held,
            instance: self.instance,
            host: self.host,
            owner: Owner { operation: self.operation, request_id: self.request_id, resource: self.resource },
            since,
            token: Some(token),
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_were_written_and_nonsense_is_an_exclusive_stranger() {
        let owner = Owner { operation: "delete_volume".into(), request_id: Some("req-1".into()), resource: None };
        let details = Details::new("one", Mode::Shared, &owner, Instant::now());
        let holder = Details::read(&details.written()).holder("cinder-a", true, 7);
        assert_eq!((holder.name.as_str(), holder.mode, holder.instance.as_str()), ("a", Mode::Shared, "one"));
        assert_eq!((holder.owner, holder.token), (owner, Some(7)));
        assert!(holder.since.unwrap() < Duration::from_secs(60));
        let stranger = Details::read(b"\xff{}").holder("x", true, 1);
        assert_eq!((stranger.mode, stranger.since), (Mode::Exclusive, None));
    }
}
