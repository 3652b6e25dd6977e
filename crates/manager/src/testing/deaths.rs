//! Messages that bring down whoever takes them.

use scoria_model::{ResourceType, SnapshotStatus, Volume, VolumeStatus, object};
use scoria_rpc::{Request, Transport};
use serde_json::json;

use super::log::Log;
use super::script::Trial;
use super::serving::{serve, to_host, until};
use super::world::{World, create_request, request};
use crate::failure::Failure;

const QUEUE: &str = "cinder-volume.node@local.node";

fn delete(volume: &Volume) -> Request {
    request("delete_volume", json!({"volume": object::encode_volume(volume), "cascade": true}))
}

async fn messages_about(world: &World, resource: &str) -> i64 {
    let mut database = world.raw_database().await;
    let count = sqlx::query_scalar("SELECT count(*) FROM messages WHERE resource_uuid = ?").bind(resource);
    count.fetch_one(&mut database).await.unwrap()
}

/// Sends a message whose every holder dies of its first step. It goes round until it is put aside, which is when `settled`.
async fn send(world: &World, transport: &dyn Transport, request: Request, settled: impl AsyncFnMut() -> bool) {
    let before = world.manager.script.deaths();
    world.manager.script.set(Trial::Die);
    transport.cast(&to_host(), request).await.unwrap();
    until("put aside", settled).await;
    until("idle", async || world.manager.running().list().is_empty()).await;
    // It does not come again.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(world.broker.waiting(QUEUE), 0);
    assert_eq!(world.manager.script.deaths() - before, 3);
}

#[tokio::test]
async fn a_message_that_has_brought_down_three_holders_is_put_aside() {
    let (log, _capturing) = Log::capture();
    let world = World::new().await;
    let transport = serve(&world).await;
    let volume = world.row(1, |_| {}).await;
    // As the scheduler leaves it: its own row, not yet taken by a volume service.
    world.db.worker_create_unclaimed(ResourceType::Volume, volume.id.as_str(), "creating").await.unwrap();
    // One that may be rescheduled: it must not go and kill elsewhere.
    let spec = scoria_model::object::RequestSpec::for_volume(&volume);
    let more = json!({
        "request_spec": spec.to_object(),
        "filter_properties": {"retry": {"num_attempts": 1, "hosts": ["node@local#local"]}},
    });
    let failed = async || world.get(&volume.id).await.status == VolumeStatus::Error;
    send(&world, &*transport, create_request(&volume, more), failed).await;
    assert!(world.broker.requests("create_volume").len() <= 1, "nobody else is asked");
    assert_eq!(messages_about(&world, volume.id.as_str()).await, 1);
    assert_eq!(log.lines_with("put aside: it has brought down 3 instances"), 1);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn the_same_of_snapshots_and_deletions() {
    let world = World::new().await;
    let transport = serve(&world).await;
    let volume = world.volume(1).await;
    let snapshot = world.snapshot_row(&volume).await;
    let create = request("create_snapshot", json!({"snapshot": object::encode_snapshot(&snapshot)}));
    let failed = async || {
        let row = world.db.snapshot_get(&snapshot.id).await.unwrap().unwrap();
        row.status == SnapshotStatus::Error
    };
    send(&world, &*transport, create, failed).await;
    assert_eq!(messages_about(&world, snapshot.id.as_str()).await, 1);

    world.set_status(&volume.id, VolumeStatus::Extending).await;
    let args = json!({"volume": object::encode_volume(&volume), "new_size": 2, "reservations": []});
    let failed = async || world.get(&volume.id).await.status == VolumeStatus::ErrorExtending;
    send(&world, &*transport, request("extend_volume", args), failed).await;
    assert_eq!(messages_about(&world, volume.id.as_str()).await, 1);

    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    let failed = async || world.get(&volume.id).await.status == VolumeStatus::ErrorDeleting;
    send(&world, &*transport, delete(&volume), failed).await;
    world.nothing_left_over().await;

    // Asked for anew it is a new piece of work.
    world.manager.script.set(Trial::Plain);
    world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    transport.cast(&to_host(), delete(&volume)).await.unwrap();
    until("deleted", async || world.db.volume_get(&volume.id).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn work_that_was_put_down_in_order_any_number_of_times_is_still_done() {
    let world = World::new().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    let delete = delete(&volume);
    for again in [false, true, true, true, true, true] {
        world.manager.script.set(Trial::LockLostAt(1));
        let failure = world.manager.perform(&world.job(&delete, again), &delete).await.unwrap_err();
        assert!(matches!(failure, Failure::Interrupted(_)), "{failure}");
    }
    world.manager.script.set(Trial::Plain);
    world.manager.perform(&world.job(&delete, true), &delete).await.unwrap();
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_sweep_does_not_die_of_it_for_ever_either() {
    let world = World::new().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    let delete = delete(&volume);
    for again in [false, true, true] {
        world.manager.script.set(Trial::ReplyLostAt(0));
        // Not put down: this is what a death leaves.
        crate::operations::run(&world.manager, &world.job(&delete, again), &delete).await.unwrap_err();
    }
    world.manager.script.set(Trial::Die);
    world.manager.sweep(true).await.unwrap();
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::ErrorDeleting);
    world.nothing_left_over().await;
}
