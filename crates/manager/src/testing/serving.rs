//! From the broker and back: what is refused, what is answered, what comes again.

use std::sync::Arc;
use std::time::Duration;

use scoria_model::{FaultClass, SnapshotStatus, VolumeStatus, object};
use scoria_rpc::{Destination, Error, Request, Transport};
use serde_json::{Value, json};

use super::script::Trial;
use super::world::{PROJECT, World, create_request, request};

const SECONDS: Duration = Duration::from_secs(20);

/// A world whose manager serves.
async fn serving() -> (World, Arc<dyn Transport>) {
    let world = World::new().await;
    let transport = serve(&world).await;
    (world, transport)
}

/// Has a world's manager serve.
pub(super) async fn serve(world: &World) -> Arc<dyn Transport> {
    let manager = world.manager.clone();
    world.manager.tasks.spawn("serve", async move { manager.serve().await.unwrap() });
    let transport = world.broker.transport();
    // The queues are there once the manager answers.
    let ping = request("get_capabilities", json!({"discover": false}));
    loop {
        match transport.call(&to_host(), ping.clone(), Duration::from_millis(200)).await {
            Ok(_) => break,
            Err(Error::Timeout { .. } | Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    transport
}

pub(super) fn to_host() -> Destination {
    Destination::volume("node@local")
}

pub(super) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

async fn refused(transport: &Arc<dyn Transport>, request: Request) -> FaultClass {
    match transport.call(&to_host(), request, SECONDS).await {
        Err(Error::Remote(fault)) => fault.class,
        other => panic!("expected a failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_cast_is_served_and_acknowledged() {
    let (world, transport) = serving().await;
    let volume = world.row(1, |_| {}).await;
    transport.cast(&to_host(), create_request(&volume, json!({}))).await.unwrap();
    until("available", async || world.get(&volume.id).await.status == VolumeStatus::Available).await;
    until("acknowledged", async || world.broker.waiting("cinder-volume.node@local.node") == 0).await;
    until("both events", async || world.broker.events() == ["volume.create.start", "volume.create.end"]).await;
}

#[tokio::test]
async fn what_is_no_request_of_ours_gets_its_proper_failure_and_changes_nothing() {
    let (world, transport) = serving().await;
    let volume = world.volume(1).await;
    let unknown = request("make_coffee", json!({}));
    assert_eq!(refused(&transport, unknown).await, FaultClass::NoSuchMethod);
    let not_yet = request("freeze_host", json!({}));
    assert_eq!(refused(&transport, not_yet).await, FaultClass::NoSuchMethod);
    let mut newer = request("get_capabilities", json!({"discover": false}));
    newer.version = "4.0".to_owned();
    assert_eq!(refused(&transport, newer).await, FaultClass::UnsupportedVersion);
    let missing = request("initialize_connection", json!({"volume": object::encode_volume(&volume)}));
    assert_eq!(refused(&transport, missing).await, FaultClass::TypeError);
    let ill_typed = json!({"volume": object::encode_volume(&volume), "connector": "host"});
    assert_eq!(refused(&transport, request("initialize_connection", ill_typed)).await, FaultClass::TypeError);
    let unexpected = request("get_capabilities", json!({"discover": false, "deeply": true}));
    assert_eq!(refused(&transport, unexpected).await, FaultClass::TypeError);
    assert_eq!(world.get(&volume.id).await, volume);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_call_is_answered_with_what_a_server_needs() {
    let (world, transport) = serving().await;
    let volume = world.volume(1).await;
    let connector = json!({"host": "compute", "ip": "192.0.2.1"});
    let ask =
        request("initialize_connection", json!({"volume": object::encode_volume(&volume), "connector": connector}));
    let info = transport.call(&to_host(), ask, SECONDS).await.unwrap();
    assert_eq!(info["data"]["name"], format!("volume-{}", volume.id));
    assert_eq!(info["data"]["format"], "raw");
    assert_eq!(info["data"]["access_mode"], "rw");
    assert_eq!(info["data"]["qos_specs"], Value::Null);
    assert_eq!(info["data"]["encrypted"], false);
}

#[tokio::test]
async fn an_interrupted_cast_comes_again_and_is_finished() {
    let (world, transport) = serving().await;
    let volume = world.row(1, |_| {}).await;
    world.manager.script.set(Trial::ReplyLostAt(0));
    transport.cast(&to_host(), create_request(&volume, json!({}))).await.unwrap();
    until("available", async || world.get(&volume.id).await.status == VolumeStatus::Available).await;
    until("acknowledged", async || world.broker.waiting("cinder-volume.node@local.node") == 0).await;
    until("idle", async || world.manager.running().list().is_empty()).await;
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_message_that_its_sender_published_twice_runs_once() {
    let (world, transport) = serving().await;
    let volume = world.volume(1).await;
    let snapshot = world.snapshot_row(&volume).await;
    let create = request("create_snapshot", json!({"snapshot": object::encode_snapshot(&snapshot)}));
    transport.cast(&to_host(), create.clone()).await.unwrap();
    transport.cast(&to_host(), create).await.unwrap();
    let available =
        async || world.db.snapshot_get(&snapshot.id).await.unwrap().unwrap().status == SnapshotStatus::Available;
    until("available", available).await;
    until("acknowledged", async || world.broker.waiting("cinder-volume.node@local.node") == 0).await;
    let started = world.broker.events().iter().filter(|event| *event == "snapshot.create.start").count();
    assert_eq!(started, 1);
}

#[tokio::test]
async fn a_drained_manager_hands_back_what_it_has_not_begun() {
    let (world, transport) = serving().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Extending).await;
    // Somebody holds the volume's files: the request waits for them when the drain begins.
    let owner = scoria_coordination::Owner::default();
    let taken = world
        .other_instance(scoria_coordination::LockRequest::new(owner).exclusive(format!("local-{}", volume.id)))
        .await;
    let extend = json!({"volume": object::encode_volume(&volume), "new_size": 2, "reservations": []});
    transport.cast(&to_host(), request("extend_volume", extend)).await.unwrap();
    let waits = async || world.manager.running().list().iter().any(|running| running.state == "waiting for locks");
    until("waiting", waits).await;
    world.manager.drain().await;
    until("handed back", async || world.broker.waiting("cinder-volume.node@local.node") == 1).await;
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Extending);
    taken.release().await.unwrap();
}

#[tokio::test]
async fn work_that_a_dead_process_left_is_taken_up_from_its_row() {
    let world = World::new().await;
    let source = world.volume(1).await;
    world.write(&source, b"source data");
    let creating = world.row(2, |volume| volume.source_volid = Some(source.id.clone())).await;
    let deleting = world.volume(1).await;
    world.set_status(&deleting.id, VolumeStatus::Deleting).await;
    let extending = world.volume(1).await;
    world.set_status(&extending.id, VolumeStatus::Extending).await;
    let me = world.manager.service().id;
    // This one's message was never begun, so nobody claimed its row.
    let waiting = world.volume(1).await;
    world.set_status(&waiting.id, VolumeStatus::Deleting).await;
    world
        .db
        .worker_create_unclaimed(scoria_model::ResourceType::Volume, waiting.id.as_str(), "deleting")
        .await
        .unwrap();
    for (id, status) in [(&creating.id, "creating"), (&deleting.id, "deleting"), (&extending.id, "extending")] {
        let kind = scoria_model::ResourceType::Volume;
        world.db.worker_claim(kind, id.as_str(), status, None, me).await.unwrap().unwrap();
    }
    world.manager.sweep(true).await.unwrap();
    assert_eq!(world.get(&creating.id).await.status, VolumeStatus::Available);
    assert_eq!(&world.read(&creating).0, b"source data");
    assert_eq!(world.db.volume_get(&deleting.id).await.unwrap(), None);
    assert_eq!(world.db.volume_get(&waiting.id).await.unwrap(), None);
    assert_eq!(world.get(&extending.id).await.status, VolumeStatus::ErrorExtending);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn work_whose_lock_somebody_holds_at_the_start_is_taken_up_when_it_is_free() {
    let world = World::new().await;
    let (volume, fresh) = (world.volume(1).await, world.volume(1).await);
    for volume in [&volume, &fresh] {
        world.set_status(&volume.id, VolumeStatus::Deleting).await;
    }
    for (volume, changed) in [(&volume, "2026-01-01 00:00:00"), (&fresh, "2100-01-01 00:00:00")] {
        let query = sqlx::query("UPDATE volumes SET updated_at = ? WHERE id = ?");
        let query = query.bind(changed).bind(volume.id.as_str());
        query.execute(&mut world.raw_database().await).await.unwrap();
    }
    let owner = scoria_coordination::Owner::default();
    let both = [&volume, &fresh].iter().fold(scoria_coordination::LockRequest::new(owner), |request, volume| {
        request.exclusive(format!("{}-delete_volume", volume.id))
    });
    let held = world.other_instance(both).await;
    world.manager.sweep(true).await.unwrap();
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Deleting);
    held.release().await.unwrap();
    world.manager.sweep(false).await.unwrap();
    assert_eq!(world.db.volume_get(&volume.id).await.unwrap(), None);
    // Its message came after the start and is still with us.
    assert_eq!(world.get(&fresh.id).await.status, VolumeStatus::Deleting);
}

#[tokio::test]
async fn an_extension_that_a_dead_process_left_gives_back_what_that_process_had_reserved() {
    let world = World::new().await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Extending).await;
    let deltas = [("gigabytes".to_owned(), 2)].into();
    let (defaults, expire) = (scoria_db::QuotaDefaults::default(), scoria_model::Timestamp::now().plus_seconds(3600));
    world.db.quota_reserve(PROJECT, &deltas, &defaults, expire).await.unwrap();
    sqlx::query("UPDATE reservations SET created_at = '2026-01-01 00:00:00'")
        .execute(&mut world.raw_database().await)
        .await
        .unwrap();
    // This one is ours: whoever asked is still there.
    world.db.quota_reserve(PROJECT, &deltas, &defaults, expire).await.unwrap();
    assert_eq!(world.db.quota_usages(PROJECT).await.unwrap()["gigabytes"].reserved, 4);
    world.manager.sweep(true).await.unwrap();
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::ErrorExtending);
    assert_eq!(world.db.quota_usages(PROJECT).await.unwrap()["gigabytes"].reserved, 2);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_long_runner_that_was_acknowledged_and_then_lost_its_lock_is_found_by_its_row() {
    let world = World::with(|options| {
        options.late_ack_ceiling = Duration::from_millis(50);
        options.recovery_grace = Duration::ZERO;
    })
    .await;
    let transport = serve(&world).await;
    let volume = world.volume(1).await;
    world.set_status(&volume.id, VolumeStatus::Deleting).await;
    world.manager.script.set(Trial::PauseAt(2));
    let delete = request("delete_volume", json!({"volume": object::encode_volume(&volume)}));
    transport.cast(&to_host(), delete).await.unwrap();
    until("before its third step", async || world.manager.script.steps() == 3).await;
    // Acknowledged: it does not come again when the connections break.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.broker.kill_connections();
    world.end_leases();
    world.manager.script.resume();
    until("interrupted", async || world.manager.running().list().is_empty()).await;
    assert_eq!(world.broker.waiting("cinder-volume.node@local.node"), 0);
    assert_eq!(world.get(&volume.id).await.status, VolumeStatus::Deleting);
    // Rows are told apart by whole seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    world.manager.script.set(Trial::Plain);
    world.manager.sweep(false).await.unwrap();
    assert_eq!(world.db.volume_get(&volume.id).await.unwrap(), None);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_source_that_is_gone_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let source = world.volume(1).await;
    let clone = world.row(1, |volume| volume.source_volid = Some(source.id.clone())).await;
    world.set_status(&source.id, VolumeStatus::Deleting).await;
    world.run(&request("delete_volume", json!({"volume": object::encode_volume(&source)}))).await.unwrap();
    let failure = world.run(&create_request(&clone, json!({}))).await.unwrap_err();
    let crate::Failure::Fault(fault) = failure else { panic!("{failure}") };
    assert_eq!(fault.class, FaultClass::VolumeNotFound);
    assert_eq!(world.get(&clone.id).await.status, VolumeStatus::Error);
    world.nothing_left_over().await;
}

#[tokio::test]
async fn a_creation_that_another_back_end_may_do_goes_back_to_the_scheduler() {
    let world = World::new().await;
    let volume = world.row(1, |_| {}).await;
    world.manager.script.set(Trial::FailAt(0));
    let spec = scoria_model::object::RequestSpec::for_volume(&volume);
    let more = json!({
        "request_spec": spec.to_object(),
        "filter_properties": {"retry": {"num_attempts": 1, "hosts": ["node@local#local"]}},
    });
    world.run(&create_request(&volume, more)).await.unwrap_err();
    let row = world.get(&volume.id).await;
    assert_eq!((row.status, row.host), (VolumeStatus::Creating, None));
    let asked = world.broker.requests("create_volume");
    let [asked] = asked.as_slice() else { panic!("one request to the scheduler: {asked:?}") };
    assert_eq!(asked.args["filter_properties"]["retry"]["num_attempts"], 1);
    assert!(asked.args["filter_properties"]["retry"]["exc"].is_array());
    assert!(!world.files().contains(&format!("volume-{}", volume.id)));
}
