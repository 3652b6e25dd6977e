//! Names for which the server has one lock.

use std::collections::HashMap;

use md5::{Digest, Md5};
use scoria_coordination::{Error, LockRequest, Options, Owner, WaitPolicy, providers};

use crate::locks::{lost, once, soon};
use crate::log::Log;
use crate::{Server, coordinator};

/// Two names with the same two bytes of MD5.
fn colliding() -> (String, String) {
    let mut seen = HashMap::new();
    for n in 0.. {
        let name = format!("volume-{n}");
        let digest = Md5::digest(format!("cinder-{name}"));
        if let Some(other) = seen.insert((digest[0], digest[1]), name.clone()) {
            return (other, name);
        }
    }
    unreachable!("there are 65,536 keys")
}

async fn one_process_shares_what_the_server_cannot_tell_apart(server: Server, names: (String, String)) {
    let (one, two) = (coordinator(&server.url()).await, coordinator(&server.url()).await);
    let both = LockRequest::new(Owner::default()).exclusive(&names.0).exclusive(&names.1);
    let set = one.acquire(both.wait(WaitPolicy::No)).await.expect("no waiting for oneself");
    assert_eq!(set.names().count(), 2);
    assert!(matches!(once(&one, &names.0).await, Err(Error::Busy { .. })), "each name has one holder");
    assert!(matches!(once(&two, &names.0).await, Err(Error::Busy { .. })));
    assert!(matches!(once(&two, &names.1).await, Err(Error::Busy { .. })));
    set.verify().await.unwrap();
    set.release().await.unwrap();

    let (first, second) = (soon(&one, &names.0).await, soon(&one, &names.1).await);
    first.release().await.unwrap();
    second.verify().await.expect("kept by the other name");
    assert!(matches!(once(&two, &names.1).await, Err(Error::Busy { .. })));
    let first = soon(&one, &names.0).await;
    second.release().await.unwrap();
    first.verify().await.unwrap();
    assert!(two.break_lock(&names.1).await.unwrap());
    // With the server's lock.
    lost(&first).await;
    let theirs = soon(&two, &names.0).await;
    assert!(matches!(first.release().await, Err(Error::Lost { .. })));
    theirs.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql() {
    one_process_shares_what_the_server_cannot_tell_apart(Server::postgres().await, colliding()).await;
}

/// MariaDB's names differ by case, MySQL's do not: as both are shared in a process, nobody has to know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_refuses_what_is_too_long_and_shares_what_differs_by_case() {
    let server = Server::mysql().await;
    let one = coordinator(&server.url()).await;
    let both = LockRequest::new(Owner::default()).exclusive("volume").exclusive("VOLUME");
    one.acquire(both.wait(WaitPolicy::No)).await.expect("no waiting for oneself").release().await.unwrap();
    let long = "x".repeat(58);
    let error = once(&one, &long).await.unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if *name == long), "{error}");
    soon(&one, &long[1..]).await.release().await.unwrap();
}

/// There need not be a server for it.
#[tokio::test]
async fn a_warning_says_how_few_locks_postgresql_has_and_what_has_more() {
    let (log, _logging) = Log::begin();
    providers::open("postgresql://u:hush@localhost:1/scoria", &Options::default()).await.unwrap();
    let said = log.said();
    for word in ["WARN", "65,536 locks", "unrelated operations may wait for each other", "database://"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("hush"), "{said}");
}
