//! Operations that die at each of their interruption points, and are tried again or undone.

use scoria_model::{Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId};

use super::{Bed, Content};
use crate::Work;

/// A create that dies anywhere is run again, and leaves one volume or, deleted, nothing.
pub async fn a_create_may_die_anywhere(bed: Bed<'_>) {
    let work = Work::unlimited();
    bed.points(0);
    let sample = bed.volume(1).await;
    let points = bed.points(2);
    bed.delete(sample).await;
    for point in points {
        for is_tried_again in [true, false] {
            let mut volume = Volume::new(VolumeId::random(), 1);
            bed.die(point, bed.driver.create_volume(&work, &volume)).await;
            if is_tried_again {
                let facts = bed.driver.create_volume(&work, &volume).await.expect("second try");
                Bed::record(&mut volume, facts);
                bed.expect(&volume, &Content::new()).await;
                assert_eq!(bed.files_of(&volume).len(), 1, "{point}");
            }
            bed.delete(volume.clone()).await;
            bed.expect_nothing_left(&volume);
        }
    }
}

/// Copies that die anywhere are made again.
pub async fn a_copy_may_die_anywhere(bed: Bed<'_>) {
    let work = Work::unlimited();
    let mut source = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&source, &mut content, &[0, 8], 0x41).await;
    let plain = bed.snapshot(&mut source).await;
    let frozen = content.clone();
    bed.write(&source, &mut content, &[8], 0x42).await;
    bed.points(0);
    let first = [bed.clone_of(&source, 2).await, bed.copy_of_snapshot(&plain, &source, 2).await];
    let points = bed.points(3);
    for volume in first {
        bed.delete(volume).await;
    }
    for point in points {
        if point != "copy.piece" {
            let mut volume = Volume::new(VolumeId::random(), 2);
            bed.die(point, bed.driver.create_cloned_volume(&work, &volume, &source)).await;
            let facts = bed.driver.create_cloned_volume(&work, &volume, &source).await.expect("second try");
            Bed::record(&mut volume, facts);
            bed.expect(&volume, &content).await;
            assert_eq!(bed.files_of(&volume).len(), 1, "{point}");
            bed.delete(volume).await;
        }
        let mut volume = Volume::new(VolumeId::random(), 2);
        bed.die(point, bed.driver.create_volume_from_snapshot(&work, &volume, &plain, &source)).await;
        let facts = bed.driver.create_volume_from_snapshot(&work, &volume, &plain, &source).await.expect("second try");
        Bed::record(&mut volume, facts);
        bed.expect(&volume, &frozen).await;
        bed.delete(volume.clone()).await;
        bed.expect_nothing_left(&volume);
    }
    bed.delete(source).await;
}

/// Taking a snapshot may die anywhere: it is taken again, or deleted, and the volume keeps its content.
pub async fn taking_a_snapshot_may_die_anywhere(bed: Bed<'_>) {
    let work = Work::unlimited();
    bed.points(0);
    let mut sample = bed.volume(1).await;
    bed.points(0);
    bed.snapshot(&mut sample).await;
    let points = bed.points(4);
    bed.delete(sample).await;
    for point in points {
        for is_tried_again in [true, false] {
            let mut volume = bed.volume(1).await;
            let mut content = Content::new();
            bed.write(&volume, &mut content, &[1], 0x51).await;
            let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), 1);
            bed.die(point, bed.driver.create_snapshot(&work, &snapshot, &volume)).await;
            bed.expect(&volume, &content).await;
            if is_tried_again {
                let facts = bed.driver.create_snapshot(&work, &snapshot, &volume).await.expect("second try");
                Bed::record_snapshot(&mut volume, facts);
                assert_eq!(volume.admin_metadata["format"], "qcow2");
                snapshot.status = SnapshotStatus::Available;
                let frozen = content.clone();
                bed.write(&volume, &mut content, &[1, 2], 0x52).await;
                let copy = bed.copy_of_snapshot(&snapshot, &volume, 1).await;
                bed.expect(&copy, &frozen).await;
                bed.delete(copy).await;
            }
            bed.unsnapshot(&snapshot, &mut volume).await;
            bed.expect(&volume, &content).await;
            let overlays = bed.files_of(&volume).into_iter().filter(|file| file.contains(snapshot.id.as_str())).count();
            assert_eq!(overlays, 0, "{point}: an overlay is left");
            bed.delete(volume.clone()).await;
            bed.expect_nothing_left(&volume);
        }
    }
}

/// Deleting a snapshot may die anywhere, and be settled by a second try: first, middle and last of a chain.
pub async fn deleting_a_snapshot_may_die_anywhere(bed: Bed<'_>) {
    let work = Work::unlimited();
    for victim in [0, 1, 2] {
        let mut points = vec![""];
        while let Some(point) = points.pop() {
            let mut volume = bed.volume(1).await;
            let (mut content, mut kept) = (Content::new(), Vec::new());
            for number in 0..3u8 {
                bed.write(&volume, &mut content, &[u64::from(number), 9], 0x60 + number).await;
                kept.push((bed.snapshot(&mut volume).await, content.clone()));
            }
            bed.write(&volume, &mut content, &[2], 0x70).await;
            let (snapshot, _) = kept.remove(victim);
            bed.points(0);
            if point.is_empty() {
                // The first round only learns the points.
                bed.unsnapshot(&snapshot, &mut volume).await;
                points = bed.points(4);
            } else {
                bed.die(point, bed.driver.delete_snapshot(&work, &snapshot, &volume)).await;
                bed.expect(&volume, &content).await;
                bed.unsnapshot(&snapshot, &mut volume).await;
            }
            bed.expect(&volume, &content).await;
            assert_eq!(bed.files_of(&volume).len(), 4, "{point}: {:?}", bed.files_of(&volume));
            for (snapshot, frozen) in &kept {
                let copy = bed.copy_of_snapshot(snapshot, &volume, 1).await;
                bed.expect(&copy, frozen).await;
                bed.delete(copy).await;
            }
            bed.delete(volume.clone()).await;
            bed.expect_nothing_left(&volume);
        }
    }
}

/// An extend and a delete may die anywhere.
pub async fn an_extend_and_a_delete_may_die_anywhere(bed: Bed<'_>) {
    let work = Work::unlimited();
    let mut volume = bed.volume(1).await;
    let mut content = Content::new();
    bed.write(&volume, &mut content, &[4], 0x33).await;
    bed.die("extend.grown", bed.driver.extend_volume(&work, &volume, 2)).await;
    bed.driver.extend_volume(&work, &volume, 2).await.expect("second try");
    volume.size = 2;
    bed.expect(&volume, &content).await;
    bed.delete(volume).await;
    let mut points = vec![""];
    while let Some(point) = points.pop() {
        let mut volume = bed.volume(1).await;
        for _ in 0..3 {
            bed.snapshot(&mut volume).await;
        }
        bed.points(0);
        if point.is_empty() {
            bed.delete(volume.clone()).await;
            points = bed.points(2);
        } else {
            bed.die(point, bed.driver.delete_volume(&work, &volume)).await;
            bed.delete(volume.clone()).await;
        }
        bed.expect_nothing_left(&volume);
    }
}
