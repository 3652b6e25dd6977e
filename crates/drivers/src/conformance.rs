//! The suite that every driver on files must pass: content byte for byte, every order of snapshot deletions, death and
//! second try at every point. Each function is one test; it panics with what is wrong.
//!
//! It needs `qemu-img` and `qemu-io` (Debian package qemu-utils).

mod attached;
mod deaths;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use scoria_model::{
    AttachStatus, Connector, FaultClass, GIB, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus,
};

pub use attached::{
    a_snapshot_that_no_server_took_up_is_taken_back, attached_snapshots_go_in_any_order,
    what_a_server_merged_is_settled_later,
};
pub use deaths::{
    a_copy_may_die_anywhere, a_create_may_die_anywhere, an_extend_and_a_delete_may_die_anywhere,
    deleting_a_snapshot_may_die_anywhere, taking_a_snapshot_may_die_anywhere,
};

use crate::{ErrorKind, Faults, SnapshotFacts, VolumeDriver, VolumeFacts, Work};

/// A driver to be tried out.
#[derive(Debug, Clone, Copy)]
pub struct Bed<'a> {
    /// The driver, set up.
    pub driver: &'a dyn VolumeDriver,
    /// Its interruption points.
    pub faults: &'a Faults,
    /// The directory that its files lie in.
    pub root: &'a Path,
}

/// What a disk holds: a byte pattern in each piece of it.
type Content = BTreeMap<u64, u8>;
const PIECE: u64 = 64 << 10;

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (Debian package qemu-utils): {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !text.contains("verification failed"), "{program} {args:?}: {text}");
    text
}

impl Bed<'_> {
    fn record(volume: &mut Volume, facts: VolumeFacts) {
        volume.status = VolumeStatus::Available;
        volume.provider_location = facts.provider_location.or(volume.provider_location.take());
        volume.admin_metadata.extend(facts.admin_metadata);
    }

    fn record_snapshot(volume: &mut Volume, facts: SnapshotFacts) {
        volume.admin_metadata.extend(facts.volume_admin_metadata);
    }

    async fn volume(&self, size: u64) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        let facts = self.driver.create_volume(&Work::unlimited(), &volume).await.expect("create");
        Self::record(&mut volume, facts);
        volume
    }

    async fn snapshot(&self, volume: &mut Volume) -> Snapshot {
        let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size);
        let facts = self.driver.create_snapshot(&Work::unlimited(), &snapshot, volume).await.expect("create snapshot");
        Self::record_snapshot(volume, facts);
        snapshot.status = SnapshotStatus::Available;
        snapshot
    }

    async fn unsnapshot(&self, snapshot: &Snapshot, volume: &mut Volume) {
        let facts = self.driver.delete_snapshot(&Work::unlimited(), snapshot, volume).await.expect("delete snapshot");
        Self::record_snapshot(volume, facts);
    }

    async fn clone_of(&self, source: &Volume, size: u64) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        let facts = self.driver.create_cloned_volume(&Work::unlimited(), &volume, source).await.expect("clone");
        Self::record(&mut volume, facts);
        volume
    }

    async fn copy_of_snapshot(&self, snapshot: &Snapshot, source: &Volume, size: u64) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        let work = Work::unlimited();
        let facts = self.driver.create_volume_from_snapshot(&work, &volume, snapshot, source).await;
        Self::record(&mut volume, facts.expect("create from snapshot"));
        volume
    }

    async fn delete(&self, volume: Volume) {
        self.driver.delete_volume(&Work::unlimited(), &volume).await.expect("delete");
    }

    /// The file that a server would attach, and its format.
    async fn attachable(&self, volume: &Volume) -> (PathBuf, String) {
        let work = Work::unlimited();
        let info = self.driver.initialize_connection(&work, volume, &Connector::new()).await.expect("connection");
        let text = |key: &str| info["data"][key].as_str().expect("a text").to_owned();
        (self.root.join(text("name")), text("format"))
    }

    /// Writes as a guest does.
    async fn write(&self, volume: &Volume, content: &mut Content, pieces: &[u64], pattern: u8) {
        let (path, format) = self.attachable(volume).await;
        for piece in pieces {
            let write = format!("write -P {pattern:#x} {} {PIECE}", piece * PIECE);
            tool("qemu-io", &["-f", &format, "-c", &write, path.to_str().expect("UTF-8")]);
            content.insert(*piece, pattern);
        }
    }

    /// Reads as a guest does, and checks the files.
    async fn expect(&self, volume: &Volume, content: &Content) {
        let (path, format) = self.attachable(volume).await;
        let path = path.to_str().expect("UTF-8");
        let mut args = vec!["-r".to_owned(), "-f".to_owned(), format.clone()];
        let pieces = volume.size * GIB / PIECE;
        let edges = [pieces - 1, 40, 41];
        let blank = edges.iter().filter(|piece| !content.contains_key(*piece)).map(|piece| (*piece, 0));
        for (piece, pattern) in content.iter().map(|(piece, pattern)| (*piece, *pattern)).chain(blank) {
            args.extend(["-c".to_owned(), format!("read -P {pattern:#x} {} {PIECE}", piece * PIECE)]);
        }
        args.push(path.to_owned());
        tool("qemu-io", &args.iter().map(String::as_str).collect::<Vec<_>>());
        let info = tool("qemu-img", &["info", "-f", &format, path]);
        assert!(info.contains(&format!("({} bytes)", volume.size * GIB)), "size of {path}: {info}");
        if format == "qcow2" {
            for file in self.files_of(volume).iter().filter(|file| !file.contains(".info") && file.contains('.')) {
                let path = self.root.join(file);
                tool("qemu-img", &["check", "-f", "qcow2", path.to_str().expect("UTF-8")]);
            }
        }
    }

    /// What lies in the directory of a volume, without the fence.
    fn files_of(&self, volume: &Volume) -> Vec<String> {
        let entries = std::fs::read_dir(self.root).expect("list");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> =
            names.filter(|name| name.contains(volume.id.as_str()) && !name.ends_with(".scoria-lock")).collect();
        names.sort();
        names
    }

    fn expect_nothing_left(&self, volume: &Volume) {
        let left: Vec<_> =
            std::fs::read_dir(self.root).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(volume.id.as_str())), "left over: {left:?}");
    }

    /// The interruption points passed since this was last asked; at least so many.
    fn points(&self, least: usize) -> Vec<&'static str> {
        let points: Vec<_> = self.faults.take_seen().into_iter().collect();
        assert!(points.len() >= least, "passed only {points:?}");
        points
    }

    /// Runs `operation` until it reaches `point`, and lets it die there.
    async fn die<T>(&self, point: &'static str, operation: impl Future<Output = T>) {
        self.faults.arm(Some(point));
        tokio::select! {
            _ = operation => panic!("{point} was not reached"),
            () = self.faults.reached() => {}
        }
        self.faults.arm(None);
    }
}

/// A blank volume is made, attached, read as zeroes and leaves nothing behind.
pub async fn a_volume_lives_and_leaves_nothing(bed: Bed<'_>) {
    let volume = bed.volume(2).await;
    assert_eq!(bed.files_of(&volume).len(), 1);
    bed.expect(&volume, &Content::new()).await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[0, 7], 0xab).await;
    bed.expect(&volume, &content).await;
    // A second try of a delete finds nothing, which is fine.
    bed.delete(volume.clone()).await;
    bed.expect_nothing_left(&volume);
    bed.delete(volume.clone()).await;
    bed.expect_nothing_left(&volume);
    let stats = bed.driver.stats().await.expect("stats");
    assert!(stats.total_capacity_gb > 0.0 && stats.free_capacity_gb <= stats.total_capacity_gb);
    assert!(bed.driver.capabilities().active_active);
}

/// Peer defect 13: a volume whose row never learnt its location is found and removed.
pub async fn defect_13_a_volume_without_location_is_deleted(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    volume.provider_location = None;
    volume.status = VolumeStatus::Error;
    bed.delete(volume.clone()).await;
    bed.expect_nothing_left(&volume);
}

/// Snapshots are deleted in every order; what stays keeps its content.
pub async fn snapshots_go_in_any_order(bed: Bed<'_>) {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut volume = bed.volume(1).await;
        let (mut content, mut kept) = (Content::new(), Vec::new());
        for number in 0..3u8 {
            bed.write(&volume, &mut content, &[u64::from(number), 9], 0x10 + number).await;
            kept.push(Some((bed.snapshot(&mut volume).await, content.clone())));
        }
        bed.write(&volume, &mut content, &[2, 5], 0x77).await;
        for victim in order {
            let (snapshot, _) = kept[victim].take().expect("still there");
            bed.unsnapshot(&snapshot, &mut volume).await;
            bed.expect(&volume, &content).await;
            for (snapshot, frozen) in kept.iter().flatten() {
                let copy = bed.copy_of_snapshot(snapshot, &volume, 1).await;
                bed.expect(&copy, frozen).await;
                bed.delete(copy).await;
            }
            // Deleting it again is fine.
            bed.unsnapshot(&snapshot, &mut volume).await;
        }
        assert_eq!(bed.files_of(&volume).len(), 2, "the volume and its .info: {:?}", bed.files_of(&volume));
        assert_eq!(volume.admin_metadata["format"], volume.admin_metadata["base_format"]);
        bed.delete(volume.clone()).await;
        bed.expect_nothing_left(&volume);
    }
}

/// A long chain holds its content, can be cloned, and goes with the volume.
pub async fn a_deep_chain_is_cloned_and_deleted_whole(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    let mut content = Content::new();
    for number in 0..12u8 {
        bed.write(&volume, &mut content, &[u64::from(number)], 0x20 + number).await;
        bed.snapshot(&mut volume).await;
    }
    bed.expect(&volume, &content).await;
    let copy = bed.clone_of(&volume, 1).await;
    bed.expect(&copy, &content).await;
    assert_eq!(bed.files_of(&copy).len(), 1, "a clone stands alone");
    bed.delete(volume.clone()).await;
    bed.expect_nothing_left(&volume);
    bed.expect(&copy, &content).await;
    bed.delete(copy).await;
}

/// Peer defect 18: clones and volumes from snapshots have the size that was asked for.
pub async fn defect_18_larger_copies_are_larger(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[0, 3, GIB / PIECE - 1], 0x55).await;
    let copy = bed.clone_of(&volume, 3).await;
    bed.expect(&copy, &content).await;
    bed.delete(copy).await;
    let frozen = content.clone();
    let snapshot = bed.snapshot(&mut volume).await;
    bed.write(&volume, &mut content, &[3], 0x66).await;
    let from_snapshot = bed.copy_of_snapshot(&snapshot, &volume, 2).await;
    bed.expect(&from_snapshot, &frozen).await;
    let copy = bed.clone_of(&volume, 2).await;
    bed.expect(&copy, &content).await;
    for volume in [copy, from_snapshot, volume] {
        bed.delete(volume).await;
    }
}

/// Peer defect 17: a volume that went back to its latest snapshot has that content, at its own size, and its chain goes on.
pub async fn defect_17_a_volume_goes_back_to_its_latest_snapshot(bed: Bed<'_>) {
    let work = Work::unlimited();
    let mut volume = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[0, 3], 0x21).await;
    let first = bed.snapshot(&mut volume).await;
    let at_first = content.clone();
    bed.write(&volume, &mut content, &[3, 5], 0x22).await;
    let second = bed.snapshot(&mut volume).await;
    let at_second = content.clone();
    bed.write(&volume, &mut content, &[0, 9], 0x23).await;
    bed.driver.revert_to_snapshot(&work, &first, &volume).await.expect_err("not the latest");
    bed.expect(&volume, &content).await;

    volume.status = VolumeStatus::Reverting;
    bed.points(0);
    bed.driver.revert_to_snapshot(&work, &second, &volume).await.expect("revert");
    for point in bed.points(2) {
        bed.die(point, bed.driver.revert_to_snapshot(&work, &second, &volume)).await;
        bed.driver.revert_to_snapshot(&work, &second, &volume).await.expect("second try");
    }
    volume.status = VolumeStatus::Available;
    bed.expect(&volume, &at_second).await;

    // What ends in `error_extending` and `error_deleting` behind Python's revert.
    let mut content = at_second.clone();
    bed.driver.extend_volume(&work, &volume, 2).await.expect("extend");
    volume.size = 2;
    bed.write(&volume, &mut content, &[7, GIB / PIECE], 0x24).await;
    bed.expect(&volume, &content).await;
    bed.driver.revert_to_snapshot(&work, &second, &volume).await.expect("revert");
    bed.expect(&volume, &at_second).await;
    bed.unsnapshot(&second, &mut volume).await;
    bed.expect(&volume, &at_second).await;
    bed.driver.revert_to_snapshot(&work, &first, &volume).await.expect("revert");
    bed.expect(&volume, &at_first).await;
    bed.unsnapshot(&first, &mut volume).await;
    bed.expect(&volume, &at_first).await;
    bed.delete(volume.clone()).await;
    bed.expect_nothing_left(&volume);
}

/// Volumes grow, with snapshots and without, and never shrink.
pub async fn volumes_grow(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[1], 0x31).await;
    let work = Work::unlimited();
    bed.driver.extend_volume(&work, &volume, 2).await.expect("extend");
    // The second try of an extend whose end was not recorded.
    bed.driver.extend_volume(&work, &volume, 2).await.expect("extend again");
    volume.size = 2;
    bed.expect(&volume, &content).await;
    let snapshot = bed.snapshot(&mut volume).await;
    bed.driver.extend_volume(&work, &volume, 4).await.expect("extend with a snapshot");
    volume.size = 4;
    bed.write(&volume, &mut content, &[3 * GIB / PIECE], 0x32).await;
    bed.expect(&volume, &content).await;
    bed.unsnapshot(&snapshot, &mut volume).await;
    bed.expect(&volume, &content).await;
    let shrink = bed.driver.extend_volume(&work, &volume, 3).await.expect_err("must not shrink");
    assert_eq!(shrink.fault.class, FaultClass::ExtendVolumeError);
    bed.delete(volume).await;
}

/// What cannot be done is refused with the class that clients know, and changes nothing.
pub async fn what_cannot_be_done_is_refused(bed: Bed<'_>) {
    let work = Work::unlimited();
    let volume = bed.volume(1).await;
    let before = bed.files_of(&volume);
    let mut attached = volume.clone();
    attached.attach_status = AttachStatus::Attached;
    attached.status = VolumeStatus::InUse;
    let other = Volume::new(VolumeId::random(), 1);
    let snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
    let class = |error: crate::Error| error.fault.class;
    let clone = bed.driver.create_cloned_volume(&work, &other, &attached).await.expect_err("attached source");
    assert_eq!(class(clone), FaultClass::InvalidVolume);
    let extend = bed.driver.extend_volume(&work, &attached, 2).await.expect_err("attached");
    assert_eq!(class(extend), FaultClass::ExtendVolumeError);
    let mut wrong = volume.clone();
    wrong.status = VolumeStatus::Error;
    let state = bed.driver.create_snapshot(&work, &snapshot, &wrong).await.expect_err("in error");
    assert_eq!(class(state), FaultClass::InvalidVolume);
    let from = bed.driver.create_volume_from_snapshot(&work, &other, &snapshot, &volume).await.expect_err("creating");
    assert_eq!(class(from), FaultClass::InvalidSnapshot);
    let mut encrypted = other.clone();
    encrypted.encryption_key_id = Some("key".to_owned());
    let refused = bed.driver.create_volume(&work, &encrypted).await.expect_err("encrypted");
    assert_eq!(class(refused), FaultClass::VolumeDriverException);
    let huge = Volume::new(VolumeId::random(), u64::MAX / 2);
    assert!(bed.driver.create_volume(&work, &huge).await.is_err());
    let cancelled = Work::unlimited();
    cancelled.cancel.cancel();
    let stopped = bed.driver.create_snapshot(&cancelled, &snapshot, &volume).await.expect_err("cancelled");
    assert_eq!(stopped.kind, ErrorKind::Cancelled);
    let mut small = volume.clone();
    small.size = 0;
    let exploit = bed.driver.initialize_connection(&work, &small, &Connector::new()).await.expect_err("too large");
    assert_eq!(class(exploit), FaultClass::InvalidVolume);
    assert_eq!(bed.files_of(&volume), before);
    bed.expect_nothing_left(&other);
    bed.delete(volume).await;
}

/// Peer defect 20: a guest that writes a qcow2 header into its raw volume gains nothing.
pub async fn defect_20_a_guests_header_is_not_believed(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    if volume.admin_metadata["format"] != "raw" {
        return bed.delete(volume).await;
    }
    let (path, _) = bed.attachable(&volume).await;
    let evil = bed.root.join("evil");
    let evil_text = evil.to_str().expect("UTF-8");
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", evil_text, "64M"]);
    let header = std::fs::read(&evil).expect("read");
    std::fs::remove_file(&evil).expect("remove");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &header, 0).expect("write");
    assert_eq!(bed.attachable(&volume).await.1, "raw");
    let snapshot = bed.snapshot(&mut volume).await;
    assert_eq!(volume.admin_metadata["base_format"], "raw");
    let copies = [bed.copy_of_snapshot(&snapshot, &volume, 1).await, bed.clone_of(&volume, 1).await];
    bed.unsnapshot(&snapshot, &mut volume).await;
    for copy in copies.iter().chain([&volume]) {
        let (path, format) = bed.attachable(copy).await;
        assert_eq!(format, "raw");
        let mut start = vec![0; header.len()];
        let file = std::fs::File::open(path).expect("open");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).expect("read");
        assert_eq!(start, header, "bytes, not what they pretend to be");
    }
    for volume in copies {
        bed.delete(volume).await;
    }
    bed.delete(volume).await;
}

/// Peer defect 19: whoever reads `.info` at any time reads a whole one.
pub async fn defect_19_info_is_never_half_there(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    bed.snapshot(&mut volume).await;
    let name = bed.files_of(&volume).into_iter().find(|name| name.ends_with(".info")).expect(".info");
    let (path, stop) = (bed.root.join(name), AtomicBool::new(false));
    let mut reads = 0;
    // Scoped: the reader is joined before the test ends.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let text = std::fs::read(&path).expect("the file is always there");
                let map: BTreeMap<String, String> = serde_json::from_slice(&text).expect("a whole file");
                assert!(map.contains_key("active"));
                reads += 1;
            }
        });
        // The runtime's own thread drives the operations while the reader reads.
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..10 {
                    let snapshot = bed.snapshot(&mut volume).await;
                    bed.unsnapshot(&snapshot, &mut volume).await;
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("reader");
    });
    assert!(reads > 100, "only {reads} reads");
    bed.delete(volume).await;
}

/// Peer defect 6: copies of one source are made side by side, from it and from its snapshot.
pub async fn defect_6_copies_of_one_source_run_side_by_side(bed: Bed<'_>) {
    let mut source = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&source, &mut content, &[0, 3], 0x61).await;
    let snapshot = bed.snapshot(&mut source).await;
    // The first stops in the middle, holding what it holds of the source; the others come to their end meanwhile.
    bed.faults.arm(Some("clone.copied"));
    let stopped = bed.clone_of(&source, 1);
    let others = async {
        bed.faults.reached().await;
        bed.faults.arm(None);
        (bed.clone_of(&source, 1).await, bed.copy_of_snapshot(&snapshot, &source, 1).await)
    };
    let (first, second) = tokio::select! {
        _ = stopped => panic!("was to stop"),
        copies = others => copies,
    };
    for copy in [first, second] {
        bed.expect(&copy, &content).await;
        bed.delete(copy).await;
    }
    bed.delete(source).await;
}

/// A holder with an older lock than one that was here before is refused; the newer goes on.
pub async fn an_older_token_is_refused(bed: Bed<'_>) {
    let mut volume = bed.volume(1).await;
    let with_token = |token| Work { token: Some(token), ..Work::unlimited() };
    bed.driver.extend_volume(&with_token(7), &volume, 2).await.expect("token 7");
    volume.size = 2;
    let stale = bed.driver.extend_volume(&with_token(6), &volume, 3).await.expect_err("token 6 is older");
    assert_eq!(stale.kind, ErrorKind::Cancelled);
    assert!(stale.to_string().contains("token 7"), "{stale}");
    bed.driver.extend_volume(&with_token(8), &volume, 3).await.expect("token 8");
    bed.delete(volume).await;
}
