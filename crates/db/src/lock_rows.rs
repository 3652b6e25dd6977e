//! The statements over `scoria_locks`, per dialect.
//!
//! Each is a compare-and-swap by itself, in one round trip, with the time of the database: when the statement began.

use std::time::Duration;

use scoria_model::LockWish;
use sea_query::Value;

use crate::Dialect;
use crate::lock_line as line;
use crate::pool::Text;

/// A row's holders are counted in so many low bits of the token; the others are the row's id.
const USES_BITS: u32 = 24;

/// How long the row of a lock that nobody holds is kept. Longer than a lock can live without being extended
/// ([`LONGEST_LIFE`]), so that no statement that began before the row went can make a lock that is still good with an older id.
const KEPT: Duration = Duration::from_secs(900);

/// The longest that a lock may live without being extended.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(600);

/// Longest text in a column.
const LONGEST: usize = 255;

/// The fencing token. Within a row the holders are counted under the row's lock; a new row's id is higher than that of every row
/// before it.
pub(crate) fn token(id: i64, uses: i64) -> u64 {
    (u64::try_from(id).unwrap_or_default() << USES_BITS).saturating_add(u64::try_from(uses).unwrap_or_default())
}

/// PostgreSQL's time at this very moment, not that of the beginning of the statement.
pub(crate) const CLOCK: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// Now, in microseconds since 1970.
fn now(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        Dialect::MySql => "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
        Dialect::Postgres => "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
    }
}

fn text(dialect: Dialect, sql: &str, values: Vec<Value>) -> Text {
    Text { sql: sql.replace("{now}", now(dialect)), values }
}

pub(crate) fn micros(time: Duration) -> Value {
    Value::BigInt(Some(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
}

pub(crate) fn string(text: &str) -> Value {
    Value::String(Some(text.chars().take(LONGEST).collect()))
}

fn optional(text: Option<&String>) -> Value {
    text.map_or(Value::String(None), |text| string(text))
}

/// For the list of holders: instance, host, operation, request, resource.
pub(crate) fn details(wish: &LockWish) -> [Value; 5] {
    [
        string(&wish.instance),
        optional(wish.host.as_ref()),
        string(&wish.operation),
        optional(wish.request_id.as_ref()),
        optional(wish.resource.as_ref()),
    ]
}

const COLUMNS: &str = "name, claim, uses, taken_at, expires_at, instance, host, operation, request_id, resource";
const NEW: &str = "?, ?, 0, {now}, {now} + ?, ?, ?, ?, ?, ?";

/// `None` as time, or the time that is left: columns of an answer.
pub(crate) type TakeRow = (i64, i64, i64, i64);

/// Takes the lock; on PostgreSQL, who `waits` stands in line otherwise. The answer is `(ours, id, uses, remaining)`; none from
/// SQLite, or a MySQL that cannot return it, when it is not ours or nobody knows: ask [`look`]. None from PostgreSQL when the row was
/// made in the same moment.
///
/// What is asked again with a claim that has the row already is granted again.
pub(crate) fn take(dialect: Dialect, returning: bool, wish: &LockWish, life: Duration, waits: bool) -> Text {
    let mut values = vec![string(&wish.name), string(&wish.claim), micros(life)];
    values.extend(details(wish));
    let again = "uses = held.uses + 1, claim = excluded.claim, taken_at = excluded.taken_at, \
                 expires_at = excluded.expires_at, instance = excluded.instance, host = excluded.host, \
                 operation = excluded.operation, request_id = excluded.request_id, resource = excluded.resource";
    let leave = match dialect {
        Dialect::Postgres => ", waiting = held.waiting - CAST(excluded.claim AS TEXT)",
        _ => "",
    };
    let upsert = format!(
        "INSERT INTO scoria_locks AS held ({COLUMNS}) VALUES ({NEW}) ON CONFLICT (name) DO UPDATE SET {again}{leave} \
         WHERE held.claim = '' OR held.expires_at <= {{now}} OR held.claim = excluded.claim"
    );
    match dialect {
        Dialect::Sqlite => {
            text(dialect, &format!("{upsert} RETURNING 1 AS ours, id, uses, expires_at - {{now}} AS remaining"), values)
        }
        Dialect::Postgres => {
            let (others, more) = match waits {
                true => line::line_up(wish, life),
                false => (
                    "others AS (SELECT id, uses, expires_at FROM scoria_locks WHERE name = ? \
                     AND NOT EXISTS (SELECT 1 FROM taken))"
                        .to_owned(),
                    vec![string(&wish.name)],
                ),
            };
            let sql = format!(
                "WITH taken AS ({upsert} RETURNING id, uses, expires_at), {others} \
                 SELECT CAST(1 AS BIGINT) AS ours, id, uses, expires_at - {{now}} AS remaining FROM taken \
                 UNION ALL SELECT CAST(0 AS BIGINT), id, uses, expires_at - {{now}} FROM others"
            );
            text(dialect, &sql, [values, more].concat())
        }
        Dialect::MySql => {
            // The assignments happen one after the other: those that ask whether it is free come first.
            let free = "(claim = '' OR expires_at <= {now})";
            let columns = ["taken_at", "instance", "host", "operation", "request_id", "resource"];
            let columns = columns.map(|column| format!("{column} = IF({free}, VALUES({column}), {column}), ")).concat();
            let mut sql = format!(
                "INSERT INTO scoria_locks ({COLUMNS}) VALUES ({NEW}) ON DUPLICATE KEY UPDATE \
                 uses = IF({free}, uses + 1, uses), {columns}\
                 claim = IF({free}, VALUES(claim), claim), \
                 expires_at = IF(claim = VALUES(claim), VALUES(expires_at), expires_at)"
            );
            let mut values = values;
            if returning {
                sql += " RETURNING CAST(claim = ? AS SIGNED) AS ours, id, uses, \
                        CAST(expires_at - {now} AS SIGNED) AS remaining";
                values.push(string(&wish.claim));
            }
            text(dialect, &sql, values)
        }
    }
}

/// The row: `(ours, id, uses, remaining)`.
pub(crate) fn look(dialect: Dialect, name: &str, claim: &str) -> Text {
    let number = if dialect == Dialect::MySql { "SIGNED" } else { "BIGINT" };
    let sql = format!(
        "SELECT CAST(CASE WHEN claim = ? THEN 1 ELSE 0 END AS {number}) AS ours, id, uses, \
         CAST(expires_at - {{now}} AS {number}) AS remaining FROM scoria_locks WHERE name = ? AND claim <> ''"
    );
    text(dialect, &sql, vec![string(claim), string(name)])
}

/// `name IN (…) AND claim IN (…)`: as no two wishes have the same claim, that is the rows of these pairs. The lists are made
/// longer by repetition, so that there are few different texts to prepare.
fn pairs(held: &[(&str, &str)]) -> (String, Vec<Value>) {
    let length = held.len().next_power_of_two();
    let filled = || (0..length).map(|at| held[at.min(held.len() - 1)]);
    let marks = vec!["?"; length].join(", ");
    let names = filled().map(|(name, _)| string(name));
    let values = names.chain(filled().map(|(_, claim)| string(claim))).collect();
    (format!("name IN ({marks}) AND claim IN ({marks})"), values)
}

/// Extends all of them. SQLite and PostgreSQL answer with the claims that are still there, MySQL with their number.
pub(crate) fn extend(dialect: Dialect, held: &[(&str, &str)], life: Duration) -> Text {
    let (these, mut values) = pairs(held);
    values.insert(0, micros(life));
    let returning = if dialect == Dialect::MySql { "" } else { " RETURNING claim" };
    text(dialect, &format!("UPDATE scoria_locks SET expires_at = {{now}} + ? WHERE {these}{returning}"), values)
}

/// The claims that still have their rows.
pub(crate) fn still_there(dialect: Dialect, held: &[(&str, &str)]) -> Text {
    let (these, values) = pairs(held);
    text(dialect, &format!("SELECT claim FROM scoria_locks WHERE {these}"), values)
}

/// Frees the lock: of this claim, or whosever it is. On PostgreSQL it is handed on to the first in line, see [`line::pass_on`].
pub(crate) fn free(dialect: Dialect, name: &str, claim: Option<&str>) -> Text {
    let mut values = vec![string(name)];
    let whose = match claim {
        Some(claim) => {
            values.push(string(claim));
            "claim = ?"
        }
        None => "claim <> '' AND expires_at > {now}",
    };
    let sql = match dialect {
        Dialect::Postgres => line::pass_on(whose),
        _ => format!("UPDATE scoria_locks SET claim = '', expires_at = {{now}} WHERE name = ? AND {whose}"),
    };
    text(dialect, &sql, values)
}

/// Takes a claim out of the line, on PostgreSQL.
pub(crate) fn leave(name: &str, claim: &str) -> Text {
    text(Dialect::Postgres, line::LEAVE, vec![string(claim), string(name), string(claim)])
}

/// One row while somebody holds the lock.
pub(crate) fn is_held(dialect: Dialect, name: &str) -> Text {
    let sql = "SELECT id FROM scoria_locks WHERE name = ? AND claim <> '' AND expires_at > {now}";
    text(dialect, sql, vec![string(name)])
}

/// Everything that is held.
pub(crate) fn list(dialect: Dialect) -> Text {
    let name = if dialect == Dialect::MySql { "CONVERT(name USING utf8mb4) AS name" } else { "name" };
    let number = if dialect == Dialect::MySql { "SIGNED" } else { "BIGINT" };
    let sql = format!(
        "SELECT {name}, claim, id, uses, CAST({{now}} - taken_at AS {number}) AS since, instance, host, operation, request_id, \
         resource FROM scoria_locks WHERE claim <> '' AND expires_at > {{now}} ORDER BY 1"
    );
    text(dialect, &sql, Vec::new())
}

/// Removes what nobody has held for long. A row whose holders no longer fit into the token's low bits stays for ever: its
/// tokens would be higher than the next row's.
pub(crate) fn sweep(dialect: Dialect) -> Text {
    let (most, kept) = (1_i64 << USES_BITS, micros(KEPT));
    text(
        dialect,
        "DELETE FROM scoria_locks WHERE expires_at <= {now} - ? AND uses < ?",
        vec![kept, Value::BigInt(Some(most))],
    )
}

/// Nothing, if the table is there.
pub(crate) fn check(dialect: Dialect) -> Text {
    text(dialect, "SELECT id FROM scoria_locks WHERE name = ''", Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Statement;

    /// The text of every statement, pinned per dialect.
    fn all(dialect: Dialect) -> String {
        let wish = LockWish {
            name: String::new(),
            claim: String::new(),
            instance: String::new(),
            host: None,
            operation: String::new(),
            request_id: None,
            resource: None,
        };
        let held = [("a", "1"), ("b", "2")];
        let texts = [
            take(dialect, true, &wish, KEPT, false),
            take(dialect, false, &wish, KEPT, true),
            look(dialect, "a", "1"),
            extend(dialect, &held, KEPT),
            still_there(dialect, &held),
            free(dialect, "a", Some("1")),
            free(dialect, "a", None),
            is_held(dialect, "a"),
            list(dialect),
            sweep(dialect),
            check(dialect),
            leave("a", "1"),
        ];
        let texts = &texts[..texts.len() - usize::from(dialect != Dialect::Postgres)];
        texts.iter().map(|text| text.render(dialect).0).collect::<Vec<_>>().join("\n\n")
    }

    #[test]
    fn statements() {
        insta::assert_snapshot!("locks_sqlite", all(Dialect::Sqlite));
        insta::assert_snapshot!("locks_mysql", all(Dialect::MySql));
        insta::assert_snapshot!("locks_postgresql", all(Dialect::Postgres));
    }

    #[test]
    fn tokens_rise_with_the_holders_of_a_row_and_with_each_new_row() {
        assert!(token(1, 1) > token(1, 0) && token(2, 0) > token(1, (1 << USES_BITS) - 1));
        assert!(token(1 << 38, 0) > token((1 << 38) - 1, 5));
    }

    #[test]
    fn lists_have_few_lengths() {
        let held = [("a", "1"), ("b", "2"), ("c", "3")];
        let (sql, values) = pairs(&held);
        assert_eq!(sql, "name IN (?, ?, ?, ?) AND claim IN (?, ?, ?, ?)");
        assert_eq!(values.len(), 8);
        assert_eq!(values[3], values[2]);
    }
}
