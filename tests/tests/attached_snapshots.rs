//! Snapshots of volumes that servers use: with the real cinder-api, QEMU's real block layer and a stand-in for Nova
//! (`tests/python/fake_nova.py`), of which the scenario `tests/python/attached.py` has the control.

use std::time::Duration;

use scoria_testkit::{RabbitMq, Setting, free_port, program};
use scoria_tests::Cloud;

/// A port for the stand-in, whose servers need QEMU's storage daemon.
fn nova() -> String {
    program("qemu-storage-daemon", "qemu-utils (in Debian 12: qemu-system-common)").unwrap();
    free_port().unwrap().to_string()
}

fn identity(port: &str) -> String {
    format!("http://127.0.0.1:{port}/identity")
}

/// What the stand-in knows us by (`USER` and its neighbours in `fake_nova.py`).
fn options(auth_url: &str) -> [Setting<'_>; 8] {
    [
        ("nova", "auth_type", "password"),
        ("nova", "auth_url", auth_url),
        ("nova", "username", "cinder"),
        ("nova", "user_domain_name", "Default"),
        ("nova", "password", "assist-me"),
        ("nova", "project_name", "service"),
        ("nova", "project_domain_name", "Default"),
        ("nova", "region_name", "RegionOne"),
    ]
}

#[tokio::test]
async fn snapshots_of_attached_volumes_keep_the_data() {
    let (cloud, port) = (Cloud::start().await.unwrap(), nova());
    let mut daemon = cloud.scoria("scoria", &options(&identity(&port))).await.unwrap();
    // Nova is made to refuse and to fail, which is logged.
    daemon.allow_errors();
    let report = cloud.run("attached", &[&port]).await.unwrap();
    println!("{report}");
    assert!(report["checks"].as_u64().unwrap() > 200, "{report}");
    daemon.stop().await.unwrap();
    let log = daemon.log().unwrap();
    assert!(!log.contains("assist-me") && !log.contains("token-"), "a secret is in the log");
}

#[tokio::test]
async fn a_daemon_killed_while_nova_works_completes_the_snapshot_once() {
    let (cloud, port) = (Cloud::start().await.unwrap(), nova());
    let mut daemon = cloud.scoria("scoria", &options(&identity(&port))).await.unwrap();
    let (url, share) = (cloud.cinder.url(), cloud.site.share().display().to_string());
    let mut scenario = cloud.start_script("attached", &[&url, &share, &port, "service_dies"]).unwrap();
    let mut deaths = 0;
    loop {
        let line = scenario.next(Duration::from_secs(240)).await.unwrap();
        match line["please"].as_str() {
            Some("die") => {
                daemon.kill();
                deaths += 1;
            }
            Some("live") => daemon.restart(&cloud.site).await.unwrap(),
            _ => break println!("{line}"),
        }
        scenario.tell("done").await.unwrap();
    }
    // A create and both kinds of delete; each once with Nova done before the daemon is back, and once after.
    assert_eq!(deaths, 6);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn without_nova_a_snapshot_of_an_attached_volume_fails_at_once_and_says_what_to_set() {
    let (cloud, port) = (Cloud::start().await.unwrap(), nova());
    let mut daemon = cloud.scoria("scoria", &[]).await.unwrap();
    daemon.allow_errors();
    cloud.run("attached", &[&port, "no_nova"]).await.unwrap();
    let log = daemon.log().unwrap();
    assert!(log.lines().any(|line| line.contains("[nova]") && line.contains("auth_type")), "{log}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn the_stand_in_for_nova_serves_the_python_service_as_well() {
    let port = nova();
    let cloud = Cloud::on(RabbitMq::shared().await.unwrap(), &options(&identity(&port))).await.unwrap();
    let python = cloud.cinder.start_volume(&cloud.site, "node", None).await.unwrap();
    let scenes = ["one_snapshot", "detached_and_attached_again", "nova_forgets_who_we_are"];
    cloud.run("attached", &[&[port.as_str()], &scenes[..]].concat()).await.unwrap();
    python.stop().await.unwrap();
}
