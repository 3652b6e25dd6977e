//! Scoria beside the real Python cinder-volume: one takes over from the other, in both directions, both work at once on
//! one queue, and a lock that Python holds keeps Scoria waiting.

use std::time::Duration;

use scoria_tests::Cloud;

#[tokio::test]
async fn scoria_takes_over_what_python_made() {
    let cloud = Cloud::start().await.unwrap();
    let scratch = cloud.site.dir().display().to_string();
    let python = cloud.cinder.start_volume(&cloud.site, "node", None).await.unwrap();
    cloud.run("handover", &["make", &scratch]).await.unwrap();
    python.stop().await.unwrap();
    let mut scoria = cloud.scoria("node", &[]).await.unwrap();
    cloud.run("handover", &["use", &scratch]).await.unwrap();
    scoria.stop().await.unwrap();
}

#[tokio::test]
async fn python_takes_over_what_scoria_made() {
    let cloud = Cloud::start().await.unwrap();
    let scratch = cloud.site.dir().display().to_string();
    let mut scoria = cloud.scoria("node", &[]).await.unwrap();
    cloud.run("handover", &["make", &scratch]).await.unwrap();
    scoria.stop().await.unwrap();
    let python = cloud.cinder.start_volume(&cloud.site, "node", None).await.unwrap();
    cloud.run("handover", &["use", &scratch]).await.unwrap();
    python.stop().await.unwrap();
}

#[tokio::test]
async fn both_serve_one_queue_at_once() {
    let cloud = Cloud::start().await.unwrap();
    let python = cloud.cinder.start_volume(&cloud.site, "node", None).await.unwrap();
    let mut scoria = cloud.scoria("scoria", &[("DEFAULT", "host", "node")]).await.unwrap();
    // The broker deals out the requests in turn, so that most volumes pass through both services' hands.
    let report = cloud.run("crowd", &["3", "4", "beside-python"]).await.unwrap();
    assert_eq!(report["rounds"], 12);
    let log = scoria.log().unwrap();
    assert!(log.contains("delete_volume") || log.contains("create_volume"), "Scoria had no part in it:\n{log}");
    scoria.stop().await.unwrap();
    python.stop().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_python_holds_keeps_scoria_waiting() {
    let cloud = Cloud::start().await.unwrap();
    let mut scoria = cloud.scoria("node", &[]).await.unwrap();
    let id = cloud.volume().await.unwrap();

    let conf = cloud.site.conf("holder", &[]).unwrap().display().to_string();
    let mut holder = cloud.start_script("hold_lock", &[&conf, &format!("{id}-delete_volume")]).unwrap();
    assert_eq!(holder.next(Duration::from_secs(60)).await.unwrap()["held"], true);
    cloud.delete_volume(&id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cloud.status(&id).await.unwrap().as_deref(), Some("deleting"));
    assert!(cloud.file(&id).exists(), "Scoria deleted a volume whose lock Python holds");

    holder.tell("let go").await.unwrap();
    cloud.wait_for_status(&id, None).await.unwrap();
    assert!(!cloud.file(&id).exists());
    scoria.stop().await.unwrap();
}
