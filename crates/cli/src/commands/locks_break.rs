//! `scoria locks break`: takes a lock away from whoever holds it.

use std::io::{self, BufRead, IsTerminal, Write};

use scoria_runtime::logging;
use serde_json::json;

use super::locks_at::{Line, Locks, check_name};
use crate::exit::{Exit, Failure, Result};
use crate::output::{Format, print};
use crate::target::Target;

pub(super) async fn run(name: &str, yes: bool, target: &Target) -> Result {
    check_name(name)?;
    let locks = Locks::open(target).await?;
    if matches!(locks, Locks::Service(_)) {
        // Where the services of that configuration log. With --verbose it goes to the terminal already.
        let mut options = scoria_service::log::options(&target.config()?)?;
        // It says the same as we do, without who did it and to whom.
        options.default_levels.push("scoria.coordination=ERROR".to_owned());
        let _ = logging::init(options);
    }
    let broken = with(&locks, name, yes, target.format()).await;
    locks.close().await;
    broken
}

async fn with(locks: &Locks, name: &str, yes: bool, format: Format) -> Result {
    let lock = locks.of(name).await?;
    if lock.holders.is_empty() && lock.tells_of_others {
        return Err(lock.nobody(name));
    }
    if !yes {
        if !confirmed(&warning(name, &lock.holders))? {
            return Err(Failure::failed(format!("lock '{name}' was left as it is")));
        }
        // The answer may have taken its time, and was about the holders of then.
        same_holders(name, &lock.holders, &locks.of(name).await?.holders)?;
    }
    let (by, from) = (operator(), list(&lock.holders));
    if !locks.take_away(name, &by).await? {
        return Err(Failure::not_found(format!("nobody holds lock '{name}'")));
    }
    if matches!(locks, Locks::Service(_)) {
        tracing::warn!(lock = name, by, from, "lock was taken away from its holder");
    }
    match format {
        Format::Json => Format::Json.one(&json!({"name": name, "broken": lock.holders}))?,
        Format::Table => print(&format!("lock '{name}' was taken away from {from}\n"))?,
    }
    Ok(Exit::Done)
}

/// Refuses when it is no longer held by those who were shown.
fn same_holders(name: &str, shown: &[Line], now: &[Line]) -> Result<()> {
    let same = shown.len() == now.len() && shown.iter().all(|one| now.iter().any(|other| one.is(other)));
    match now {
        _ if same => Ok(()),
        [] => Err(Failure::not_found(format!("nobody holds lock '{name}' any more"))),
        _ => Err(Failure::failed(format!(
            "lock '{name}' went to somebody else meanwhile and was left as it is: it is now held by {}",
            list(now)
        ))),
    }
}

/// What it means, before it is done.
fn warning(name: &str, holders: &[Line]) -> String {
    let peer = holders.is_empty() || holders.iter().any(|holder| holder.operation.is_empty());
    let then = match peer {
        true => "A holder that is a Python service does not notice, and works on beside the next one",
        false => "Work under it stops as soon as that is noticed",
    };
    format!("Lock '{name}' is held by {}. {then}.", list(holders))
}

/// In words. They come from the lock service, where others have written them: what would steer a terminal is shown, not obeyed.
fn list(holders: &[Line]) -> String {
    if holders.is_empty() {
        return "somebody whom the lock service does not name".to_owned();
    }
    let described: Vec<_> = holders.iter().map(Line::describe).collect();
    described.join("; ").replace(char::is_control, "\u{fffd}")
}

/// Asks on the terminal.
fn confirmed(warning: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{warning} There is no terminal to ask on: add --yes if it is to be broken"
        )));
    }
    let failed = |error: io::Error| Failure::failed(format!("cannot ask on the terminal: {error}"));
    let mut out = io::stderr().lock();
    write!(out, "{warning}\nBreak it? [y/N] ").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Who does it, for the log: `user@host`.
fn operator() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    let host = nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |host| host.to_string_lossy().into_owned());
    format!("{user}@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(operation: &str) -> Line {
        let line =
            json!({"name": "x", "mode": "exclusive", "held": true, "instance": "i\u{1b}[2J", "operation": operation});
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn the_warning_says_who_would_not_notice_and_does_not_steer_the_terminal() {
        let ours = warning("x", &[holder("delete_volume")]);
        assert!(
            ours.contains("i\u{fffd}[2J, operation delete_volume") && ours.contains("as soon as that is noticed"),
            "{ours}"
        );
        for peer in [warning("x", &[]), warning("x", &[holder("delete_volume"), holder("")])] {
            assert!(peer.contains("a Python service does not notice"), "{peer}");
        }
    }

    #[test]
    fn only_the_same_holders_are_the_same() {
        let one = || holder("delete_volume");
        assert!(same_holders("x", &[one()], &[one()]).is_ok());
        assert_eq!(same_holders("x", &[one()], &[]).unwrap_err().exit, Exit::NotFound);
        for now in [vec![holder("extend_volume")], vec![one(), one()], vec![Line { token: Some(1), ..one() }]] {
            assert_eq!(same_holders("x", &[one()], &now).unwrap_err().exit, Exit::Failed);
        }
    }
}
