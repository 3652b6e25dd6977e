//! The unchanged cinder-api and cinder-scheduler in front of Scoria's NFS driver, driven by python-cinderclient.

use scoria_tests::Cloud;

#[tokio::test]
async fn every_operation_through_the_real_api_keeps_the_data() {
    let cloud = Cloud::start().await.unwrap();
    let mut daemon = cloud.scoria("scoria", &[]).await.unwrap();
    // The scenario provokes errors of volumes and of a share, which are logged.
    daemon.allow_errors();
    let report = cloud.run("lifecycle", &[]).await.unwrap();
    println!("{report}");
    assert!(report["checks"].as_u64().unwrap() > 100, "{report}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn clones_while_their_source_is_deleted_are_whole_or_fail() {
    let cloud = Cloud::start().await.unwrap();
    let mut daemon = cloud.scoria("scoria", &[]).await.unwrap();
    // A clone that comes too late fails, which is logged.
    daemon.allow_errors();
    let report = cloud.run("clone_against_delete", &["4", "50"]).await.unwrap();
    println!("{report}");
    assert_eq!(report["rounds"], 200);
    let count = |outcome: &str| report[outcome].as_u64().unwrap();
    assert!(count("good") > 0 && count("late") > 0, "the race was always won by the same side: {report}");
    daemon.stop().await.unwrap();
}
