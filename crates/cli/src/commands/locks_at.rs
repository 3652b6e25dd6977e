//! The locks to look at: those of a configuration's lock service, or those of a running service, asked at its admin port.

use std::time::{Duration, Instant};

use reqwest::Method;
use scoria_conf::Config;
use scoria_coordination::{Coordinator, Error, Health, Holder, Listing, LockRequest, Owner, PREFIX, WaitPolicy};
use scoria_model::Timestamp;
use scoria_runtime::Deadline;
use scoria_service::parts;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure, Result};
use crate::target::{ADMIN, Target};

/// How long one question to the admin port waits for a lock; the admin port itself waits no longer than a minute.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long a lock service may take to be reached: whoever sits and waits wants to be told that it is not there.
const REACH: Duration = Duration::from_secs(5);
/// How often to look whether it has been reached.
const LOOK: Duration = Duration::from_millis(5);

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

/// Everybody who holds or waits.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) lines: Vec<Line>,
    /// Whether the lock service tells of others than those who are asked.
    pub(super) tells_of_others: bool,
}

/// The same as the admin port shows it.
#[derive(Debug, Deserialize)]
struct Shown {
    locks: Vec<Line>,
    listing: String,
}

/// Who holds one lock and who waits for it.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) holders: Vec<Line>,
    pub(super) waiters: Vec<Line>,
    /// Whether the lock service would tell of others who hold it.
    pub(super) tells_of_others: bool,
}

/// Why a list without a lock says nothing about it.
pub(super) const SILENT: &str = "this lock service does not tell who holds its locks: ask the volume services themselves, each at its \
                                 admin port with --admin URL";

impl Lock {
    /// Nobody is known to hold it; exit code 3 where that means that nobody does.
    pub(super) fn nobody(&self, name: &str) -> Failure {
        match self.tells_of_others {
            true => Failure::not_found(format!("nobody holds lock '{name}' or waits for it")),
            false => Failure::failed(format!("nobody is known to hold lock '{name}', but {SILENT}")),
        }
    }
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

/// The lock service of a configuration, once it has been reached.
pub(super) async fn service(config: &Config) -> Result<Coordinator> {
    let locks = parts::coordinator(config).await?;
    let limit = Deadline::after(REACH);
    while let Health::Down(why) = locks.health() {
        if limit.has_passed() {
            locks.close().await;
            let seconds = REACH.as_secs();
            return Err(Failure::unavailable(format!(
                "the lock service of [coordination] backend_url was not reached within {seconds} s: {why}; see that it runs and that \
                 the URL is right"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(locks)
}

impl Locks {
    /// What the command line names, else the service at the admin port when it answers, else the lock service of this machine's
    /// configuration.
    pub(super) async fn open(target: &Target) -> Result<Self> {
        if target.names_admin() {
            return Ok(Self::Admin(target.admin()?));
        }
        if !target.names_config() {
            let admin = target.admin()?;
            if admin.answers().await {
                return Ok(Self::Admin(admin));
            }
            if target.load_args().files()?.is_empty() {
                return Err(Failure::unavailable(format!(
                    "nothing answers at {ADMIN}: start scoria-volume, or name the admin port of another one with --admin URL \
                     or a configuration with --config-file PATH"
                )));
            }
        }
        let config = target.config()?;
        if in_one_process(&config) {
            return Ok(Self::Admin(target.admin_of(&config)?));
        }
        Ok(Self::Service(service(&config).await?))
    }

    pub(super) async fn close(self) {
        if let Self::Service(locks) = self {
            locks.close().await;
        }
    }

    /// Everybody who holds or waits.
    pub(super) async fn list(&self) -> Result<Listed> {
        match self {
            Self::Service(locks) => {
                let lines = locks.holders().await?.into_iter().map(Line::from).collect();
                Ok(Listed { lines, tells_of_others: locks.features().listing != Listing::Own })
            }
            Self::Admin(admin) => {
                let Shown { locks, listing } = admin.get_whole("/v1/locks").await?;
                Ok(Listed { lines: locks, tells_of_others: listing != "own" })
            }
        }
    }

    /// Who holds one lock and who waits for it.
    pub(super) async fn of(&self, name: &str) -> Result<Lock> {
        let Listed { lines, tells_of_others } = self.list().await?;
        let (holders, waiters) = lines.into_iter().filter(|line| line.name == name).partition(|line| line.held);
        Ok(Lock { holders, waiters, tells_of_others })
    }

    /// Until the lock was free; exit code 73 when it was not in time. It is taken and given back at once: no lock service has a
    /// better proof, and those that wake their waiters need not be asked again and again.
    pub(super) async fn until_free(&self, name: &str, limit: Option<Duration>) -> Result<()> {
        match self {
            Self::Service(locks) => {
                let until = WaitPolicy::Until(limit.map_or(Deadline::NEVER, Deadline::after));
                let owner = Owner { operation: "locks wait".to_owned(), ..Owner::default() };
                let request = LockRequest::new(owner).exclusive(name).wait(until);
                let lock = locks.acquire(request).await.map_err(|error| in_time(error, WAIT_OPTION))?;
                match lock.release().await {
                    // Whoever has it now, it was free.
                    Ok(()) | Err(Error::Lost { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
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

    /// Takes the lock away from its holders. False when nobody held it any more.
    pub(super) async fn take_away(&self, name: &str, by: &str) -> Result<bool> {
        match self {
            Self::Service(locks) => Ok(locks.break_lock(name).await?),
            Self::Admin(admin) => {
                let path = format!("/v1/locks/{}?confirm=yes&by={}", in_path(name), in_path(by));
                match admin.send(Method::DELETE, &path, None).await {
                    Ok(()) => Ok(true),
                    Err(nobody) if nobody.exit == Exit::NotFound => Ok(false),
                    Err(failure) => Err(failure),
                }
            }
        }
    }
}

/// The option of `locks wait` that limits the wait.
const WAIT_OPTION: &str = "--timeout";

/// A lock that could not be had is exit code 73; `option` would wait for it longer.
pub(super) fn in_time(error: Error, option: &str) -> Failure {
    match error {
        Error::Busy { .. } => Failure::new(Exit::LockBusy, format!("{error}: {}", longer(option))),
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

    /// With what is easier to read: its state in a word, and the time from when on it has held or waited, as far as that is known.
    pub(super) fn shown(&self) -> Result<Value> {
        let mut shown =
            serde_json::to_value(self).map_err(|error| Failure::failed(format!("cannot be shown: {error}")))?;
        shown["state"] = if self.held { "held" } else { "waiting" }.into();
        shown["since"] = match self.seconds {
            // A time of that length is no holder's, and a cut one does no harm.
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough")]
            Some(seconds) => Timestamp::now().plus_seconds(-(seconds as i64)).to_object().into(),
            None => Value::Null,
        };
        Ok(shown)
    }

    /// Whether this is still the same holding of the same lock.
    pub(super) fn is(&self, other: &Self) -> bool {
        let who = |line: &Self| (line.instance.clone(), line.operation.clone(), line.request_id.clone(), line.token);
        who(self) == who(other)
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
