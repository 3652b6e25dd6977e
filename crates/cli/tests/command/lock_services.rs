//! `scoria locks` with every lock service that a configuration can name: on real servers, some of which are killed.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoria_testkit::faults::{Link, Proxy};
use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, Redis, ZooKeeper};
use tokio::runtime::Runtime;

use crate::place::Place;
use crate::run::{Run, command, scoria, until};

/// Room for a busy machine, where a loss is to be noticed at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What a lock service can do, as far as the command shows it.
#[derive(Clone, Copy)]
struct Abilities {
    token: bool,
    shared: bool,
    /// It tells of other processes' holders.
    lists: bool,
}

/// Starts a server of the test's own.
fn start<T>(server: impl Future<Output = anyhow::Result<T>>) -> T {
    Runtime::new().unwrap().block_on(server).unwrap()
}

/// Everything that `scoria locks` can do.
fn serves(place: &Place, able: Abilities) {
    runs_one_command_at_a_time(place, able);
    takes_several_at_once(place, able);
    lists_waits_and_breaks(place, able);
}

fn runs_one_command_at_a_time(place: &Place, able: Abilities) {
    // A free lock is had at the first try: there is a connection before anything is asked.
    let run = place.run(&["one", "--wait", "0"], "echo $SCORIA_LOCK_NAME ${SCORIA_FENCING_TOKEN-none}; exit 7");
    assert_eq!(run.code, Some(7), "{run:?}");
    let first = token(&run, "one", able);

    let held = place.hold(&["one"]);
    for wait in ["0", "1"] {
        let error = place.run(&["one", "--wait", wait], "echo never").failed(73);
        assert!(error.contains("lock 'one' is held") && error.contains("--wait SECONDS"), "{error}");
    }
    assert_eq!(place.run(&["two", "--wait", "0"], "echo beside").stdout, "beside\n");
    drop(held);
    let run = place.run(&["one", "--wait", "30"], "echo $SCORIA_LOCK_NAME ${SCORIA_FENCING_TOKEN-none}");
    let second = token(&run, "one", able);
    assert!(second > first || !able.token, "{first:?} {second:?}");

    let _reader = place.hold(&["one", "--shared"]);
    let beside = place.run(&["one", "--shared", "--wait", "0"], "echo beside");
    assert_eq!(beside.code, Some(if able.shared { 0 } else { 73 }), "{beside:?}");
    assert_eq!(place.run(&["one", "--wait", "0"], "echo never").code, Some(73));
}

/// The fencing token that the command was given.
fn token(run: &Run, names: &str, able: Abilities) -> Option<u64> {
    let token = run.stdout.trim().strip_prefix(names).unwrap_or_else(|| panic!("{run:?}")).trim();
    assert_eq!(token != "none", able.token, "{run:?}");
    assert_eq!(run.stderr.contains(&format!("fencing token {token}")), able.token, "{run:?}");
    token.parse().ok()
}

fn takes_several_at_once(place: &Place, able: Abilities) {
    let run = place.run(&["b", "c", "a", "--wait", "30"], "echo $SCORIA_LOCK_NAME ${SCORIA_FENCING_TOKEN-none}");
    token(&run, "a b c", able);
    let _held = place.hold(&["b"]);
    assert!(place.run(&["a", "b", "c", "--wait", "0"], "echo never").failed(73).contains("'b'"));
    // What was taken before was given back.
    assert_eq!(place.run(&["a", "c", "--wait", "30"], "true").code, Some(0));
}

fn lists_waits_and_breaks(place: &Place, able: Abilities) {
    let mut held = place.hold(&["one"]);
    if able.lists {
        let shown = place.locks(&["--json", "show", "one"]).json();
        let holder = &shown["holders"][0];
        assert_eq!((&holder["operation"], &holder["state"]), (&"locks run".into(), &"held".into()), "{shown}");
        assert!(holder["resource"].as_str().is_some_and(|resource| resource.starts_with("sh (pid ")), "{shown}");
        assert!(holder["since"].is_string() && holder["host"].is_string(), "{shown}");
        assert_eq!(holder["token"].is_u64(), able.token, "{shown}");
        let listed = place.locks(&["--json", "list"]).json();
        assert_eq!((listed.as_array().map(Vec::len), &listed[0]["token"]), (Some(1), &holder["token"]), "{listed}");
        assert!(place.locks(&["list"]).done().contains("locks run"));
        assert!(place.locks(&["show", "other"]).failed(3).contains("nobody holds lock 'other'"));
        assert!(place.locks(&["break", "other", "--yes"]).failed(3).contains("nobody holds lock 'other'"));
    } else {
        for silent in [place.locks(&["list"]), place.locks(&["show", "one"])] {
            assert!(silent.failed(1).contains("does not tell who holds its locks"));
        }
        assert_eq!(place.locks(&["break", "other", "--yes"]).code, Some(3));
    }
    let error = place.locks(&["wait", "one", "--timeout", "0.5"]).failed(73);
    assert!(error.contains("--timeout SECONDS"), "{error}");

    let args = ["--config-file", &place.conf, "locks", "wait", "one"];
    let waiting = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = place.locks(&["break", "one", "--yes"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.starts_with("lock 'one' was taken away from "), "{told:?}");
    assert!(told.stderr.contains("lock was taken away from its holder"), "it is logged: {told:?}");
    let error = told_of_the_loss(held.end());
    assert!(error.contains("lock 'one' was lost: ") && error.contains("process group"), "{error}");
    held.grandchild_is_gone();
    assert_eq!(Run::from(waiting.wait_with_output().unwrap()).done(), "");
    assert_eq!(place.locks(&["wait", "one", "--timeout", "30"]).done(), "");
}

/// The line after the one with the fencing token.
fn told_of_the_loss(run: Run) -> String {
    assert_eq!(run.code, Some(75), "{run:?}");
    run.stderr.lines().filter(|line| !line.starts_with("scoria: held: ")).collect()
}

/// The server is gone: so is the command, with the reason, and before anybody else could have the lock (`docs/locks.md` says after
/// what time).
fn ends_with_the_server(place: &Place, life: Duration, kill: impl FnOnce()) {
    let mut held = place.hold(&["one", "two"]);
    let killed = Instant::now();
    kill();
    until("the command is ended", || crate::place::is_gone(held.grandchild));
    let (lost, error) = (killed.elapsed(), told_of_the_loss(held.end()));
    assert!(error.contains(" was lost: ") && error.contains("process group"), "{error}");
    assert!(lost < life, "{lost:?}: {error}");
    println!("lost after {lost:?}, told after {:?}: {error}", killed.elapsed());

    let begun = Instant::now();
    let error = place.run(&["one", "--wait", "1"], "echo never").failed(69);
    assert!(error.contains("[coordination] backend_url"), "{error}");
    println!("nobody there after {:?}: {error}", begun.elapsed());
}

/// A holder that is stopped for longer than its lock lives: its command is stopped too before anybody else has the lock, and does
/// not go on afterwards.
fn is_stopped_with_its_holder(place: &Place) {
    let mut held = place.hold(&["one"]);
    held.signal(Signal::SIGSTOP);
    let next = place.run(&["one", "--wait", "60"], &format!("cut -d ' ' -f 3 /proc/{}/stat", held.grandchild));
    assert_eq!((next.code, next.stdout.as_str()), (Some(0), "T\n"), "{next:?}");
    held.signal(Signal::SIGCONT);
    assert!(told_of_the_loss(held.end()).contains(" was lost: "));
    held.grandchild_is_gone();
}

/// Nobody hears of a holder that is cut off: its command is gone when the next one gets the lock.
fn is_gone_before_the_next(server: u16, url: impl Fn(u16) -> String) {
    let proxy = Proxy::start(server).unwrap();
    let (far, near) = (Place::on(&url(proxy.port())), Place::on(&url(server)));
    let mut held = far.hold(&["one"]);
    proxy.set(Link::Stalled);
    // A process that has ended may not have been buried yet.
    let look = format!("cut -d ' ' -f 3 /proc/{}/stat 2> /dev/null || echo gone", held.grandchild);
    let next = near.run(&["one", "--wait", "60"], &look);
    assert!(next.code == Some(0) && ["gone\n", "Z\n"].contains(&next.stdout.as_str()), "{next:?}");
    assert!(told_of_the_loss(held.end()).contains(" was lost: "));
}

#[test]
fn redis() {
    let server = start(Redis::start());
    serves(&Place::on(&server.url()), Abilities { token: true, shared: false, lists: true });
}

#[test]
fn redis_and_a_holder_that_is_stopped() {
    let server = start(Redis::start());
    is_stopped_with_its_holder(&Place::on(&format!("{}?lock_timeout=3", server.url())));
}

#[test]
fn redis_and_a_holder_that_is_cut_off() {
    let server = start(Redis::start());
    is_gone_before_the_next(server.port(), |port| format!("redis://127.0.0.1:{port}?lock_timeout=8"));
}

#[test]
fn redis_dies() {
    let mut server = start(Redis::start());
    ends_with_the_server(&Place::on(&server.url()), AT_ONCE, || server.kill());
}

#[test]
fn zookeeper() {
    let server = start(ZooKeeper::start());
    serves(&Place::on(&server.url()), Abilities { token: true, shared: true, lists: true });
}

#[test]
fn zookeeper_and_a_holder_that_is_stopped() {
    let server = start(ZooKeeper::start());
    is_stopped_with_its_holder(&Place::on(&format!("{}?timeout=3", server.url())));
}

#[test]
fn zookeeper_and_a_holder_that_is_cut_off() {
    let server = start(ZooKeeper::start());
    is_gone_before_the_next(server.port(), |port| format!("zookeeper://127.0.0.1:{port}?timeout=6"));
}

#[test]
fn zookeeper_dies() {
    let mut server = start(ZooKeeper::start());
    ends_with_the_server(&Place::on(&server.url()), Duration::from_secs(10), || server.kill());
}

#[test]
fn etcd() {
    let server = start(Etcd::start());
    serves(&Place::on(&server.url()), Abilities { token: true, shared: true, lists: true });
    serves(&Place::on(&server.tooz_url()), Abilities { token: true, shared: false, lists: true });
}

#[test]
fn etcd_and_a_holder_that_is_stopped() {
    let server = start(Etcd::start());
    is_stopped_with_its_holder(&Place::on(&format!("{}?timeout=3", server.url())));
}

#[test]
fn etcd_and_a_holder_that_is_cut_off() {
    let server = start(Etcd::start());
    is_gone_before_the_next(server.port(), |port| format!("etcd://127.0.0.1:{port}?timeout=6"));
}

#[test]
fn etcd_dies() {
    let mut server = start(Etcd::start());
    ends_with_the_server(&Place::on(&server.url()), Duration::from_secs(15), || server.kill(0));
}

#[test]
fn etcd_of_tooz_dies() {
    let mut server = start(Etcd::start());
    ends_with_the_server(&Place::on(&server.tooz_url()), Duration::from_secs(30), || server.kill(0));
}

#[test]
fn memcached() {
    let server = start(Memcached::start());
    serves(&Place::on(&server.url()), Abilities { token: false, shared: false, lists: false });
}

#[test]
fn memcached_and_a_holder_that_is_stopped() {
    let server = start(Memcached::start());
    is_stopped_with_its_holder(&Place::on(&format!("{}?lock_timeout=5", server.url())));
}

#[test]
fn memcached_dies() {
    let mut server = start(Memcached::start());
    ends_with_the_server(&Place::on(&server.url()), AT_ONCE, || server.kill());
}

#[test]
fn mysql() {
    let mut server = start(MariaDb::start());
    let place = Place::on(&server.sqlx_url());
    serves(&place, Abilities { token: false, shared: false, lists: false });
    ends_with_the_server(&place, AT_ONCE, || server.kill().unwrap());
}

#[test]
fn postgresql() {
    let mut server = start(Postgres::start());
    is_stopped_with_its_holder(&Place::in_table(&server.url(), Duration::from_secs(3)));
    let place = Place::on(&server.sqlx_url().replace("postgres://", "postgresql://"));
    serves(&place, Abilities { token: false, shared: false, lists: false });
    ends_with_the_server(&place, AT_ONCE, || server.kill().unwrap());
}

#[test]
fn who_cannot_be_reached_is_told_so_without_the_password() {
    let nobody = format!("127.0.0.1:{}", scoria_testkit::free_port().unwrap());
    for url in [format!("redis://:hush@{nobody}"), format!("mysql://cinder:hush@{nobody}/cinder")] {
        let place = Place::on(&url);
        let error = place.run(&["one", "--wait", "0"], "echo never").failed(69);
        assert!(error.contains("[coordination] backend_url") && error.contains("refused"), "{error}");
        assert!(place.locks(&["list"]).failed(69).contains("refused"));
        let told = place.locks(&["-v", "show", "one"]);
        assert!(told.code == Some(69) && !told.stderr.contains("hush"), "{told:?}");
    }
}

/// Of the configuration itself: SQLite here.
#[test]
fn database() {
    let place = Place::on("database://");
    let error = place.run(&["one"], "echo never").failed(1);
    assert!(error.contains("scoria db sync"), "{error}");
    assert_eq!(scoria(&["--config-file", &place.conf, "db", "sync"]).code, Some(0));
    serves(&place, Abilities { token: true, shared: false, lists: true });
}
