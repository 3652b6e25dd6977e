//! The table of locks on SQLite, MariaDB and PostgreSQL: one statement per call, tokens that rise, rows that go, time that is the
//! database's. (`database://` over it is tried in the tests of `scoria-service`, which brings the two together.)

mod line;
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../repository/place.rs"]
mod place;

use std::sync::Arc;
use std::time::Duration;

use place::{Origin, Place, Server, options};
use scoria_db::{Database, DatabaseLocks, Error};
use scoria_model::{LockAnswer, LockLease, LockTable, LockTableError, LockWish};

const LIFE: Duration = Duration::from_secs(30);

/// The table of locks of a database, as another process would open it.
fn table(url: &str) -> Arc<DatabaseLocks> {
    Arc::new(DatabaseLocks::new(&options(url)).unwrap())
}

fn wish(name: &str, claim: &str) -> LockWish {
    LockWish {
        name: name.to_owned(),
        claim: claim.to_owned(),
        instance: "one".to_owned(),
        host: Some("h".to_owned()),
        operation: "delete_volume".to_owned(),
        request_id: Some("req-1".to_owned()),
        resource: None,
    }
}

async fn taken(table: &dyn LockTable, name: &str, claim: &str, life: Duration) -> LockLease {
    match table.take(&wish(name, claim), life, false).await.unwrap() {
        LockAnswer::Ours(lease) => lease,
        held => panic!("'{name}' for {claim}: {held:?}"),
    }
}

/// One server's whole suite, one after the other on one database.
async fn suite(server: Server) {
    let place = Place::new(server, Origin::Scoria).await;
    one_round_trip_each(&place).await;
    who_has_it_keeps_it_until_it_expires(&place).await;
    an_answer_that_was_lost_is_found(&place).await;
    names_and_texts_are_kept_apart(&place).await;
    many_are_extended_by_one_statement(&place).await;
    rows_go_and_tokens_rise(&place).await;
    a_broken_lock_is_free(&place).await;
    match server {
        Server::Postgres => line::suite(&place).await,
        Server::Sqlite | Server::MariaDb => a_watch_wakes(&place).await,
    }
    of_many_takers_one_wins(&place).await;
}

async fn one_round_trip_each(place: &Place) {
    let table = table(&place.url);
    table.check().await.unwrap();
    // The first call also learns what kind of server it is.
    taken(&*table, "warm", "w", LIFE).await;
    // SQLite is no round trip away, and looks before it writes.
    let taking = if place.server == Server::Sqlite { 2 } else { 1 };
    for round in ["new-name", "name-of-a-freed-lock"] {
        let before = table.round_trips();
        let lease = taken(&*table, "a", round, LIFE).await;
        assert_eq!(table.round_trips() - before, taking, "{round}");
        assert!(lease.remaining > LIFE - Duration::from_secs(1) && lease.remaining <= LIFE, "{lease:?}");
        let before = table.round_trips();
        assert!(table.give_back("a", round).await.unwrap());
        assert_eq!(table.round_trips() - before, 1);
        assert!(!table.give_back("a", round).await.unwrap(), "it was given back before");
    }
    let before = table.round_trips();
    let held = table.take(&wish("warm", "other"), LIFE, false).await.unwrap();
    assert!(
        matches!(held, LockAnswer::Held(Some(lease)) if lease.remaining > LIFE / 2 && lease.remaining <= LIFE),
        "{held:?}"
    );
    assert_eq!(table.round_trips() - before, 1, "who has to wait has asked once");
    assert!(table.give_back("warm", "w").await.unwrap());
}

async fn who_has_it_keeps_it_until_it_expires(place: &Place) {
    let (one, two) = (table(&place.url), table(&place.url));
    let first = taken(&*one, "a", "1", Duration::from_secs(1)).await;
    assert!(matches!(two.take(&wish("a", "2"), LIFE, false).await.unwrap(), LockAnswer::Held(Some(_))));
    assert!(!two.give_back("a", "2").await.unwrap(), "somebody else's");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(one.find("a", "1").await.unwrap(), None, "over, although nobody has taken it");
    let second = taken(&*two, "a", "2", LIFE).await;
    assert!(second.token > first.token);
    assert_eq!(one.extend(&[("a", "1")], LIFE).await.unwrap(), [false]);
    assert!(!one.give_back("a", "1").await.unwrap());
    assert!(two.find("a", "2").await.unwrap().is_some(), "untouched by the one before");
    assert!(two.give_back("a", "2").await.unwrap());
}

async fn an_answer_that_was_lost_is_found(place: &Place) {
    let table = table(&place.url);
    let first = taken(&*table, "a", "1", LIFE).await;
    let found = table.find("a", "1").await.unwrap().unwrap();
    assert_eq!(found.token, first.token);
    let again = taken(&*table, "a", "1", LIFE).await;
    assert!(again.token >= first.token, "asked again with the same claim it is granted again");
    assert!(table.give_back("a", "1").await.unwrap());
    assert_eq!(table.find("a", "1").await.unwrap(), None);
}

/// Case, trailing blanks and quotes tell names apart; long texts are cut.
async fn names_and_texts_are_kept_apart(place: &Place) {
    let table = table(&place.url);
    let names = ["name", "NAME", "name ", "o'n?me\\", &"x".repeat(255)];
    for name in names {
        let long = LockWish { operation: "ö".repeat(300), ..wish(name, name.get(..30).unwrap_or(name)) };
        assert!(matches!(table.take(&long, LIFE, false).await.unwrap(), LockAnswer::Ours(_)), "{name:?}");
    }
    let rows = table.list().await.unwrap();
    let mut listed: Vec<_> = rows.iter().map(|row| row.wish.name.as_str()).collect();
    let mut expected = names.to_vec();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert!(rows.iter().all(|row| row.wish.operation == "ö".repeat(255) && row.since < LIFE && row.token > 0));
    assert_eq!((rows[0].wish.instance.as_str(), rows[0].wish.request_id.as_deref()), ("one", Some("req-1")));
    for row in rows {
        assert!(table.give_back(&row.wish.name, &row.wish.claim).await.unwrap());
    }
}

async fn many_are_extended_by_one_statement(place: &Place) {
    let table = table(&place.url);
    let names: Vec<_> = (0..100).map(|n| (format!("many-{n}"), format!("claim-{n}"))).collect();
    for (name, claim) in &names {
        taken(&*table, name, claim, Duration::from_secs(5)).await;
    }
    let mut held: Vec<_> = names.iter().map(|(name, claim)| (name.as_str(), claim.as_str())).collect();
    let before = table.round_trips();
    assert_eq!(table.extend(&held, LIFE).await.unwrap(), vec![true; 100]);
    assert_eq!(table.round_trips() - before, 1);
    assert!(table.find("many-7", "claim-7").await.unwrap().unwrap().remaining > LIFE / 2);
    held[3].1 = "claim-of-somebody-else";
    let extended = table.extend(&held, LIFE).await.unwrap();
    assert_eq!(extended.iter().filter(|ours| !**ours).count(), 1);
    assert!(!extended[3]);
    for (name, claim) in &names {
        assert!(table.give_back(name, claim).await.unwrap());
    }
}

/// The row of a freed lock goes after a quarter of an hour, and the tokens of the next row are higher all the same.
async fn rows_go_and_tokens_rise(place: &Place) {
    let table = table(&place.url);
    let mut last = 0;
    for round in 0..6 {
        let lease = taken(&*table, "a", &format!("round-{round}"), LIFE).await;
        assert!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        // Half of the holders die: their rows are only found to be over.
        if round % 2 == 0 {
            table.give_back("a", &format!("round-{round}")).await.unwrap();
        }
        table.sweep().await.unwrap();
        let there = place.count("scoria_locks", "name = 'a'").await;
        assert_eq!(there, 1, "a row that was used just now stays");
        if round > 2 {
            place.sql("UPDATE scoria_locks SET expires_at = expires_at - 1000000 * 931 WHERE name = 'a'").await;
            table.sweep().await.unwrap();
            assert_eq!(place.count("scoria_locks", "name = 'a'").await, 0);
        } else {
            place.sql("UPDATE scoria_locks SET expires_at = expires_at - 1000000 * 31 WHERE name = 'a'").await;
        }
    }
    let lease = taken(&*table, "kept", "k", LIFE).await;
    place.sql("UPDATE scoria_locks SET expires_at = expires_at - 1000000 * 29 WHERE name = 'kept'").await;
    table.sweep().await.unwrap();
    assert_eq!(table.find("kept", "k").await.unwrap().unwrap().token, lease.token, "what is held is not swept");
    assert!(table.give_back("kept", "k").await.unwrap());
}

async fn a_broken_lock_is_free(place: &Place) {
    let (one, two) = (table(&place.url), table(&place.url));
    assert!(!two.break_lock("a").await.unwrap(), "nobody's");
    taken(&*one, "a", "1", LIFE).await;
    assert!(two.break_lock("a").await.unwrap());
    assert_eq!(one.extend(&[("a", "1")], LIFE).await.unwrap(), [false]);
    assert!(!one.give_back("a", "1").await.unwrap());
    assert_eq!(one.list().await.unwrap(), []);
}

async fn a_watch_wakes(place: &Place) {
    let (one, two) = (table(&place.url), table(&place.url));
    taken(&*one, "a", "1", LIFE).await;
    let mut watch = two.watch("a", "2").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), watch.freed()).await;
    assert!(early.is_err(), "nothing has happened");
    let (freed, given_back) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(20), watch.freed()), one.give_back("a", "1"));
    assert_eq!(freed.expect("woken").unwrap(), None, "it has to look");
    assert!(given_back.unwrap());
    drop(watch);
    one.close().await;
    two.close().await;
}

/// Taking, dying, giving back, all at once: each token goes to one, and tokens rise in the order of the holders.
async fn of_many_takers_one_wins(place: &Place) {
    let takers = (0..8).map(|taker| {
        let table = table(&place.url);
        async move {
            let mut tokens = Vec::new();
            for round in 0..20 {
                let claim = format!("{taker}-{round}");
                if let LockAnswer::Ours(lease) = table.take(&wish("contended", &claim), LIFE, false).await.unwrap() {
                    let found = table.find("contended", &claim).await.unwrap();
                    assert_eq!(found.map(|found| found.token), Some(lease.token), "nobody else can have it");
                    tokens.push(lease.token);
                    assert!(table.give_back("contended", &claim).await.unwrap());
                }
            }
            assert!(tokens.is_sorted());
            tokens
        }
    });
    let mut all: Vec<_> = futures_util::future::join_all(takers).await.concat();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert!(count > 0 && all.len() == count, "a token for each holder");
}

#[tokio::test]
async fn sqlite() {
    suite(Server::Sqlite).await;
}

#[tokio::test]
async fn mariadb() {
    suite(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql() {
    suite(Server::Postgres).await;
}

async fn made_only_when_told(server: Server) {
    let place = Place::new(server, Origin::Cinder).await;
    let locks = table(&place.url);
    let error = locks.check().await.unwrap_err();
    assert!(matches!(&error, LockTableError::Refused(why) if why.contains("scoria db sync --locks")), "{error}");
    assert!(matches!(place.db.sync().await, Err(Error::Schema(_))), "Cinder's tables stay Cinder's");
    for _ in 0..2 {
        let origin = place.db.sync_locks().await.unwrap();
        assert_eq!(place.db.check_schema().await.unwrap(), origin, "still Cinder's");
        locks.check().await.unwrap();
    }
    taken(&*locks, "a", "1", LIFE).await;
    assert!(locks.give_back("a", "1").await.unwrap());
}

#[tokio::test]
async fn sqlite_of_cinder() {
    made_only_when_told(Server::Sqlite).await;
}

#[tokio::test]
async fn mariadb_of_cinder() {
    made_only_when_told(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql_of_cinder() {
    made_only_when_told(Server::Postgres).await;
}

#[tokio::test]
async fn a_database_without_tables_or_in_memory_is_refused_with_the_remedy() {
    let place = Place::new(Server::Sqlite, Origin::Nobody).await;
    let error = place.db.sync_locks().await.unwrap_err().to_string();
    assert!(error.contains("scoria db sync"), "{error}");
    let error = scoria_db::DatabaseLocks::new(&options("sqlite://")).unwrap_err().to_string();
    assert!(error.contains("memory://"), "{error}");
    let memory = Database::connect(&options("sqlite://")).await.unwrap();
    memory.sync_locks().await.unwrap_err();
}
