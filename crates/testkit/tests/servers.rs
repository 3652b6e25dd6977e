//! Each server of testkit comes up, works, can be crashed and comes back, and is gone when its handle is.

use std::time::{Duration, Instant};

use scoria_testkit::{MariaDb, Postgres, RabbitMq, Redis, wait_until};
use tokio::net::TcpStream;

async fn closed(port: u16) {
    let refused = async || TcpStream::connect(("127.0.0.1", port)).await.is_err();
    wait_until("the port is closed", Duration::from_secs(20), refused).await.unwrap();
}

#[tokio::test]
async fn mariadb_keeps_its_data_through_a_crash() {
    let started = Instant::now();
    let mut server = MariaDb::start().await.unwrap();
    println!("MariaDB up after {:?}", started.elapsed());
    server.execute("CREATE TABLE t (n INT); INSERT INTO t VALUES (42)").unwrap();
    server.create_database("other").unwrap();
    assert!(server.url().starts_with("mysql+pymysql://scoria:scoria@127.0.0.1:"));
    server.kill().unwrap();
    closed(server.port()).await;
    server.restart().await.unwrap();
    assert_eq!(server.execute("SELECT n FROM t").unwrap().trim(), "42");
    let port = server.port();
    drop(server);
    closed(port).await;
}

#[tokio::test]
async fn postgresql_keeps_its_data_through_a_crash() {
    let started = Instant::now();
    let mut server = Postgres::start().await.unwrap();
    println!("PostgreSQL up after {:?}", started.elapsed());
    server.execute("CREATE TABLE t (n INT); INSERT INTO t VALUES (42)").unwrap();
    server.create_database("other").unwrap();
    server.kill().unwrap();
    closed(server.port()).await;
    server.restart().await.unwrap();
    assert_eq!(server.execute("SELECT n FROM t").unwrap().trim(), "42");
    let port = server.port();
    drop(server);
    closed(port).await;
}

#[tokio::test]
async fn rabbitmq_stops_starts_and_crashes() {
    let started = Instant::now();
    let mut server = RabbitMq::start().await.unwrap();
    println!("RabbitMQ up after {:?}", started.elapsed());
    assert!(server.ctl(&["list_users"]).await.unwrap().contains("guest"));
    server.stop_app().await.unwrap();
    closed(server.port()).await;
    server.start_app().await.unwrap();
    TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    server.memory_alarm(true).await.unwrap();
    assert!(server.ctl(&["status"]).await.unwrap().contains("Memory alarm"));
    server.memory_alarm(false).await.unwrap();
    server.kill().unwrap();
    closed(server.port()).await;
    server.restart().await.unwrap();
    assert!(server.queues().await.unwrap().is_empty());
    let port = server.port();
    drop(server);
    closed(port).await;
}

#[tokio::test]
async fn redis_answers_and_restarts() {
    let mut server = Redis::start().await.unwrap();
    server.execute(&["SET", "k", "v"]).unwrap();
    assert_eq!(server.execute(&["GET", "k"]).unwrap().trim(), "v");
    server.restart().await.unwrap();
    assert_eq!(server.execute(&["GET", "k"]).unwrap().trim(), "");
}
