//! What is to be seen of the locks of a service that works, and how one of them is taken away.

use scoria_coordination::{Coordinator, LockRequest, Options, Owner, WaitPolicy};
use scoria_runtime::Deadline;
use scoria_testkit::Redis;
use serde_json::{Value, json};

use crate::{PATIENCE, Service};

#[tokio::test]
async fn what_a_service_holds_and_waits_for_is_shown_and_can_be_taken_away() {
    let redis = Redis::start().await.unwrap();
    let service = Service::start(&redis.url());
    service.wait_for_good_health().await;
    let volume = service.ask_for_volume().await;
    service.wait("the volume is there", async || service.status(&volume).await == "available").await;
    let id = volume.rsplit('/').next().unwrap();

    // The second of the two locks that a deletion takes.
    let ours =
        Coordinator::open(&redis.url(), &Options { instance: "ours".into(), ..Options::default() }).await.unwrap();
    let owner = Owner { operation: "maintenance".into(), request_id: Some("req-1".into()), ..Owner::default() };
    let (first, second) = (format!("{id}-delete_volume"), format!("local-{id}"));
    let wait = WaitPolicy::Until(Deadline::after(PATIENCE));
    let held = ours.acquire(LockRequest::new(owner).exclusive(&second).wait(wait)).await.unwrap();
    let deleting = reqwest::Client::new().delete(&volume).send().await.unwrap();
    let request = deleting.headers()["x-openstack-request-id"].to_str().unwrap().to_owned();

    let shown = async |name: &str| -> Value {
        reqwest::get(format!("{}/v1/locks/{name}", service.admin)).await.unwrap().json().await.unwrap()
    };
    let waits = async || shown(&second).await["lock"]["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1);
    service.wait("it waits for the second lock", waits).await;
    let (holding, waiting) = (shown(&first).await["lock"].take(), shown(&second).await["lock"].take());
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for (its, is_held) in [(&holding["holders"][0], true), (&waiting["waiters"][0], false)] {
        let said = json!([its["operation"], its["request_id"], its["resource"], its["host"], its["held"]]);
        assert_eq!(said, json!(["delete_volume", request, id, host, is_held]), "{its}");
        assert!(
            its["seconds"].as_f64().is_some_and(|seconds| (0.0..PATIENCE.as_secs_f64()).contains(&seconds)),
            "{its}"
        );
        assert_eq!(its["token"].is_u64(), is_held, "{its}");
        assert_eq!(its["instance"], holding["holders"][0]["instance"], "{its}");
    }
    assert!(holding["holders"][0]["instance"].as_str().is_some_and(|instance| !instance.is_empty()), "{holding}");
    let other = &waiting["holders"][0];
    let said = json!([other["instance"], other["operation"], other["request_id"], other["held"]]);
    assert_eq!(said, json!(["ours", "maintenance", "req-1", true]), "{other}");

    let take = format!("{}/v1/locks/{second}?confirm=yes&by=the+night+shift", service.admin);
    let taken: Value = reqwest::Client::new().delete(take).send().await.unwrap().json().await.unwrap();
    assert_eq!(taken["broken"][0]["instance"], "ours", "{taken}");
    tokio::time::timeout(PATIENCE, held.lost().cancelled()).await.unwrap();
    let is_gone = async || reqwest::get(&volume).await.is_ok_and(|answer| answer.status() == 404);
    service.wait("the volume is deleted", is_gone).await;
    let log = service.log();
    let line = log.lines().find(|line| line.contains("lock was taken away from its holder"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [&*second, "the night shift", "ours, operation maintenance, ", "request req-1"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    measures(&service).await;
    ours.close().await;
    service.ends().await;
}

async fn measures(service: &Service) {
    let text = reqwest::get(format!("{}/metrics", service.admin)).await.unwrap().text().await.unwrap();
    for (name, kind) in [
        ("scoria_lock_wait_seconds", "summary"),
        ("scoria_lock_held_seconds", "summary"),
        ("scoria_locks_held", "gauge"),
    ] {
        assert!(
            text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} {kind}\n")),
            "{text}"
        );
    }
    let labels = "{backend=\"redis\",mode=\"exclusive\"}";
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse::<f64>().unwrap()
    };
    // One of the creation, two of the deletion.
    assert!(value("scoria_lock_wait_seconds_count") >= 3.0, "{text}");
    assert!(value("scoria_lock_held_seconds_count") >= 3.0, "{text}");
    assert_eq!(value("scoria_locks_held"), 0.0, "{text}");
    assert!(value("scoria_lock_wait_seconds_sum") > 0.0, "{text}");
}
