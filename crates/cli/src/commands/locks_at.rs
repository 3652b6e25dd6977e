//! The locks to look at: those of a configuration's lock service, or those of a running service, asked at its admin port.

use std::time::{Duration, Instant};

use reqwest::Method;
use scoria_conf::Config;
use scoria_coordination::{Coordinator, Holder, Listing, LockRequest, Owner, PREFIX, WaitPolicy};
use scoria_model::Timestamp;
use scoria_runtime::Deadline;
use scoria_service::parts;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure, Result};
use crate::target::Target;

/// How long one question to the admin port waits for a lock; the admin port itself waits no longer than a minute.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Where locks are asked for.
pub(super) enum Locks {
    /// The lock service itself.
    Service(Coordinator),
    /// The admin port of a service.
    Admin(crate::endpoint::Endpoint),
}

/// A holder or waiter, as the admin port shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) held: bool,
    pub(super) instance: String,
    pub(super) host: Option<String>,
    pub(super) operation: String,
    pub(super) request_id: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) seconds: Option<f64>,
    pub(super) token: Option<u64>,
}

/// Who holds one lock and who waits for it.
#[derive(Debug, Deserialize)]
pub(super) struct Lock {
    pub(super) holders: Vec<Line>,
    pub(super) waiters: Vec<Line>,
    listing: String,
}

/// A lock name as it was typed.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.starts_with(PREFIX) {
        return Err(Failure::usage(format!(
            "give the name of the lock without '{PREFIX}': it is put before every name"
        )));
    }
    Ok(())
}

/// Whether the locks of this configuration exist within its service only.
pub(super) fn in_one_process(config: &Config) -> bool {
    config.coordination.backend_url.expose_secret().starts_with("memory:")
}

/// The lock service of a configuration.
pub(super) async fn service(config: &Config) -> Result<Coordinator> {
    Ok(parts::coordinator(config).await?)
}

impl Locks {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        if target.asks_admin() {
            return Ok(Self::Admin(target.admin()?));
        }
        let config = target.config()?;
        if in_one_process(&config) {
            return Ok(Self::Admin(target.admin()?));
        }
        Ok(Self::Service(service(&config).await?))
    }

    pub(super) async fn close(self) {
        if let Self::Service(locks) = self {
            locks.close().await;
        }
    }

    /// Everybody who holds or waits.
    pub(super) async fn list(&self) -> Result<Vec<Line>> {
        match self {
            Self::Service(locks) => Ok(locks.holders().await?.into_iter().map(Line::from).collect()),
            Self::Admin(admin) => admin.get("/v1/locks", "locks").await,
        }
    }

    /// Who holds one lock and who waits for it; exit code 3 when nobody does.
    pub(super) async fn of(&self, name: &str) -> Result<Lock> {
        let locks = match self {
            Self::Admin(admin) => return admin.get(&format!("/v1/locks/{}", in_path(name)), "lock").await,
            Self::Service(locks) => locks,
        };
        let named = self.list().await?.into_iter().filter(|line| line.name == name);
        let (holders, waiters): (Vec<_>, Vec<_>) = named.partition(|line| line.held);
        let own = locks.features().listing == Listing::Own;
        if holders.is_empty() && waiters.is_empty() {
            return Err(Failure::not_found(match own {
                true => format!(
                    "this lock service does not tell who holds lock '{name}': ask the services, each at its admin port, \
                     with --admin URL"
                ),
                false => format!("nobody holds lock '{name}' or waits for it"),
            }));
        }
        Ok(Lock { holders, waiters, listing: if own { "own" } else { "all" }.to_owned() })
    }

    /// Until the lock was free; exit code 73 when it was not in time. It is taken and given back at once: no lock service has a
    /// better proof, and those that wake their waiters need not be asked again and again.
    pub(super) async fn until_free(&self, name: &str, limit: Option<Duration>) -> Result<()> {
        match self {
            Self::Service(locks) => {
                let until = WaitPolicy::Until(limit.map_or(Deadline::NEVER, Deadline::after));
                let owner = Owner { operation: "scoria locks wait".to_owned(), ..Owner::default() };
                let request = LockRequest::new(owner).exclusive(name).wait(until);
                Ok(locks.acquire(request).await.map_err(|error| in_time(error, WAIT_OPTION))?.release().await?)
            }
            Self::Admin(admin) => {
                let end = limit.and_then(|limit| Instant::now().checked_add(limit));
                loop {
                    let left = end.map_or(ASK_AGAIN, |end| end.saturating_duration_since(Instant::now()));
                    let seconds = left.min(ASK_AGAIN).as_secs_f64();
                    let path = format!("/v1/locks/{}/wait?seconds={seconds}", in_path(name));
                    match admin.send(Method::POST, &path, None).await {
                        Err(busy) if busy.exit == Exit::LockBusy && (end.is_none() || left > ASK_AGAIN) => {}
                        Err(busy) if busy.exit == Exit::LockBusy => {
                            return Err(Failure::new(Exit::LockBusy, format!("{busy}: {}", longer(WAIT_OPTION))));
                        }
                        done => return done,
                    }
                }
            }
        }
    }

    /// Takes the lock away from its holders; whom it was taken from.
    pub(super) async fn take_away(&self, name: &str, by: &str) -> Result<Vec<Line>> {
        match self {
            Self::Service(locks) => {
                let mut lines = self.list().await?;
                lines.retain(|line| line.held && line.name == name);
                if !locks.break_lock(name).await? {
                    return Err(Failure::not_found(format!("nobody holds lock '{name}' any more")));
                }
                Ok(lines)
            }
            Self::Admin(admin) => {
                let path = format!("/v1/locks/{}?confirm=yes&by={}", in_path(name), in_path(by));
                admin.delete(&path, "broken").await
            }
        }
    }
}

impl Lock {
    /// Whether somebody may hold it of whom the lock service does not tell.
    pub(super) fn tells_all_holders(&self) -> bool {
        self.listing != "own"
    }
}

/// The option of `locks wait` that limits the wait.
const WAIT_OPTION: &str = "--timeout";

/// A lock that could not be had is exit code 73; `option` would wait for it longer.
pub(super) fn in_time(error: scoria_coordination::Error, option: &str) -> Failure {
    match error {
        scoria_coordination::Error::Busy { .. } => Failure::new(Exit::LockBusy, format!("{error}: {}", longer(option))),
        other => other.into(),
    }
}

fn longer(option: &str) -> String {
    format!("try again later, or wait longer with {option} SECONDS")
}

/// A name as a part of a URL: nothing in it steers the URL.
fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Line {
    /// In words.
    pub(super) fn describe(&self) -> String {
        let mut text = self.instance.clone();
        let operation = Some(self.operation.as_str()).filter(|operation| !operation.is_empty());
        for (what, value) in [
            ("host", self.host.as_deref()),
            ("operation", operation),
            ("request", self.request_id.as_deref()),
            ("resource", self.resource.as_deref()),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(", {what} {value}"));
            }
        }
        text
    }

    /// With the time from when on it has held or waited, as far as that is known.
    pub(super) fn with_since(&self) -> Result<Value> {
        let mut shown =
            serde_json::to_value(self).map_err(|error| Failure::failed(format!("cannot be shown: {error}")))?;
        shown["since"] = match self.seconds {
            // A time of that length is no holder's, and a cut one does no harm.
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough")]
            Some(seconds) => Timestamp::now().plus_seconds(-(seconds as i64)).to_object().into(),
            None => Value::Null,
        };
        Ok(shown)
    }
}

impl From<Holder> for Line {
    fn from(holder: Holder) -> Self {
        Self {
            name: holder.name,
            mode: holder.mode.as_str().to_owned(),
            held: holder.held,
            instance: holder.instance,
            host: holder.host,
            operation: holder.owner.operation,
            request_id: holder.owner.request_id,
            resource: holder.owner.resource,
            seconds: holder.since.map(|since| since.as_secs_f64()),
            token: holder.token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_url() {
        assert_eq!(in_path("3f2b-delete_volume"), "3f2b-delete_volume");
        assert_eq!(in_path("a/../b?c=d&e#f %"), "a%2F..%2Fb%3Fc%3Dd%26e%23f%20%25");
    }
}
