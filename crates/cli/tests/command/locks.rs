//! `scoria locks`: a command under a lock of real lock files.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::place::{Holder, Place};
use crate::run::{Run, command, scoria, until};

#[test]
fn the_command_runs_under_the_lock_and_its_exit_code_is_passed_on() {
    let place = Place::new();
    let run = place.run(&["one"], "echo $SCORIA_LOCK_NAME ${SCORIA_FENCING_TOKEN-none}; ls cinder-one; exit 7");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(7), "one none\ncinder-one\n", ""));
    assert_eq!(place.run(&["one"], "kill -KILL $$").code, Some(128 + 9));

    let missing = scoria(&["--config-file", &place.conf, "locks", "run", "one", "--", "no-such-program"]);
    assert!(missing.failed(127).contains("no-such-program"));
    let closed = scoria(&["--config-file", &place.conf, "locks", "run", "one", "--", &place.conf]);
    assert!(closed.failed(126).contains("cinder.conf"));
    // None of them has kept the lock.
    assert_eq!(place.run(&["one", "--wait", "0"], "true").done(), "");
}

#[test]
fn whoever_comes_too_late_is_told_who_holds_it() {
    let place = Place::new();
    let holder = place.hold(&["one"]);
    let begun = Instant::now();
    let error = place.run(&["one", "--wait", "1"], "echo never").failed(73);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(error.contains("'one'") && error.contains("--wait"), "{error}");
    assert_eq!(place.run(&["one", "--wait", "0"], "echo never").code, Some(73));
    assert_eq!(place.run(&["two", "--wait", "0"], "echo other").stdout, "other\n");

    let held = scoria(&["--config-file", &place.conf, "--json", "locks", "list"]).json();
    assert_eq!(held.as_array().unwrap().len(), 1, "{held}");
    assert_eq!(
        (&held[0]["name"], &held[0]["operation"], &held[0]["held"], &held[0]["state"]),
        (&"one".into(), &"locks run".into(), &true.into(), &"held".into())
    );
    assert!(scoria(&["--config-file", &place.conf, "locks", "list"]).done().contains("one"));
    drop(holder);
    assert_eq!(place.run(&["one", "--wait", "5"], "true").code, Some(0));
}

#[test]
fn several_locks_are_one_sorted_set() {
    let place = Place::new();
    let run = place.run(&["two", "one", "two"], "echo $SCORIA_LOCK_NAME; ls cinder-one cinder-two");
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "one two\ncinder-one\ncinder-two\n"), "{run:?}");

    let _holder = place.hold(&["two"]);
    let error = place.run(&["one", "two", "--wait", "0"], "echo never").failed(73);
    assert!(error.contains("'two'"), "{error}");
    // What was taken before was given back.
    assert_eq!(place.run(&["one", "--wait", "0"], "echo again").stdout, "again\n");
}

#[test]
fn one_of_several_that_is_lost_ends_the_command() {
    let place = Place::new();
    let mut holder = place.hold(&["one", "two"]);
    std::fs::remove_file(place.lock_file("two")).unwrap();
    let error = holder.end().failed(75);
    assert!(error.contains("lock 'two' was lost: "), "{error}");
    holder.grandchild_is_gone();
    assert_eq!(place.run(&["one", "two", "--wait", "5"], "true").code, Some(0));
}

#[test]
fn one_lock_is_shown_with_its_holders_and_waiters() {
    let place = Place::new();
    let locks = |args: &[&str]| scoria(&[&["--config-file", place.conf.as_str(), "locks"], args].concat());
    assert!(locks(&["show", "one"]).failed(3).contains("nobody holds lock 'one'"));
    assert!(locks(&["show", "cinder-one"]).failed(2).contains("without 'cinder-'"));

    let holder = place.hold(&["one"]);
    let mut waiting = place.under(&["one"], "echo never").stdout(Stdio::piped()).spawn().unwrap();
    until("somebody waits", || {
        let shown = locks(&["--json", "show", "one"]).json();
        shown["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1)
    });
    let shown = locks(&["--json", "show", "one"]).json();
    assert_eq!((&shown["name"], shown["holders"].as_array().unwrap().len()), (&"one".into(), 1), "{shown}");
    let resource = shown["holders"][0]["resource"].as_str().unwrap().to_owned();
    assert!(resource.starts_with("sh (pid "), "enough to find the process: {resource}");
    assert!(shown["holders"][0]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{shown}");
    let table = locks(&["show", "one"]).done();
    for word in ["instance", "host", "operation", "request id", "resource", "since", "token"] {
        assert_eq!(table.matches(&format!("{word} ")).count(), 2, "{word}: {table}");
    }
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    drop(holder);
}

#[test]
fn somebody_waits_until_a_lock_is_free() {
    let place = Place::new();
    let wait = ["--config-file", &place.conf, "locks", "wait", "one"];
    assert_eq!(scoria(&wait).done(), "");
    let holder = place.hold(&["one"]);
    let error = scoria(&[&wait[..], &["--timeout", "0.3"]].concat()).failed(73);
    assert!(error.contains("'one'"), "{error}");
    let waiting = command(&wait).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it waits", || {
        let shown = scoria(&["--config-file", &place.conf, "--json", "locks", "show", "one"]).json();
        shown["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1)
    });
    drop(holder);
    assert_eq!(Run::from(waiting.wait_with_output().unwrap()).done(), "");
    assert!(scoria(&["--config-file", &place.conf, "locks", "show", "one"]).failed(3).contains("nobody"));
}

#[test]
fn breaking_is_asked_for_and_a_lock_file_s_holder_is_to_be_ended_instead() {
    let place = Place::new();
    let broken = |args: &[&str]| {
        command(&[&["--config-file", &place.conf, "locks", "break", "one"], args].concat())
            .stdin(Stdio::null())
            .output()
            .map(Run::from)
            .unwrap()
    };
    assert!(broken(&["--yes"]).failed(3).contains("nobody holds lock 'one'"));
    let _holder = place.hold(&["one"]);
    let error = broken(&[]).failed(2);
    assert!(error.contains("--yes") && error.contains("operation locks run, resource sh (pid "), "{error}");
    assert!(broken(&["--yes"]).failed(1).contains("end the process that holds 'one'"));
    assert_eq!(place.run(&["one", "--wait", "0"], "echo never").code, Some(73));
}

#[test]
fn readers_go_side_by_side_and_keep_writers_out() {
    let place = Place::new();
    let _reader = place.hold(&["one", "--shared"]);
    assert_eq!(place.run(&["one", "--shared", "--wait", "0"], "echo beside").stdout, "beside\n");
    assert_eq!(place.run(&["one", "--wait", "0"], "echo never").code, Some(73));
}

#[test]
fn a_lost_lock_ends_the_command_with_its_process_group() {
    let place = Place::new();
    let mut holder = place.hold(&["one"]);
    std::fs::remove_file(place.lock_file("one")).unwrap();
    let error = holder.end().failed(75);
    assert!(error.contains("lock 'one' was lost: ") && error.contains("process group"), "{error}");
    holder.grandchild_is_gone();
}

#[test]
fn signals_go_to_the_command() {
    let place = Place::new();
    let mut holder = place.hold(&["one"]);
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.end().code, Some(128 + 15));
    holder.grandchild_is_gone();
    assert_eq!(place.run(&["one", "--wait", "5"], "true").code, Some(0));
}

#[test]
fn a_command_does_not_outlive_a_killed_scoria() {
    let place = Place::new();
    let mut holder = place.hold(&["one"]);
    holder.signal(Signal::SIGKILL);
    let run = holder.end();
    assert_eq!(run.code, None);
    assert!(run.stderr.contains("so was the command"), "{run:?}");
    holder.grandchild_is_gone();
    assert_eq!(place.run(&["one", "--wait", "5"], "true").code, Some(0));
}

#[test]
fn a_command_is_stopped_while_scoria_is() {
    let place = Place::new();
    let holder = place.hold(&["one"]);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", holder.grandchild)).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next()
    };
    holder.signal(Signal::SIGSTOP);
    until("it is stopped", || state() == Some('T'));
    holder.signal(Signal::SIGCONT);
    until("it goes on: the lock was held all the time", || state() == Some('S'));
}

#[test]
fn somebody_who_waits_can_be_called_off() {
    let place = Place::new();
    let _holder = place.hold(&["one"]);
    let mut waiting = place.under(&["one"], "echo never");
    let mut waiting = Holder { child: Some(waiting.stdout(Stdio::piped()).spawn().unwrap()), grandchild: Pid::this() };
    until("it listens", || is_up(&waiting));
    waiting.signal(Signal::SIGTERM);
    let run = waiting.end();
    assert_eq!((run.code, run.stdout.as_str()), (Some(128 + 15), ""));
}

/// It listens to SIGTERM: bit 14 of the caught signals.
fn is_up(holder: &Holder) -> bool {
    let id = holder.child.as_ref().unwrap().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & (1 << 14) != 0
}

#[test]
fn names_with_the_prefix_and_locks_of_one_process_are_refused() {
    let place = Place::new();
    assert!(place.run(&["cinder-one"], "true").failed(2).contains("without 'cinder-'"));
    assert!(place.run(&["a/b"], "true").failed(2).contains("'/'"));
    let text = std::fs::read_to_string(&place.conf).unwrap() + "[coordination]\nbackend_url = memory://\n";
    std::fs::write(&place.conf, text).unwrap();
    assert!(place.run(&["one"], "true").failed(1).contains("one process"));
}

#[test]
fn without_a_configuration_the_admin_port_is_asked() {
    let url = format!("http://127.0.0.1:{}", scoria_testkit::free_port().unwrap());
    for what in ["locks", "operations"] {
        let error = scoria(&["--admin", &url, what, "list"]).failed(69);
        assert!(error.contains(&url) && error.contains("--admin"), "{error}");
    }
}
