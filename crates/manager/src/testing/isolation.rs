//! Cut off from the lock service or from the database.

use std::time::Duration;

use scoria_model::{Volume, VolumeStatus, object};
use scoria_rpc::{Request, Transport};
use serde_json::json;
use sqlx::Executor;

use super::log::Log;
use super::script::Trial;
use super::serving::{serve, to_host, until};
use super::world::{World, create_request, request};
use crate::options::Options;

const QUEUE: &str = "cinder-volume.node@local.node";

/// Everything a hundred times as fast, except that the machine may be slow.
fn hasty(options: &mut Options) {
    options.report_interval = Duration::from_millis(50);
    options.isolation_grace = Duration::from_millis(50);
    options.service_down_time = Duration::from_secs(2);
}

fn extend(volume: &Volume) -> Request {
    request("extend_volume", json!({"volume": object::encode_volume(volume), "new_size": 2, "reservations": []}))
}

async fn isolated(world: &World) -> String {
    until("isolated", async || world.manager.isolated().is_some()).await;
    world.manager.isolated().unwrap()
}

async fn heartbeats(world: &World) -> i64 {
    world.db.service_get("node@local", "cinder-volume").await.unwrap().unwrap().report_count
}

#[tokio::test]
async fn without_locks_no_work_is_taken_no_heartbeat_sent_and_both_come_back() {
    let (log, _capturing) = Log::capture();
    let world = World::with(hasty).await;
    let transport = serve(&world).await;
    world.manager.start_reports();
    until("a heartbeat", async || heartbeats(&world).await > 0).await;
    world.set_locks_down(Some("no route to host"));
    assert_eq!(isolated(&world).await, "locks unavailable: no route to host");
    let volume = world.row(1, |_| {}).await;
    transport.cast(&to_host(), create_request(&volume, json!({}))).await.unwrap();
    // One that was under way may still arrive.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let silent = heartbeats(&world).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(heartbeats(&world).await, silent);
    assert_eq!(world.broker.waiting(QUEUE), 1);
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Creating);
    world.set_locks_down(None);
    until("available", async || world.get(&volume.id).await.status == VolumeStatus::Available).await;
    assert_eq!(world.manager.isolated(), None);
    until("a heartbeat", async || heartbeats(&world).await > silent).await;
    until("acknowledged", async || world.broker.waiting(QUEUE) == 0).await;
    assert_eq!(log.lines_with("locks unavailable: no route to host; no work is taken"), 1);
    assert_eq!(log.lines_with("locks unavailable"), 1);
    assert_eq!(log.lines_with("available again, taking work"), 1);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_service_starts_without_its_locks_and_begins_when_they_are_there() {
    let world = World::not_started(hasty).await;
    world.set_locks_down(Some("connection refused"));
    world.manager.start().await.unwrap();
    let manager = world.manager.clone();
    world.manager.tasks.spawn("serve", async move { manager.serve().await.unwrap() });
    assert_eq!(isolated(&world).await, "locks unavailable: connection refused");
    assert!(world.manager.is_driver_ready());
    let volume = world.row(1, |_| {}).await;
    let transport = world.broker.transport();
    let asked = async || {
        transport.cast(&to_host(), create_request(&volume, json!({}))).await.unwrap();
        world.broker.waiting(QUEUE) > 0
    };
    until("waiting in its queue", asked).await;
    world.set_locks_down(None);
    until("available", async || world.get(&volume.id).await.status == VolumeStatus::Available).await;
    let ping = request("get_capabilities", json!({"discover": false}));
    let answers = async || transport.call(&to_host(), ping.clone(), Duration::from_millis(200)).await.is_ok();
    until("answers", answers).await;
}

#[tokio::test]
async fn what_waits_for_a_lock_is_handed_back_when_the_lock_service_goes() {
    let world = World::with(hasty).await;
    let transport = serve(&world).await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Extending).await;
    let owner = scoria_coordination::Owner::default();
    let taken = world
        .other_instance(scoria_coordination::LockRequest::new(owner).exclusive(format!("local-{}", volume.id)))
        .await;
    transport.cast(&to_host(), extend(&volume)).await.unwrap();
    let waits = async || world.manager.running().list().iter().any(|running| running.state == "waiting for locks");
    until("waiting", waits).await;
    world.set_locks_down(Some("no route to host"));
    isolated(&world).await;
    until("handed back", async || world.broker.waiting(QUEUE) == 1).await;
    until("idle", async || world.manager.running().list().is_empty()).await;
    taken.release().await.unwrap();
    world.set_locks_down(None);
    until("extended", async || world.get(&volume.id).await.size == 2).await;
    until("idle", async || world.manager.running().list().is_empty()).await;
    world.nothing_left_over().await;
}

#[tokio::test]
async fn without_the_database_for_too_long_what_runs_stops_at_its_next_safe_point_and_is_finished_later() {
    let world = World::with(hasty).await;
    let transport = serve(&world).await;
    world.manager.start_reports();
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Extending).await;
    world.manager.script.set(Trial::PauseAt(1));
    transport.cast(&to_host(), extend(&volume)).await.unwrap();
    until("before its second step", async || world.manager.script.steps() == 2).await;
    let mut database = world.raw_database().await;
    database.execute("BEGIN EXCLUSIVE").await.unwrap();
    assert_eq!(isolated(&world).await, "database unavailable for longer than service_down_time");
    world.manager.script.resume();
    until("stopped and handed back", async || world.broker.waiting(QUEUE) == 1).await;
    world.no_lock_is_held().await;
    world.manager.script.set(Trial::Plain);
    database.execute("ROLLBACK").await.unwrap();
    until("back", async || world.manager.isolated().is_none()).await;
    until("extended", async || world.get(&volume.id).await.size == 2).await;
    until("idle", async || world.manager.running().list().is_empty()).await;
    world.nothing_left_over().await;
}
