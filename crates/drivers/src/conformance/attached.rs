//! Snapshots of attached volumes. The server is a stand-in: what QEMU would do with the files it has open is done by
//! `qemu-img` between two of its writes. (With QEMU itself: `tests/tests/attached_snapshots.rs`.)

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use scoria_model::{AttachStatus, FaultClass, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus};

use super::{Bed, Content, tool};
use crate::{AssistedSnapshots, Merge, Work};

impl Bed<'_> {
    fn assisted(&self) -> &dyn AssistedSnapshots {
        self.driver.assisted_snapshots().expect("files need the server's help")
    }

    async fn attached(&self) -> Volume {
        let mut volume = self.volume(1).await;
        (volume.status, volume.attach_status) = (VolumeStatus::InUse, AttachStatus::Attached);
        volume
    }

    fn file(&self, name: &str) -> String {
        self.root.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// What a server does.
    async fn merge(&self, merge: &Merge, volume: &Volume) {
        let (active, _) = self.attachable(volume).await;
        let active = active.to_str().expect("UTF-8");
        match (&merge.file_to_merge, &merge.merge_target_file) {
            (None, _) => drop(tool("qemu-img", &["rebase", "-q", "-f", "qcow2", "-b", "", active])),
            (Some(base), None) => {
                tool(
                    "qemu-img",
                    &["rebase", "-q", "-f", "qcow2", "-F", self.format_of(base, volume), "-b", base, active],
                );
            }
            (Some(top), Some(base)) => {
                tool("qemu-img", &["commit", "-q", "-f", "qcow2", "-d", &self.file(top)]);
                let above = self.files_of(volume).into_iter().find(|file| {
                    file.contains('.') && !file.ends_with(".info") && {
                        let info = tool("qemu-img", &["info", "-f", "qcow2", &self.file(file)]);
                        info.contains(&format!("backing file: {top}"))
                    }
                });
                let above = self.file(&above.expect("a file above"));
                let format = self.format_of(base, volume);
                tool("qemu-img", &["rebase", "-q", "-u", "-f", "qcow2", "-F", format, "-b", base, &above]);
            }
        }
    }

    fn format_of<'v>(&self, file: &str, volume: &'v Volume) -> &'v str {
        if file.contains('.') { "qcow2" } else { &volume.admin_metadata["base_format"] }
    }

    /// What has to be merged for a snapshot, by the driver.
    async fn plan(&self, snapshot: &Snapshot, volume: &Volume) -> Option<Merge> {
        self.assisted().merge_of(&Work::unlimited(), snapshot, volume).await.expect("plan")
    }
}

/// A volume with three snapshots taken while it was attached, what each of them froze, and what the volume holds.
async fn three_snapshots(bed: &Bed<'_>) -> (Volume, Vec<(Snapshot, Content)>, Content) {
    let mut volume = bed.attached().await;
    let (mut content, mut kept) = (Content::new(), Vec::new());
    for number in 0..3u8 {
        bed.write(&volume, &mut content, &[u64::from(number), 9], 0x60 + number).await;
        kept.push((bed.snapshot(&mut volume).await, content.clone()));
    }
    bed.write(&volume, &mut content, &[2], 0x70).await;
    (volume, kept, content)
}

/// Snapshots of an attached volume are deleted in every order, the server merging; what is left may be used all the time.
pub async fn attached_snapshots_go_in_any_order(bed: Bed<'_>) {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut volume, kept, mut content) = three_snapshots(&bed).await;
        let mut left: Vec<_> = kept.into_iter().map(Some).collect();
        for (turn, victim) in order.into_iter().enumerate() {
            let (snapshot, _) = left[victim].take().expect("deleted once");
            let refused = bed.driver.delete_snapshot(&Work::unlimited(), &snapshot, &volume).await;
            assert!(refused.expect_err("not merged").to_string().contains("has not merged"));
            let merge = bed.plan(&snapshot, &volume).await.expect("something to merge");
            bed.merge(&merge, &volume).await;
            assert_eq!(bed.plan(&snapshot, &volume).await, None, "the files tell that it is done");
            bed.unsnapshot(&snapshot, &mut volume).await;
            bed.expect(&volume, &content).await;
            bed.write(&volume, &mut content, &[11], 0x71 + u8::try_from(turn).expect("small")).await;
            for (snapshot, frozen) in left.iter().flatten() {
                let copy = bed.copy_of_snapshot(snapshot, &volume, 1).await;
                bed.expect(&copy, frozen).await;
                bed.delete(copy).await;
            }
            // A file for each snapshot that is left, the one below them all, and `.info`.
            assert_eq!(bed.files_of(&volume).len(), 4 - turn, "{order:?}: {:?}", bed.files_of(&volume));
        }
        // Detached it is a volume like any other.
        (volume.status, volume.attach_status) = (VolumeStatus::Available, AttachStatus::Detached);
        let snapshot = bed.snapshot(&mut volume).await;
        let frozen = content.clone();
        bed.write(&volume, &mut content, &[12], 0x77).await;
        let copies = [bed.copy_of_snapshot(&snapshot, &volume, 1).await, bed.clone_of(&volume, 1).await];
        bed.expect(&copies[0], &frozen).await;
        bed.expect(&copies[1], &content).await;
        bed.unsnapshot(&snapshot, &mut volume).await;
        bed.expect(&volume, &content).await;
        for volume in copies.into_iter().chain([volume]) {
            bed.delete(volume.clone()).await;
            bed.expect_nothing_left(&volume);
        }
    }
}

/// A deletion that dies after the server has merged is settled by whatever comes next: a second try, attached or detached, a new
/// snapshot, the deletion of another one.
pub async fn what_a_server_merged_is_settled_later(bed: Bed<'_>) {
    for victim in [0, 1, 2] {
        for next in ["again", "again, detached", "new snapshot", "another goes first"] {
            let (mut volume, mut kept, mut content) = three_snapshots(&bed).await;
            let (snapshot, _) = kept.remove(victim);
            let merge = bed.plan(&snapshot, &volume).await.expect("something to merge");
            bed.merge(&merge, &volume).await;
            // Here the process died.
            match next {
                "again, detached" => {
                    (volume.status, volume.attach_status) = (VolumeStatus::Available, AttachStatus::Detached);
                }
                "new snapshot" => {
                    kept.push((bed.snapshot(&mut volume).await, content.clone()));
                    bed.write(&volume, &mut content, &[13], 0x78).await;
                }
                "another goes first" => {
                    let (other, _) = kept.pop().expect("two are left");
                    if let Some(merge) = bed.plan(&other, &volume).await {
                        bed.merge(&merge, &volume).await;
                    }
                    bed.unsnapshot(&other, &mut volume).await;
                }
                _ => {}
            }
            if volume.attach_status == AttachStatus::Attached
                && let Some(merge) = bed.plan(&snapshot, &volume).await
            {
                assert_eq!(next, "another goes first", "{victim}: merged twice");
                bed.merge(&merge, &volume).await;
            }
            bed.unsnapshot(&snapshot, &mut volume).await;
            bed.expect(&volume, &content).await;
            for (snapshot, frozen) in &kept {
                let copy = bed.copy_of_snapshot(snapshot, &volume, 1).await;
                bed.expect(&copy, frozen).await;
                bed.delete(copy).await;
            }
            let files = bed.files_of(&volume);
            assert_eq!(files.len(), kept.len() + 2, "{victim}, {next}: {files:?}");
            bed.delete(volume.clone()).await;
            bed.expect_nothing_left(&volume);
        }
    }
}

/// A snapshot that the server never took up is told by its locks, and taken back without a trace.
pub async fn a_snapshot_that_no_server_took_up_is_taken_back(bed: Bed<'_>) {
    let work = Work::unlimited();
    let mut volume = bed.attached().await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[1], 0x51).await;
    let (below, _) = bed.attachable(&volume).await;
    let before = bed.files_of(&volume);
    let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
    let facts = bed.driver.create_snapshot(&work, &snapshot, &volume).await.expect("create");
    let overlay = facts.active.clone().expect("a file for the server to write into");
    Bed::record_snapshot(&mut volume, facts);
    let told = async || bed.assisted().is_taken_up(&work, &snapshot, &volume).await.expect("look");
    assert_eq!(told().await, None, "nobody has anything open");
    let reader = open_as_qemu_does(&below, READS);
    assert_eq!(told().await, None, "somebody copies it: that says nothing of the server");
    let writer = open_as_qemu_does(&below, WRITES);
    assert_eq!(told().await, Some(false), "the server writes to the file below, and has no other open");
    let taken_up = open_as_qemu_does(&bed.root.join(&overlay), WRITES);
    assert_eq!(told().await, Some(true));
    drop((reader, writer, taken_up));
    for _ in 0..2 {
        let facts = bed.assisted().withdraw_snapshot(&work, &snapshot, &volume).await.expect("withdraw");
        Bed::record_snapshot(&mut volume, facts);
        let mut left = bed.files_of(&volume);
        left.retain(|file| !file.ends_with(".info"));
        assert_eq!(left, before);
        bed.expect(&volume, &content).await;
    }
    assert_eq!(volume.admin_metadata["format"], volume.admin_metadata["base_format"]);
    let mut gone = snapshot;
    gone.status = SnapshotStatus::Available;
    let other = Volume::new(VolumeId::random(), 1);
    let lost = bed.driver.create_volume_from_snapshot(&work, &other, &gone, &volume).await;
    assert_eq!(lost.expect_err("it is not there").fault.class, FaultClass::VolumeDriverException);
    bed.delete(volume).await;
}

/// The bytes that QEMU locks for what it may do with a file (`block/file-posix.c: RAW_LOCK_PERM_BASE`).
const READS: i64 = 100;
const WRITES: i64 = 101;

fn open_as_qemu_does(path: &std::path::Path, byte: i64) -> File {
    let file = File::open(path).expect("open");
    #[allow(clippy::cast_possible_truncation, reason = "the constants are small; the field's type differs by platform")]
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).expect("lock");
    file
}
