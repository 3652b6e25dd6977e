//! Two and more managers of one cluster, one of them killed.

use std::sync::Arc;
use std::time::Duration;

use scoria_model::{ResourceType, SnapshotStatus, Volume, VolumeStatus};
use serde_json::json;

use super::script::Trial;
use super::serving::until;
use super::world::{World, create_request};
use crate::failure::{Failure, Interruption};
use crate::manager::VolumeManager;
use crate::recovery::{Kind, Left};

/// A cluster whose members count as dead after two seconds; its messages are no process' own.
async fn cluster() -> World {
    World::with(|options| {
        options.cluster = Some("c".to_owned());
        options.messages_die_with_us = false;
        options.report_interval = Duration::from_millis(500);
        options.service_down_time = Duration::from_secs(2);
        options.late_ack_ceiling = Duration::from_secs(1);
        options.recovery_grace = Duration::ZERO;
    })
    .await
}

fn clustered(volume: &mut Volume) {
    volume.cluster_name = Some("c@local#local".to_owned());
}

async fn clustered_volume(world: &World) -> Volume {
    let volume = world.row(1, clustered).await;
    world.run(&create_request(&volume, json!({}))).await.unwrap();
    world.get(&volume.id).await
}

/// Kills the world's own manager, and waits until others see it.
async fn killed(world: &World) {
    world.die().await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
}

/// The row of a volume that the world's own manager has taken.
async fn taken(world: &World, volume: &Volume, status: VolumeStatus) {
    world.set_status(&volume.id, status.clone()).await;
    let (kind, me) = (ResourceType::Volume, world.manager.service().id);
    world.db.worker_claim(kind, volume.id.as_str(), status.as_str(), None, me).await.unwrap().unwrap();
}

#[tokio::test]
async fn work_of_a_member_that_was_killed_is_carried_on_by_another() {
    let world = cluster().await;
    let other = world.member("other").await;
    let source = clustered_volume(&world).await;
    world.write(&source, b"source data");
    let (deleting, extending) = (clustered_volume(&world).await, clustered_volume(&world).await);
    let snapshot = world.snapshot(&clustered_volume(&world).await).await;
    taken(&world, &deleting, VolumeStatus::Deleting).await;
    taken(&world, &extending, VolumeStatus::Extending).await;
    world.set_snapshot_status(&snapshot.id, SnapshotStatus::Deleting).await;
    let (kind, me) = (ResourceType::Snapshot, world.manager.service().id);
    world.db.worker_claim(kind, snapshot.id.as_str(), "deleting", None, me).await.unwrap().unwrap();
    // A Python member copied an image; only its request knew which.
    let downloading = world.row(1, clustered).await;
    std::fs::write(world.share().join(format!("volume-{}", downloading.id)), b"half an image").unwrap();
    taken(&world, &downloading, VolumeStatus::Downloading).await;
    let unknown = world.row(1, clustered).await;
    taken(&world, &unknown, VolumeStatus::Creating).await;
    let clone = world
        .row(2, |volume| {
            clustered(volume);
            volume.source_volid = Some(source.id.clone());
        })
        .await;
    let reverting = clustered_volume(&world).await;
    let latest = world.snapshot(&reverting).await;
    world.set_snapshot_status(&latest.id, SnapshotStatus::Restoring).await;
    taken(&world, &reverting, VolumeStatus::Reverting).await;
    let reverted = clustered_volume(&world).await;
    taken(&world, &reverted, VolumeStatus::Reverting).await;
    let copying = create_request(&clone, json!({}));
    world.manager.script.set(Trial::PauseAt(1));
    let copy = world.run(&copying);
    let story = async {
        until("copied", async || world.manager.script.steps() == 2).await;
        // As long as its holder lives nobody touches it.
        other.sweep(false).await.unwrap();
        assert_eq!(world.get(&clone.id).await.status, VolumeStatus::Creating);
        assert_eq!(world.get(&deleting.id).await.status, VolumeStatus::Deleting);
        assert_eq!(world.get(&extending.id).await.status, VolumeStatus::Extending);

        killed(&world).await;
        other.sweep(false).await.unwrap();
        let row = world.get(&clone.id).await;
        assert_eq!((row.status, row.host.as_deref()), (VolumeStatus::Available, Some("other@local#local")));
        assert_eq!(&world.read(&clone).0, b"source data");
        assert_eq!(world.db.volume_get(&deleting.id).await.unwrap(), None);
        assert_eq!(world.db.snapshot_get(&snapshot.id).await.unwrap(), None);
        assert_eq!(world.get(&extending.id).await.status, VolumeStatus::ErrorExtending);
        assert_eq!(world.get(&downloading.id).await.status, VolumeStatus::Error);
        assert_eq!(world.get(&unknown.id).await.status, VolumeStatus::Error);
        assert_eq!(world.get(&reverting.id).await.status, VolumeStatus::Available);
        let latest = world.db.snapshot_get(&latest.id).await.unwrap().unwrap();
        assert_eq!(latest.status, SnapshotStatus::Available);
        assert_eq!(world.get(&reverted.id).await.status, VolumeStatus::Available);
        // The dead one was only stopped: it goes on.
        world.manager.script.resume();
    };
    let (copied, ()) = tokio::join!(copy, story);
    assert_eq!(copied, Err(Failure::Interrupted(Interruption::LockLost)));
    assert_eq!(world.get(&clone.id).await.status, VolumeStatus::Available);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn of_several_that_find_it_one_takes_it() {
    let world = cluster().await;
    let others: Vec<Arc<VolumeManager>> = vec![world.member("one").await, world.member("two").await];
    let volumes = [clustered_volume(&world).await, clustered_volume(&world).await, clustered_volume(&world).await];
    for volume in &volumes {
        taken(&world, volume, VolumeStatus::Deleting).await;
    }
    killed(&world).await;
    let (one, two) = tokio::join!(others[0].sweep(false), others[1].sweep(false));
    one.and(two).unwrap();
    for volume in &volumes {
        until("deleted", async || world.db.volume_get(&volume.id).await.unwrap().is_none()).await;
    }
    let began = async || world.broker.events().iter().filter(|event| *event == "volume.delete.start").count() >= 3;
    until("all notifications", began).await;
    let events = world.broker.events();
    assert_eq!(events.iter().filter(|event| *event == "volume.delete.start").count(), 3, "{events:?}");
    world.nothing_left_over().await;
}

#[tokio::test]
async fn work_that_somebody_took_after_it_was_found_is_left_to_them() {
    let world = cluster().await;
    let other = world.member("other").await;
    let volume = clustered_volume(&world).await;
    taken(&world, &volume, VolumeStatus::Deleting).await;
    let kind = ResourceType::Volume;
    let found = world.db.worker_get(kind, volume.id.as_str()).await.unwrap().unwrap();
    // Python's work-cleanup: it takes the row, and has not begun yet.
    let python = world.manager.service().id + 1000;
    let cleaner = world.db.worker_claim(kind, volume.id.as_str(), "deleting", Some(&found), python).await.unwrap();
    let left = Left { kind: Kind::Volume, id: volume.id.to_string(), row: Some(found) };
    other.take_up(left).await;
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Deleting);
    let row = world.db.worker_get(kind, volume.id.as_str()).await.unwrap().unwrap();
    assert_eq!(row.service_id, Some(python));
    assert!(world.db.worker_release(&cleaner.unwrap()).await.unwrap());
}

#[tokio::test]
async fn work_whose_locks_are_still_held_waits_for_the_next_sweep() {
    let world = cluster().await;
    let other = world.member("other").await;
    let volume = clustered_volume(&world).await;
    taken(&world, &volume, VolumeStatus::Deleting).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let owner = scoria_coordination::Owner::default();
    let held = world
        .other_instance(scoria_coordination::LockRequest::new(owner).exclusive(format!("local-{}", volume.id)))
        .await;
    other.sweep(false).await.unwrap();
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Deleting);
    held.release().await.unwrap();
    other.sweep(false).await.unwrap();
    assert_eq!(world.db.volume_get(&volume.id).await.unwrap(), None);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn states_that_a_dead_member_left_without_a_row_are_settled_when_no_message_can_be_about_them() {
    let world = cluster().await;
    let other = world.member("other").await;
    let (extending, fresh) = (clustered_volume(&world).await, clustered_volume(&world).await);
    world.set_status(&extending.id, VolumeStatus::Extending).await;
    killed(&world).await;
    world.set_status(&fresh.id, VolumeStatus::Extending).await;
    other.sweep(false).await.unwrap();
    assert_eq!(world.get(&extending.id).await.status, VolumeStatus::ErrorExtending);
    assert_eq!(world.get(&fresh.id).await.status, VolumeStatus::Extending);
    world.nothing_left_over().await;
}
