//! PostgreSQL: those who wait for a lock stand in line in its row, and whoever gives it back hands it on with the same statement.
//!
//! Everything that happens to a line happens under the lock of the row, so nobody is missed, and nobody is handed a lock that has
//! left the line before.

use std::time::Duration;

use scoria_model::LockWish;
use sea_query::Value;

use crate::lock_rows::{CLOCK, details, micros, string, token};

/// PostgreSQL's channel for locks that were handed on.
pub(crate) const CHANNEL: &str = "scoria_locks";

/// How long a waiter keeps its place without asking again, at most. One that is dead by then is handed nothing.
const PLACE: Duration = Duration::from_secs(3);

/// Last in each line: nobody.
const NOBODY: &str =
    r#"{"": {"since": 9223372036854775807, "until": 9223372036854775807, "life": 0, "instance": "", "operation": ""}}"#;

/// `others`: in the row that `taken` has locked and not taken, the wish stands in line, or keeps its place. It answers with the
/// lease of the holder; with none, if the row was made in the same moment.
pub(crate) fn line_up(wish: &LockWish, life: Duration) -> (String, Vec<Value>) {
    let sql = "others AS (UPDATE scoria_locks SET waiting = COALESCE(waiting, '{}') || jsonb_build_object(CAST(? AS TEXT), \
               jsonb_build_object('since', COALESCE(waiting -> CAST(? AS TEXT) -> 'since', to_jsonb({now})), \
               'until', {now} + ?, 'life', CAST(? AS BIGINT), 'instance', CAST(? AS TEXT), 'host', CAST(? AS TEXT), \
               'operation', CAST(? AS TEXT), 'request_id', CAST(? AS TEXT), 'resource', CAST(? AS TEXT))) \
               WHERE name = ? AND NOT EXISTS (SELECT 1 FROM taken) RETURNING id, uses, expires_at)";
    let mut values = vec![string(&wish.claim), string(&wish.claim), micros(life.min(PLACE)), micros(life)];
    values.extend(details(wish));
    values.push(string(&wish.name));
    (sql.to_owned(), values)
}

/// Hands the lock of this row on to the first in line, or frees it, and tells. The answer is the number of rows, and whether
/// somebody was told.
///
/// The new lease must not be over before the waiter thinks so, who counts from its last look. That may be later than this statement
/// began, if it had to wait for the row: so the end is counted from when the row was ours.
pub(crate) fn pass_on(whose: &str) -> String {
    let fields = ["instance", "host", "operation", "request_id", "resource"];
    let (columns, values) = (fields.join(", "), fields.map(|column| format!("value ->> '{column}'")).join(", "));
    format!(
        "WITH freed AS (UPDATE scoria_locks AS held SET (claim, uses, taken_at, expires_at, waiting, {columns}) = (\
         SELECT key, held.uses + CAST(key <> '' AS INT), {{now}}, {CLOCK} + CAST(value ->> 'life' AS BIGINT), \
         CASE WHEN key <> '' THEN held.waiting - key END, {values} \
         FROM jsonb_each(COALESCE(held.waiting, '{{}}') || '{NOBODY}') WHERE CAST(value ->> 'until' AS BIGINT) > {{now}} \
         ORDER BY CAST(value ->> 'since' AS BIGINT) LIMIT 1) WHERE name = ? AND {whose} RETURNING id, uses, claim, name) \
         SELECT COUNT(*), COUNT(pg_notify('{CHANNEL}', concat_ws(' ', id, uses, claim, name))) FILTER (WHERE claim <> '') \
         FROM freed"
    )
}

/// Takes a claim out of the line.
pub(crate) const LEAVE: &str = "UPDATE scoria_locks SET waiting = waiting - CAST(? AS TEXT) WHERE name = ? AND waiting -> CAST(? AS TEXT) IS NOT NULL";

/// To whom a lock was handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandedOn {
    pub(crate) claim: String,
    pub(crate) token: u64,
}

/// What [`pass_on`] tells: the name of a lock, and whose it is.
pub(crate) fn told(payload: &str) -> Option<(&str, HandedOn)> {
    let mut words = payload.splitn(4, ' ');
    let token = token(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let claim = words.next()?.to_owned();
    Some((words.next()?, HandedOn { claim, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_whose_which_lock_is() {
        let handed_on = HandedOn { claim: "c1".to_owned(), token: token(3, 7) };
        assert_eq!(told("3 7 c1 a name"), Some(("a name", handed_on)));
        assert_eq!(told("a name"), None);
    }
}
