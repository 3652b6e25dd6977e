//! Locks that cannot be had, and locks that are gone while an operation cleans up.

use std::time::Duration;

use scoria_model::{FaultClass, SnapshotStatus, Timestamp, Volume, VolumeStatus, object};
use scoria_rpc::Request;
use serde_json::json;

use super::world::{PROJECT, World, create_request, request};
use crate::failure::Failure;

/// A world in which nobody waits for long.
async fn impatient() -> World {
    World::with(|options| options.lock_wait_timeout = Some(Duration::from_millis(50))).await
}

/// Runs a request while another instance holds the volume's files.
async fn run_without_lock(world: &World, volume: &Volume, request: &Request) {
    let owner = scoria_coordination::Owner::default();
    let taken = world
        .other_instance(scoria_coordination::LockRequest::new(owner).exclusive(format!("local-{}", volume.id)))
        .await;
    let failure = world.run(request).await.unwrap_err();
    let Failure::Fault(fault) = failure else { panic!("{failure}") };
    assert_eq!(fault.class, FaultClass::CinderException);
    assert!(fault.message.contains("is held"), "{fault}");
    taken.release().await.unwrap();
    world.nothing_left_over().await;
}

#[tokio::test]
async fn an_extension_without_its_lock_gives_its_reservations_back_and_says_so() {
    let world = impatient().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Extending).await;
    let deltas = [("gigabytes".to_owned(), 2)].into();
    let defaults = scoria_db::QuotaDefaults::default();
    let expire = Timestamp::now().plus_seconds(3600);
    let reservations = world.db.quota_reserve(PROJECT, &deltas, &defaults, expire).await.unwrap();
    assert_eq!(world.db.quota_usages(PROJECT).await.unwrap()["gigabytes"].reserved, 2);
    let args = json!({"volume": object::encode_volume(&volume), "new_size": 3, "reservations": reservations});
    run_without_lock(&world, &volume, &request("extend_volume", args)).await;
    let row = world.get(&volume.id).await;
    assert_eq!((row.status, row.size), (VolumeStatus::ErrorExtending, 1));
    let usage = &world.db.quota_usages(PROJECT).await.unwrap()["gigabytes"];
    assert_eq!((usage.reserved, usage.in_use), (0, 1), "what the volume itself uses");
}

#[tokio::test]
async fn the_others_say_so_too() {
    let world = impatient().await;
    let creating = world.row(1, |_| {}).await;
    run_without_lock(&world, &creating, &create_request(&creating, json!({}))).await;
    assert_eq!(world.get(&creating.id).await.status, VolumeStatus::Error);

    let volume = world.volume(1).await;
    let made = world.snapshot(&volume).await;
    world.set_snapshot_status(&made.id, SnapshotStatus::Deleting).await;
    let args = json!({"snapshot": object::encode_snapshot(&made)});
    run_without_lock(&world, &volume, &request("delete_snapshot", args)).await;
    let row = world.db.snapshot_get(&made.id).await.unwrap().unwrap();
    assert_eq!(row.status, SnapshotStatus::ErrorDeleting);

    let asked = world.snapshot_row(&volume).await;
    let args = json!({"snapshot": object::encode_snapshot(&asked)});
    run_without_lock(&world, &volume, &request("create_snapshot", args)).await;
    let row = world.db.snapshot_get(&asked.id).await.unwrap().unwrap();
    assert_eq!(row.status, SnapshotStatus::Error);

    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    let args = json!({"volume": object::encode_volume(&volume)});
    run_without_lock(&world, &volume, &request("delete_volume", args)).await;
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::ErrorDeleting);
}

#[tokio::test]
async fn whoever_cleans_up_stops_as_well_when_the_clock_says_that_its_locks_are_over() {
    let world = World::new().await;
    let create = create_request(&world.row(1, |_| {}).await, json!({}));
    let name = "local-held-here".to_owned();
    let job = world.job(&create, false);
    let wanted = crate::locks::request("create_volume", None, "none").exclusive(name);
    let held = world.manager.hold(&job, wanted).await.unwrap();
    let cleaning = held.without_deadline();
    cleaning.check("undo").unwrap();
    world.end_leases();
    for held in [&cleaning, &held] {
        assert!(!held.work.cancel.is_cancelled(), "nobody has told");
        assert!(matches!(held.check("undo"), Err(Failure::Interrupted(crate::Interruption::LockLost))));
        assert!(held.work.cancel.is_cancelled(), "the driver is told");
    }
    drop(cleaning);
    held.release().await;
    world.no_lock_is_held().await;
}
