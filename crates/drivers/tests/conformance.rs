//! The drivers' suite on the local driver (raw and qcow2 volumes) and on the NFS driver, whose share is a bind mount at the
//! share's mount point: what is mounted there is taken as it is.

#![allow(missing_docs, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use scoria_drivers::conformance::{self, Bed};
use scoria_drivers::{LocalDriver, LocalOptions, VolumeDriver};
use scoria_runtime::Executor;
use tempfile::TempDir;

mod common;

fn executor() -> Executor {
    Executor::new(None, Duration::from_secs(60))
}

async fn local(qcow2: bool) -> (TempDir, LocalDriver, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { qcow2_volumes: qcow2, ..LocalOptions::new(directory.path()) };
    let driver = LocalDriver::new(options, executor()).unwrap();
    driver.setup(true).await.unwrap();
    let root = directory.path().to_owned();
    (directory, driver, root)
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod local_raw { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let (_directory, driver, root) = super::local(false).await;
                super::conformance::$test(super::Bed { driver: &driver, faults: driver.faults(), root: &root }).await;
            }
        )* }
        mod local_qcow2 { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let (_directory, driver, root) = super::local(true).await;
                super::conformance::$test(super::Bed { driver: &driver, faults: driver.faults(), root: &root }).await;
            }
        )* }
        mod nfs { $(
            #[test]
            fn $test() {
                super::common::in_mount_namespace(concat!("nfs::", stringify!($test)), async {
                    let share = super::common::NfsBed::new().await;
                    super::conformance::$test(super::Bed {
                        driver: &share.driver,
                        faults: share.driver.faults(),
                        root: &share.mount,
                    })
                    .await;
                });
            }
        )* }
    };
}

suite! {
    a_volume_lives_and_leaves_nothing
    defect_13_a_volume_without_location_is_deleted
    snapshots_go_in_any_order
    a_deep_chain_is_cloned_and_deleted_whole
    defect_18_larger_copies_are_larger
    defect_17_a_volume_goes_back_to_its_latest_snapshot
    volumes_grow
    what_cannot_be_done_is_refused
    defect_20_a_guests_header_is_not_believed
    defect_19_info_is_never_half_there
    defect_6_copies_of_one_source_run_side_by_side
    an_older_token_is_refused
    attached_snapshots_go_in_any_order
    what_a_server_merged_is_settled_later
    a_snapshot_that_no_server_took_up_is_taken_back
    a_create_may_die_anywhere
    a_copy_may_die_anywhere
    taking_a_snapshot_may_die_anywhere
    deleting_a_snapshot_may_die_anywhere
    an_extend_and_a_delete_may_die_anywhere
}
