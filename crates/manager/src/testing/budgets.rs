//! What an operation may cost: round trips to the database, and locks.

use scoria_model::{VolumeStatus, object};
use serde_json::json;

use super::world::{World, create_request, request};

/// Round trips of one operation, counted by the database layer, transactions' BEGIN and COMMIT included.
async fn round_trips(world: &World, run: scoria_rpc::Request) -> u64 {
    let before = world.db.round_trips();
    world.run(&run).await.unwrap();
    world.db.round_trips() - before
}

#[tokio::test]
async fn creating_a_volume_takes_at_most_ten_round_trips() {
    let world = World::new().await;
    let volume = world.row(1, |_| {}).await;
    let count = round_trips(&world, create_request(&volume, json!({}))).await;
    assert!(count <= 10, "{count}");
}

#[tokio::test]
async fn deleting_a_volume_takes_at_most_eight_round_trips() {
    let world = World::new().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    let delete = request("delete_volume", json!({"volume": object::encode_volume(&volume)}));
    let count = round_trips(&world, delete).await;
    assert!(count <= 8, "{count}");
}

#[tokio::test]
async fn each_name_is_locked_once() {
    let world = World::new().await;
    let source = world.volume(1).await;
    let clone = world.row(1, |volume| volume.source_volid = Some(source.id.clone())).await;
    let before = world.locks_taken();
    world.run(&create_request(&clone, json!({}))).await.unwrap();
    // The source's deletion lock, the source's files, the new volume's files.
    assert_eq!(world.locks_taken() - before, 3);
}
