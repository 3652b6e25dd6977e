//! `scoria-testkit run` starts the servers once, hands them to the command and passes its exit status on.

use std::process::Command;

use scoria_testkit::{MariaDb, Postgres, RabbitMq, SharedServers};

#[tokio::test]
async fn callers_get_databases_of_their_own_on_one_server() {
    // Under `scoria-testkit run` this is the run's server, otherwise one of each caller's own: the promise is the same.
    let (one, other) = (MariaDb::shared().await.unwrap(), MariaDb::shared().await.unwrap());
    one.execute("CREATE TABLE t (n INT)").unwrap();
    assert!(other.execute("SELECT * FROM t").is_err());
    let (one, other) = (Postgres::shared().await.unwrap(), Postgres::shared().await.unwrap());
    one.execute("CREATE TABLE t (n INT)").unwrap();
    assert!(other.execute("SELECT * FROM t").is_err());
    RabbitMq::shared().await.unwrap().ctl(&["list_vhosts"]).await.unwrap();
}

#[tokio::test]
async fn the_environment_names_every_server() {
    let servers = SharedServers::start().await.unwrap();
    let names: Vec<_> = servers.environment().unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(["SCORIA_TEST_MARIADB", "SCORIA_TEST_POSTGRES", "SCORIA_TEST_RABBITMQ"].iter().all(|n| names.contains(n)));
}

#[test]
fn the_exit_status_is_passed_on() {
    let run = |script| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoria-testkit"));
        command.args(["run", "--", "sh", "-c", script]).status().unwrap().code()
    };
    assert_eq!(run("test -n \"$SCORIA_TEST_MARIADB\" && test -d \"$SCORIA_TEST_RABBITMQ\" && exit 7"), Some(7));
}
