//! Against a real cinder-api and the database that cinder-manage made.

use scoria_testkit::{CinderPeer, MariaDb, PROJECT, RabbitMq, Site};
use serde_json::json;

use crate::run::scoria;

#[tokio::test]
async fn a_real_cinder_api_is_served_like_our_own() {
    let (database, broker) = (MariaDb::shared().await.unwrap(), RabbitMq::shared().await.unwrap());
    let site = Site::new(&database.url(), &broker.url()).unwrap();
    let cinder = CinderPeer::start(&site).await.unwrap();
    let conf = site.conf("cli", &[]).unwrap().display().to_string();
    let in_database = |args: &[&str]| scoria(&[&["--config-file", &conf, "--json"], args].concat());
    let (url, token) = (cinder.project_url(), format!("admin:{PROJECT}"));
    let api = |args: &[&str]| scoria(&[&["--endpoint", &url, "--os-token", &token, "--json"], args].concat());

    assert_eq!(in_database(&["db", "version"]).json()["made_by"], "cinder");
    assert!(in_database(&["db", "sync"]).failed(1).contains("cinder-manage db sync"));
    // Nobody is there to make it: the scheduler finds no host.
    let error = api(&["volume", "create", "1"]).failed(4);
    let failed = api(&["volume", "list"]).json()[0]["id"].as_str().unwrap().to_owned();
    assert!(error.contains(&failed), "{error}");

    let volume_service = cinder.start_volume(&site, "python", None).await.unwrap();
    let volume = api(&["volume", "create", "1", "--name", "data"]).json();
    let id = volume["id"].as_str().unwrap();
    assert_eq!((&volume["status"], &volume["size"]), (&json!("available"), &json!(1)));
    assert_eq!(api(&["volume", "extend", id, "2"]).json()["size"], 2);
    for what in [&["volume", "list"][..], &["volume", "show", id]] {
        assert_eq!(api(what).json(), in_database(what).json(), "{what:?}");
    }
    let services = |list: serde_json::Value| -> Vec<String> {
        let of = |one: &serde_json::Value| format!("{} {} {}", one["binary"], one["host"], one["state"]);
        list.as_array().unwrap().iter().map(of).collect()
    };
    assert_eq!(services(api(&["service", "list"]).json()), services(in_database(&["service", "list"]).json()));
    assert_eq!(api(&["volume", "delete", id, &failed]).json().as_array().unwrap().len(), 2);
    assert!(api(&["volume", "show", id]).failed(3).contains(id));
    volume_service.stop().await.unwrap();
}
