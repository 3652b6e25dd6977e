//! The real cinder-api, cinder-scheduler and cinder-volume come up on one site and serve a volume: the ground that the tests
//! of Scoria beside them stand on.

use std::time::Duration;

use scoria_testkit::{CinderPeer, MariaDb, RabbitMq, Site, wait_until};
use serde_json::json;

#[tokio::test]
async fn the_real_services_create_a_volume_on_the_share() {
    let (database, broker) = (MariaDb::shared().await.unwrap(), RabbitMq::shared().await.unwrap());
    let site = Site::new(&database.url(), &broker.url()).unwrap();
    let cinder = CinderPeer::start(&site).await.unwrap();
    let volume_service = cinder.start_volume(&site, "python", None).await.unwrap();
    let (status, body) = cinder.call("POST", "/volumes", Some(json!({"volume": {"size": 1}}))).await.unwrap();
    assert_eq!(status, 202, "{body}");
    let id = body["volume"]["id"].as_str().unwrap();
    let available = async || {
        let (_, body) = cinder.call("GET", &format!("/volumes/{id}"), None).await.unwrap();
        body["volume"]["status"] == "available"
    };
    wait_until("the volume is available", Duration::from_secs(60), available).await.unwrap();
    assert_eq!(std::fs::metadata(site.share().join(format!("volume-{id}"))).unwrap().len(), 1 << 30);
    volume_service.stop().await.unwrap();
}
