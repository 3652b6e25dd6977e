//! Servers that deadlock, kill connections, restart, and lose answers.

use std::time::Duration;

use scoria_db::{Database, Error, Expect, Options, Swap, VolumeChange};
use scoria_model::{ResourceType, VolumeId, VolumeStatus};
use scoria_testkit::faults::{Link, Proxy};
use scoria_testkit::{MariaDb, Postgres};

use crate::place::{Origin, Place, Server, options};
use crate::services::service;
use crate::volumes::{pairs, volume};

/// Kills all connections of the tested pool; they idle, except where the test made one wait.
async fn kill_connections(place: &Place) {
    // The driver tries a connection out when it is given back. Only after that does it idle in the pool.
    tokio::time::sleep(Duration::from_millis(300)).await;
    match place.server {
        Server::Postgres => {
            let mine = "application_name = 'scoria' AND datname = current_database()";
            place.sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")).await;
        }
        Server::MariaDb => {
            let mine = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
            for id in place.sql(mine).await.lines() {
                place.sql(&format!("KILL {id}")).await;
            }
        }
        Server::Sqlite => {}
    }
}

async fn killed_connections_are_replaced(server: Server) {
    let place = Place::new(server, Origin::Scoria).await;
    let db = &place.db;
    let id = volume(&place, VolumeStatus::Available).await.id;
    let registered = db.service_register(&service("kill@nfs", None)).await.unwrap();
    // Several connections, all of which go stale at once.
    let loads = (0..5).map(|_| db.volume_load(&id));
    futures_util::future::join_all(loads).await.into_iter().for_each(|loaded| assert!(loaded.unwrap().is_some()));
    kill_connections(&place).await;
    assert!(db.volume_load(&id).await.unwrap().is_some());
    let swap = db.volume_update(&id, &Expect::any(), &VolumeChange::status(VolumeStatus::Error)).await.unwrap();
    assert_eq!(swap, Swap::Done);

    // A heartbeat is not tried again, but the next one works.
    let single =
        Database::connect(&Options { max_pool_size: 1, max_overflow: 0, ..options(&place.url) }).await.unwrap();
    assert!(single.service_heartbeat(registered.id).await.unwrap());
    kill_connections(&place).await;
    let error = single.service_heartbeat(registered.id).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.is_retryable(), "{error}");
    assert!(single.service_heartbeat(registered.id).await.unwrap());

    // In the middle of a transaction that waits for a row.
    let mut blocker = Blocker::hold(&place, &id).await;
    let metadata = pairs(&[("a", "1")]);
    let call = db.volume_metadata_update(&id, &metadata, false);
    let fault = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        kill_connections(&place).await;
        // MariaDB's list has the blocker's connection on it, too.
        blocker.let_go().await;
    };
    let (answer, ()) = tokio::join!(call, fault);
    assert_eq!(answer.unwrap(), metadata);
    assert_eq!(place.count("volume_metadata", &format!("volume_id = '{id}'")).await, 1);
}

/// A transaction of somebody else that holds a volume's row.
enum Blocker {
    MariaDb(sqlx::MySqlConnection),
    Postgres(sqlx::PgConnection),
}

impl Blocker {
    async fn hold(place: &Place, id: &VolumeId) -> Self {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let lock = AssertSqlSafe(format!("BEGIN; SELECT id FROM volumes WHERE id = '{id}' FOR UPDATE"));
        let url = place.sqlx_url();
        if place.server == Server::MariaDb {
            let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
            connection.execute(sqlx::raw_sql(lock)).await.unwrap();
            return Self::MariaDb(connection);
        }
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::raw_sql(lock)).await.unwrap();
        Self::Postgres(connection)
    }

    /// Ends it; when it was killed, it has ended already.
    async fn let_go(&mut self) {
        use sqlx::Executor;
        let _ = match self {
            Self::MariaDb(connection) => connection.execute(sqlx::raw_sql("ROLLBACK")).await.map(drop),
            Self::Postgres(connection) => connection.execute(sqlx::raw_sql("ROLLBACK")).await.map(drop),
        };
    }
}

async fn deadlocks_are_tried_again(server: Server) {
    let place = Place::new(server, Origin::Scoria).await;
    let mut forward = Vec::new();
    for _ in 0..20 {
        forward.push((volume(&place, VolumeStatus::Available).await.id, Some("x".to_owned())));
    }
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let deadlocks = match server {
        Server::MariaDb => {
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'"
        }
        _ => "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    };
    for round in 0..20 {
        let calls = [&forward, &backward, &forward, &backward].map(|ids| place.db.volumes_set_provider_id(ids));
        for answer in futures_util::future::join_all(calls).await {
            answer.unwrap();
        }
        // PostgreSQL's statistics lag.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if place.sql(deadlocks).await != "0" {
            return;
        }
        assert!(round < 19, "no deadlock in twenty rounds: the test tests nothing");
    }
}

/// Patient enough for a server that starts.
fn patient(url: &str) -> Options {
    Options { db_max_retries: 1000, ..options(url) }
}

#[tokio::test]
async fn mariadb_kills_connections() {
    killed_connections_are_replaced(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql_kills_connections() {
    killed_connections_are_replaced(Server::Postgres).await;
}

#[tokio::test]
async fn mariadb_deadlocks() {
    deadlocks_are_tried_again(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql_deadlocks() {
    deadlocks_are_tried_again(Server::Postgres).await;
}

/// Calls during a restart wait for its end.
macro_rules! restart {
    ($name:ident, $server:ident) => {
        #[tokio::test]
        async fn $name() {
            let mut server = $server::start().await.unwrap();
            let db = Database::connect(&patient(&server.url())).await.unwrap();
            db.sync().await.unwrap();
            assert!(db.volumes_empty().await.unwrap());
            let (restarted, empty) = tokio::join!(server.restart(), db.volumes_empty());
            restarted.unwrap();
            assert!(empty.unwrap());
            server.kill().unwrap();
            let error = db.service_heartbeat(1).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            db.close().await;
            assert!(matches!(db.ping().await, Err(Error::Unavailable(_))));
        }
    };
}

restart!(mariadb_restarts, MariaDb);
restart!(postgresql_restarts, Postgres);

/// Loses the answer of one call, then the connection: the call was carried out, and its repetition must see that.
async fn lose_answer<T>(proxy: &Proxy, call: impl Future<Output = T>) -> T {
    // The driver's own test of the connection that was just given back must not be the one that is lost.
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.set(Link::AnswersLost);
    let fault = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.set(Link::Up);
        proxy.cut();
    };
    tokio::join!(call, fault).0
}

async fn a_lost_answer_is_found_out(server: Server) {
    let place = Place::new(server, Origin::Scoria).await;
    let port = place.url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap();
    let proxy = Proxy::start(port.parse().unwrap()).unwrap();
    let url = place.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let db = Database::connect(&Options { max_pool_size: 1, max_overflow: 0, ..options(&url) }).await.unwrap();
    let mine = db.service_register(&service("lost@nfs", None)).await.unwrap().id;
    let kind = ResourceType::Volume;
    let warm = volume(&place, VolumeStatus::Available).await.id;
    let id = volume(&place, VolumeStatus::Available).await.id;
    let change = VolumeChange::status(VolumeStatus::Extending);
    let expect = Expect::status(VolumeStatus::Available);

    // Each statement once before, so that it is prepared and its execution is what the proxy hands on.
    let insert = |id: &VolumeId| {
        let (db, id) = (db.clone(), id.to_string());
        async move { db.worker_claim(kind, &id, "creating", None, mine).await.unwrap() }
    };
    insert(&warm).await.unwrap();
    let claim = lose_answer(&proxy, insert(&id)).await.expect("the row is ours: the first try made it");
    assert_eq!(claim.race_preventer, 0);
    assert_eq!(db.worker_get(kind, id.as_str()).await.unwrap().unwrap().id, claim.id);

    let take = async |id: &VolumeId, lose: bool| {
        let seen = db.worker_get(kind, id.as_str()).await.unwrap();
        let call = db.worker_claim(kind, id.as_str(), "deleting", seen.as_ref(), mine);
        if lose { lose_answer(&proxy, call).await.unwrap() } else { call.await.unwrap() }
    };
    take(&warm, false).await.unwrap();
    let claim = take(&id, true).await.expect("the row is ours: the first try took it");
    assert_eq!(db.worker_get(kind, id.as_str()).await.unwrap().unwrap().race_preventer, claim.race_preventer);

    assert_eq!(db.volume_update(&warm, &expect, &change).await.unwrap(), Swap::Done);
    let swap = lose_answer(&proxy, db.volume_update(&id, &expect, &change)).await.unwrap();
    assert_eq!(swap, Swap::Done, "the first try wrote it");
    // A second caller with the same wish is told the truth.
    let swap = db.volume_update(&id, &expect, &change).await.unwrap();
    assert_eq!(swap, Swap::Unexpected { status: VolumeStatus::Extending });
}

#[tokio::test]
async fn mariadb_loses_answers() {
    a_lost_answer_is_found_out(Server::MariaDb).await;
}

#[tokio::test]
async fn postgresql_loses_answers() {
    a_lost_answer_is_found_out(Server::Postgres).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_as_often_as_configured() {
    let port = scoria_testkit::free_port().unwrap();
    let url = format!("postgresql://u:secret@127.0.0.1:{port}/cinder");
    let options = Options { max_retries: Some(0), retry_interval: Duration::from_millis(10), ..options(&url) };
    let Err(error) = Database::connect(&options).await else { panic!("there is a server") };
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(!format!("{error} {error:?} {options:?}").contains("secret"));
    let Err(error) = Database::connect(&Options::new("sqlite:////no/such/directory/cinder.sqlite")).await else {
        panic!("there is a directory")
    };
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
}

#[tokio::test]
async fn a_busy_sqlite_file_is_waited_for() {
    use sqlx::{ConnectOptions, Executor};
    let place = Place::new(Server::Sqlite, Origin::Scoria).await;
    let id = volume(&place, VolumeStatus::Available).await.id;
    let path = place.url.trim_start_matches("sqlite:///");
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    other.execute(sqlx::raw_sql("BEGIN EXCLUSIVE")).await.unwrap();
    // Longer than the driver itself waits, so that the retry is what helps.
    let fault = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        other.execute(sqlx::raw_sql("COMMIT")).await.unwrap();
    };
    let change = VolumeChange::status(VolumeStatus::Error);
    let any = Expect::any();
    let (swap, ()) = tokio::join!(place.db.volume_update(&id, &any, &change), fault);
    assert_eq!(swap.unwrap(), Swap::Done);
}
