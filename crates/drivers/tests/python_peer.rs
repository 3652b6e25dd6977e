//! Our NFS driver and the real Python one on the same share, each working on what the other made.
//!
//! Python comes from a virtual environment with cinder in it (`SCORIA_PEER_VENV`, default the repository's `.tools/peer-venv`); what is
//! faked around its driver is named in `python_peer.py`.

#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{ADDRESS, NfsBed, in_mount_namespace};
use scoria_drivers::{NfsDriver, VolumeDriver, Work};
use scoria_model::{Connector, GIB, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus};
use serde_json::{Value, json};

mod common;

struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(bed: &NfsBed) -> Self {
        let venv = std::env::var("SCORIA_PEER_VENV")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/peer-venv").to_owned());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_peer.py");
        let mut child = Command::new(Path::new(&venv).join("bin/python"))
            .arg(script)
            .arg(&bed.base)
            .arg(bed.directory.path().join("shares"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no Python with cinder in {venv} (set SCORIA_PEER_VENV): {error}"));
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("Python ended: see its output"));
        assert!(reply.get("error").is_none(), "{request}: {reply}");
        reply
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn row(volume: &Volume) -> Value {
    json!({
        "id": volume.id.as_str(), "size": volume.size, "status": volume.status.as_str(),
        "attach_status": volume.attach_status.as_str(), "provider_location": volume.provider_location,
        "admin_metadata": volume.admin_metadata,
    })
}

fn snapshot_row(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id.as_str(), "volume_id": snapshot.volume_id.as_str(), "volume_size": snapshot.volume_size,
        "status": snapshot.status.as_str(), "display_name": "s",
    })
}

/// Who does the next step.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Who {
    Ours,
    Python,
}
use Who::{Ours, Python as Theirs};

type Content = BTreeMap<u64, u8>;
const PIECE: u64 = 64 << 10;

struct Both {
    bed: NfsBed,
    python: Python,
}

impl Both {
    async fn new() -> Self {
        let bed = NfsBed::new().await;
        let python = Python::start(&bed);
        Self { bed, python }
    }

    fn driver(&self) -> &NfsDriver {
        &self.bed.driver
    }

    fn settle(volume: &mut Volume, reply: &Value) {
        let metadata = reply["admin_metadata"].as_object().unwrap().iter();
        volume.admin_metadata =
            metadata.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect();
        if let Some(location) = reply["answer"]["provider_location"].as_str() {
            volume.provider_location = Some(location.to_owned());
        }
        volume.status = VolumeStatus::Available;
    }

    async fn make(&mut self, who: Who, size: u64, source: Option<(&mut Volume, Option<&Snapshot>)>) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        let work = Work::unlimited();
        if who == Theirs {
            let reply = match source {
                None => self.python.ask(&json!({"operation": "create_volume", "volume": row(&volume)})),
                Some((source, None)) => self.python.ask(&json!({
                    "operation": "create_cloned_volume", "volume": row(&volume), "source": row(source),
                })),
                Some((source, Some(snapshot))) => self.python.ask(&json!({
                    "operation": "create_volume_from_snapshot", "volume": row(&volume), "source": row(source),
                    "snapshot": snapshot_row(snapshot),
                })),
            };
            Self::settle(&mut volume, &reply);
            return volume;
        }
        let facts = match source {
            None => self.driver().create_volume(&work, &volume).await,
            Some((source, None)) => self.driver().create_cloned_volume(&work, &volume, source).await,
            Some((source, Some(snapshot))) => {
                self.driver().create_volume_from_snapshot(&work, &volume, snapshot, source).await
            }
        }
        .unwrap();
        volume.provider_location = facts.provider_location;
        volume.admin_metadata = facts.admin_metadata;
        volume.status = VolumeStatus::Available;
        volume
    }

    async fn snapshot(&mut self, who: Who, volume: &mut Volume) -> Snapshot {
        let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size);
        match who {
            Theirs => {
                let reply = self.python.ask(&json!({
                    "operation": "create_snapshot", "volume": row(volume), "snapshot": snapshot_row(&snapshot),
                }));
                Self::settle(volume, &reply);
            }
            Ours => {
                let facts = self.driver().create_snapshot(&Work::unlimited(), &snapshot, volume).await.unwrap();
                volume.admin_metadata.extend(facts.volume_admin_metadata);
            }
        }
        snapshot.status = SnapshotStatus::Available;
        snapshot
    }

    async fn unsnapshot(&mut self, who: Who, snapshot: &Snapshot, volume: &mut Volume) {
        match who {
            Theirs => {
                let reply = self.python.ask(&json!({
                    "operation": "delete_snapshot", "volume": row(volume), "snapshot": snapshot_row(snapshot),
                }));
                Self::settle(volume, &reply);
            }
            Ours => {
                let facts = self.driver().delete_snapshot(&Work::unlimited(), snapshot, volume).await.unwrap();
                volume.admin_metadata.extend(facts.volume_admin_metadata);
            }
        }
    }

    async fn extend(&mut self, who: Who, volume: &mut Volume, size: u64) {
        match who {
            Theirs => drop(self.python.ask(&json!({
                "operation": "extend_volume", "volume": row(volume), "new_size": size,
            }))),
            Ours => self.driver().extend_volume(&Work::unlimited(), volume, size).await.unwrap(),
        }
        volume.size = size;
    }

    async fn delete(&mut self, who: Who, volume: &Volume) {
        match who {
            Theirs => drop(self.python.ask(&json!({"operation": "delete_volume", "volume": row(volume)}))),
            Ours => self.driver().delete_volume(&Work::unlimited(), volume).await.unwrap(),
        }
        let left: Vec<_> = std::fs::read_dir(&self.bed.mount)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            // The lock file of a volume that Python deleted stays: it is empty and harmless.
            .filter(|name| name.contains(volume.id.as_str()) && !name.ends_with(".scoria-lock"))
            .collect();
        assert!(left.is_empty(), "{who:?} left {left:?}");
    }

    /// Both tell the same of a volume; the answer is the active file and its format.
    async fn active(&mut self, volume: &Volume) -> (PathBuf, String) {
        let work = Work::unlimited();
        let ours = self.driver().initialize_connection(&work, volume, &Connector::new()).await.unwrap();
        let theirs = self.python.ask(&json!({"operation": "initialize_connection", "volume": row(volume)}));
        assert_eq!(Value::Object(ours.clone()), theirs["answer"], "connection info");
        let text = |key: &str| ours["data"][key].as_str().unwrap().to_owned();
        (self.bed.mount.join(text("name")), text("format"))
    }

    async fn write(&mut self, volume: &Volume, content: &mut Content, piece: u64, pattern: u8) {
        let (path, format) = self.active(volume).await;
        qemu_io(&path, &format, &[format!("write -P {pattern:#x} {} {PIECE}", piece * PIECE)]);
        content.insert(piece, pattern);
    }

    async fn expect(&mut self, volume: &Volume, content: &Content) {
        let (path, format) = self.active(volume).await;
        let read = |(piece, pattern): (&u64, &u8)| format!("read -P {pattern:#x} {} {PIECE}", piece * PIECE);
        let mut commands: Vec<_> = content.iter().map(read).collect();
        commands.push(format!("read -P 0 {} {PIECE}", volume.size * GIB - PIECE));
        qemu_io(&path, &format, &commands);
    }

    /// Every `.info` on the share is, to the byte, what Python would write.
    fn expect_pythons_bytes(&self, volume: &Volume) {
        let path = self.bed.mount.join(format!("volume-{}.info", volume.id));
        let venv = std::env::var("SCORIA_PEER_VENV")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/peer-venv").to_owned());
        let code = "import json,sys; text=open(sys.argv[1]).read(); \
                    sys.exit(text != json.dumps(json.loads(text), indent=1, sort_keys=True))";
        let python = Path::new(&venv).join("bin/python");
        assert!(Command::new(python).args(["-c", code]).arg(&path).status().unwrap().success(), "{path:?}");
    }
}

fn qemu_io(path: &Path, format: &str, commands: &[String]) {
    let mut command = Command::new("qemu-io");
    command.args(["-f", format]);
    for text in commands {
        command.args(["-c", text]);
    }
    let output = command.arg(path).output().expect("qemu-io (Debian package qemu-utils)");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !text.contains("verification failed"), "{path:?} {commands:?}: {text}");
}

fn test(name: &'static str, test: impl AsyncFnOnce(Both)) {
    in_mount_namespace(name, async { test(Both::new().await).await });
}

#[test]
fn a_chain_made_by_both_is_unmade_by_both() {
    test("a_chain_made_by_both_is_unmade_by_both", async |mut both: Both| {
        for (maker, makers, unmakers) in [
            (Theirs, [Theirs, Theirs, Theirs], [Ours, Ours, Ours]),
            (Ours, [Ours, Ours, Ours], [Theirs, Theirs, Theirs]),
            (Ours, [Theirs, Ours, Theirs], [Ours, Theirs, Ours]),
            (Theirs, [Ours, Theirs, Ours], [Theirs, Ours, Theirs]),
        ] {
            for order in [[1, 0, 2], [2, 1, 0], [0, 2, 1]] {
                let mut volume = both.make(maker, 1, None).await;
                let (mut content, mut snapshots) = (Content::new(), Vec::new());
                for (number, who) in (0u8..).zip(makers) {
                    both.write(&volume, &mut content, u64::from(number), 0x11 + number).await;
                    snapshots.push((both.snapshot(who, &mut volume).await, content.clone()));
                    both.expect_pythons_bytes(&volume);
                }
                both.write(&volume, &mut content, 1, 0x99).await;
                for (victim, who) in order.into_iter().zip(unmakers) {
                    let snapshot = snapshots[victim].0.clone();
                    both.unsnapshot(who, &snapshot, &mut volume).await;
                    both.expect_pythons_bytes(&volume);
                    both.expect(&volume, &content).await;
                }
                assert_eq!(volume.admin_metadata["format"], "raw");
                both.delete(unmakers[0], &volume).await;
            }
        }
    });
}

#[test]
fn copies_of_what_the_other_made() {
    test("copies_of_what_the_other_made", async |mut both: Both| {
        for (maker, copier) in [(Theirs, Ours), (Ours, Theirs)] {
            let mut volume = both.make(maker, 1, None).await;
            let mut content = Content::new();
            both.write(&volume, &mut content, 2, 0x21).await;
            let plain = both.make(copier, 1, Some((&mut volume, None))).await;
            both.expect(&plain, &content).await;
            let frozen = content.clone();
            let snapshot = both.snapshot(maker, &mut volume).await;
            both.write(&volume, &mut content, 2, 0x22).await;
            let from_snapshot = both.make(copier, 1, Some((&mut volume, Some(&snapshot)))).await;
            both.expect(&from_snapshot, &frozen).await;
            for (who, volume) in [(maker, &plain), (maker, &from_snapshot), (copier, &volume)] {
                if who == Theirs && volume.id.as_str() == snapshot.volume_id.as_str() {
                    // Python removes the active file only: its API lets nobody delete a volume with snapshots.
                    continue;
                }
                both.delete(who, volume).await;
            }
        }
    });
}

#[test]
fn what_one_extends_the_other_serves() {
    test("what_one_extends_the_other_serves", async |mut both: Both| {
        for (maker, grower) in [(Theirs, Ours), (Ours, Theirs)] {
            let mut volume = both.make(maker, 1, None).await;
            let mut content = Content::new();
            both.write(&volume, &mut content, 0, 0x31).await;
            both.extend(grower, &mut volume, 2).await;
            both.expect(&volume, &content).await;
            let snapshot = both.snapshot(maker, &mut volume).await;
            both.extend(grower, &mut volume, 3).await;
            both.write(&volume, &mut content, 5, 0x32).await;
            both.unsnapshot(maker, &snapshot, &mut volume).await;
            both.expect(&volume, &content).await;
            both.delete(grower, &volume).await;
        }
    });
}

/// What a Python service leaves that died between removing an overlay and recording it is settled by ours.
#[test]
fn a_delete_that_died_in_python_is_settled() {
    test("a_delete_that_died_in_python_is_settled", async |mut both: Both| {
        for victim in [0, 1, 2] {
            let mut volume = both.make(Theirs, 1, None).await;
            let (mut content, mut snapshots) = (Content::new(), Vec::new());
            for number in 0..3u8 {
                both.write(&volume, &mut content, u64::from(number), 0x41 + number).await;
                snapshots.push(both.snapshot(Theirs, &mut volume).await);
            }
            both.write(&volume, &mut content, 1, 0x55).await;
            let overlay = both.bed.mount.join(format!("volume-{}.{}", volume.id, snapshots[victim].id));
            // The first two commands of Python's delete.
            let status = Command::new("qemu-img").args(["commit", "-q", "-d"]).arg(&overlay).status().unwrap();
            assert!(status.success());
            std::fs::remove_file(&overlay).unwrap();
            let snapshot = snapshots[victim].clone();
            both.unsnapshot(Ours, &snapshot, &mut volume).await;
            both.expect(&volume, &content).await;
            for (number, snapshot) in snapshots.iter().enumerate() {
                if number != victim {
                    both.unsnapshot(Theirs, snapshot, &mut volume).await;
                    both.expect(&volume, &content).await;
                }
            }
            both.delete(Theirs, &volume).await;
        }
    });
}

#[test]
fn both_report_the_same_capacity() {
    test("both_report_the_same_capacity", async |mut both: Both| {
        for who in [Ours, Theirs] {
            both.make(who, 3, None).await;
        }
        let dummy = row(&Volume::new(VolumeId::random(), 1));
        let theirs = both.python.ask(&json!({"operation": "stats", "volume": dummy}))["answer"].clone();
        // A driver that has not counted yet: ours keeps a count for a minute.
        let ours = both.driver().stats().await.unwrap();
        assert_eq!(theirs["storage_protocol"], both.driver().info().storage_protocol);
        assert_eq!(theirs["vendor_name"], both.driver().info().vendor);
        assert_eq!(theirs["driver_version"], both.driver().info().version);
        assert_eq!(theirs["volume_backend_name"], ours.backend_name);
        assert_eq!(theirs["total_capacity_gb"], ours.total_capacity_gb);
        assert_eq!(theirs["max_over_subscription_ratio"], ours.max_over_subscription_ratio);
        assert!((theirs["provisioned_capacity_gb"].as_f64().unwrap() - ours.provisioned_capacity_gb).abs() <= 3.01);
        for (key, value) in &ours.extra {
            assert_eq!(&theirs[key], value, "{key}");
        }
        assert_eq!(both.driver().info().storage_protocol, "nfs");
        assert!(std::fs::read_dir(&both.bed.mount).unwrap().count() >= 2, "{ADDRESS}");
    });
}
