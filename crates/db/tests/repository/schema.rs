//! Our own tables beside Cinder's: the same columns, types and nullability; and databases that are refused.

use std::collections::BTreeMap;

use scoria_db::{Error, SchemaOrigin};

use crate::place::{Origin, Place, Server};

/// Every column: type, and whether it may be null.
async fn columns(place: &Place) -> BTreeMap<String, BTreeMap<String, String>> {
    let query = match place.server {
        Server::MariaDb => {
            "SELECT table_name, column_name, CONCAT(column_type, ' null=', is_nullable) \
             FROM information_schema.columns WHERE table_schema = DATABASE()"
        }
        Server::Postgres => {
            "SELECT table_name, column_name, \
             data_type || COALESCE('(' || character_maximum_length || ')', '') || ' null=' || is_nullable \
             FROM information_schema.columns WHERE table_schema = 'public'"
        }
        Server::Sqlite => {
            "SELECT m.name, c.name, c.type || ' notnull=' || c.\"notnull\" || ' pk=' || c.pk \
             FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
        }
    };
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in place.sql(query).await.lines() {
        let mut parts = line.split('\t').map(str::to_owned);
        let (table, column, kind) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        tables.entry(table).or_default().insert(column, kind);
    }
    tables
}

async fn our_tables_are_cinders(server: Server) {
    let cinders = columns(&Place::new(server, Origin::Cinder).await).await;
    let mut ours = columns(&Place::new(server, Origin::Scoria).await).await;
    ours.remove("_sqlx_migrations").expect("migrated by sqlx");
    ours.remove("sqlite_sequence");
    ours.remove("scoria_locks").expect("a table of our own");
    assert!(ours.len() >= 20, "{:?}", ours.keys());
    for (table, columns) in &ours {
        assert_eq!(Some(columns), cinders.get(table), "{table}: ours and Cinder's");
    }
}

#[tokio::test]
async fn sqlite_tables() {
    our_tables_are_cinders(Server::Sqlite).await;
}

#[tokio::test]
async fn mariadb_tables() {
    our_tables_are_cinders(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql_tables() {
    our_tables_are_cinders(Server::Postgres).await;
}

#[tokio::test]
async fn a_database_that_we_do_not_know_is_refused_with_a_remedy() {
    let place = Place::new(Server::Sqlite, Origin::Nobody).await;
    let db = &place.db;
    assert_eq!(db.version().await.unwrap(), None);
    let error = db.check_schema().await.unwrap_err();
    assert!(error.to_string().contains("has no tables: run 'cinder-manage db sync'"), "{error}");
    let error = db.volumes_empty().await.unwrap_err();
    assert!(matches!(&error, Error::Schema(text) if text.contains("volumes")), "{error}");

    place.sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)").await;
    assert_eq!(db.version().await.unwrap(), None, "a sync that was cut off at its very beginning");
    place.sql("INSERT INTO alembic_version VALUES ('921e1a36b076')").await;
    let error = db.check_schema().await.unwrap_err();
    assert!(error.to_string().contains("revision 921e1a36b076"), "{error}");
    assert!(matches!(db.sync().await, Err(Error::Schema(_))), "Cinder's tables are never touched");

    let place = Place::new(Server::Sqlite, Origin::Scoria).await;
    place.sql("UPDATE _sqlx_migrations SET version = 99 WHERE version = 2").await;
    let error = place.db.check_schema().await.unwrap_err();
    assert!(error.to_string().contains("install a newer Scoria"), "{error}");
    assert_eq!(place.db.version().await.unwrap(), Some(SchemaOrigin::Scoria { version: 99 }));
}

#[tokio::test]
async fn a_database_in_memory_lives_as_long_as_its_handle() {
    let db = scoria_db::Database::connect(&scoria_db::Options::new("sqlite://")).await.unwrap();
    db.sync().await.unwrap();
    assert!(db.default_volume_type().await.unwrap().is_some());
    assert!(db.volumes_empty().await.unwrap());
}
