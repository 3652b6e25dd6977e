//! Who holds and who waits, everywhere.

use std::time::Duration;

use redis::Pipeline;

use crate::{Error, Holder, Mode, Owner};

use super::connection::Connection;
use super::keys::{Details, HOLDER, LOCK, WAITERS};
use super::store::RedisStore;

/// How many keys the server looks at in one step of a search.
const STEP: usize = 1000;

/// Every record of the namespace, with the details that Scoria's instances leave beside it, and everybody in line.
pub(super) async fn list(store: &RedisStore) -> Result<Vec<Holder>, Error> {
    let connection = store.link.current()?;
    let mut found = Vec::new();
    let locks = search(&connection, &store.keys.pattern(LOCK)).await?;
    let names: Vec<_> = locks.iter().filter_map(|key| store.keys.name(key, LOCK)).collect();
    let complete = |name: &str, end: &str| store.keys.of(&format!("{}{name}", crate::PREFIX), end);
    for some in names.chunks(STEP) {
        let mut commands = Pipeline::new();
        commands.cmd("TIME");
        for name in some {
            commands.cmd("GET").arg(complete(name, LOCK)).cmd("GET").arg(complete(name, HOLDER));
        }
        let mut answers: Vec<redis::Value> = connection.ask_all(commands).await?;
        let now = server_time(answers.remove(0));
        for (name, pair) in some.iter().zip(answers.chunks(2)) {
            let text = |value: &redis::Value| redis::from_redis_value::<Option<String>>(value.clone()).ok().flatten();
            // What has ended since the search is no holder.
            if let Some(claim) = text(&pair[0]) {
                let details = text(&pair[1]);
                let details = details.as_deref().and_then(|details| details.strip_prefix(&claim));
                found.push(details.and_then(|details| ours(name, details, now)).unwrap_or_else(|| peer(name)));
            }
        }
    }
    let queues = search(&connection, &store.keys.pattern(WAITERS)).await?;
    for (key, name) in queues.iter().filter_map(|key| Some((key, store.keys.name(key, WAITERS)?))) {
        let mut commands = Pipeline::new();
        commands.cmd("TIME");
        commands.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES");
        let (time, waiters): (redis::Value, Vec<(String, f64)>) = connection.ask_all(commands).await?;
        let now = server_time(time);
        for (member, since) in waiters {
            // `CLAIM TTL DETAILS`, see `record.lua`.
            let details = member.splitn(3, ' ').nth(2);
            let details = details.and_then(|details| serde_json::from_str::<Details<'_>>(details).ok());
            let waiter = details.map(|details| details.holder(name, false));
            let since = now.map(|now| Duration::from_micros(now.saturating_sub(since as u64)));
            found.extend(waiter.map(|waiter| Holder { since, ..waiter }));
        }
    }
    Ok(found)
}

async fn search(connection: &Connection, pattern: &str) -> Result<Vec<String>, Error> {
    let (mut at, mut found) = (0_u64, Vec::new());
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(at).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
        let (next, keys): (u64, Vec<String>) = connection.ask(command).await?;
        found.extend(keys);
        if next == 0 {
            // A search may find a key more than once.
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
        at = next;
    }
}

fn server_time(value: redis::Value) -> Option<u64> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(value).ok()?;
    Some(seconds * 1_000_000 + micros)
}

/// ` TOKEN SINCE DETAILS`, as `record.lua` writes it after the claim.
fn ours(name: &str, details: &str, now: Option<u64>) -> Option<Holder> {
    let mut parts = details.trim_start().splitn(3, ' ');
    let (token, since, details) = (parts.next()?, parts.next()?, parts.next()?);
    let details: Details<'_> = serde_json::from_str(details).ok()?;
    let since = Duration::from_micros(now?.saturating_sub(since.parse().ok()?));
    Some(Holder { since: Some(since), token: token.parse().ok(), ..details.holder(name, true) })
}

/// A record without details. tooz writes nothing into it that would name its holder.
fn peer(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        mode: Mode::Exclusive,
        held: true,
        instance: "a Python peer".to_owned(),
        host: None,
        owner: Owner::default(),
        since: None,
        token: None,
    }
}
