//! The real Cinder objects read what we wrote, and take over work that we began.

use std::time::Duration;

use scoria_model::{Attachment, AttachmentId, ResourceType, Snapshot, SnapshotId, Volume, VolumeId, VolumeStatus};
use scoria_testkit::PythonPeer;
use serde_json::json;

use crate::place::{Origin, Place, Server};
use crate::services::service;
use crate::volumes::pairs;

const READER: &str = r#"
import json, sys
from oslo_config import cfg
from cinder import context, objects
from cinder.common import config  # registers the options
from cinder.db import api as db

objects.register_all()
cfg.CONF([], project='cinder')
cfg.CONF.set_override('connection', sys.argv[1], group='database')
ctx = context.get_admin_context()
volume = objects.Volume.get_by_id(ctx, sys.argv[2])
snapshot = objects.SnapshotList.get_all_for_volume(ctx, volume.id)[0]
service = objects.Service.get_by_args(ctx, 'py@nfs', 'cinder-volume')
worker = db.worker_get(ctx, resource_type='Volume', resource_id=volume.id)
taken = db.worker_claim_for_cleanup(ctx, service.id, worker)
print(json.dumps({
    'name': volume.display_name,
    'size': volume.size,
    'status': volume.status,
    'metadata': volume.metadata,
    'admin_metadata': volume.admin_metadata,
    'glance_metadata': volume.glance_metadata,
    'type': volume.volume_type.name,
    'created': str(volume.created_at.replace(tzinfo=None)),
    'connector': volume.volume_attachment[0].connector,
    'attach_status': volume.volume_attachment[0].attach_status,
    'snapshot': snapshot.id,
    'snapshot_metadata': snapshot.metadata,
    'up': service.is_up,
    'cluster': service.cluster.name,
    'rpc': service.rpc_current_version,
    'usages': db.quota_usage_get_all_by_project(ctx, 'py')['volumes'],
    'worker': worker.status,
    'taken': taken,
}))
"#;

async fn python_reads_what_we_wrote(server: Server) {
    let place = Place::new(server, Origin::Cinder).await;
    let db = &place.db;
    let mut wanted = Volume::new(VolumeId::random(), 3);
    wanted.display_name = Some("größer".to_owned());
    wanted.status = VolumeStatus::Deleting;
    wanted.metadata = pairs(&[("a", "1")]);
    wanted.admin_metadata = pairs(&[("format", "qcow2")]);
    wanted.glance_metadata = pairs(&[("image_id", "7")]);
    let made = db.volume_create(&wanted).await.unwrap();
    let mut attachment = Attachment::new(AttachmentId::random(), made.id.clone());
    attachment.connector = json!({"host": "node"}).as_object().cloned();
    db.attachment_create(&attachment).await.unwrap();
    let mut snapshot = Snapshot::new(SnapshotId::random(), made.id.clone(), 3);
    snapshot.metadata = pairs(&[("s", "2")]);
    db.snapshot_create(&snapshot).await.unwrap();
    let registered = db.service_register(&service("py@nfs", Some("pyc@nfs"))).await.unwrap();
    let expire = scoria_model::Timestamp::now().plus_seconds(60);
    let amount = [("volumes".to_owned(), 1)].into();
    db.quota_reserve("py", &amount, &scoria_db::QuotaDefaults::default(), expire).await.unwrap();
    let kind = ResourceType::Volume;
    let claim = db.worker_claim(kind, made.id.as_str(), "deleting", None, registered.id).await.unwrap().unwrap();

    let script = tempfile::Builder::new().suffix(".py").tempfile().unwrap();
    std::fs::write(script.path(), READER).unwrap();
    let python = PythonPeer::find().unwrap();
    let read = python.run(script.path(), &[&place.url, made.id.as_str()], Duration::from_secs(120)).await.unwrap();
    let created = made.created_at.unwrap().to_object();
    let expected = json!({
        "name": "größer", "size": 3, "status": "deleting", "metadata": {"a": "1"},
        "admin_metadata": {"format": "qcow2"}, "glance_metadata": {"image_id": "7"}, "type": "__DEFAULT__",
        "created": created.replace('T', " ").trim_end_matches('Z'),
        "connector": {"host": "node"}, "attach_status": "reserved",
        "snapshot": snapshot.id.as_str(), "snapshot_metadata": {"s": "2"},
        "up": true, "cluster": "pyc@nfs", "rpc": "3.20", "usages": {"in_use": 0, "reserved": 1},
        "worker": "deleting", "taken": 1,
    });
    assert_eq!(read, expected);
    // Cinder has taken the work over: whatever we still try is refused.
    assert!(!db.worker_release(&claim).await.unwrap());
    let row = db.worker_get(kind, made.id.as_str()).await.unwrap().unwrap();
    assert_eq!(row.race_preventer, claim.race_preventer + 1);
}

#[tokio::test]
async fn python_reads_sqlite() {
    python_reads_what_we_wrote(Server::Sqlite).await;
}

#[tokio::test]
async fn python_reads_mariadb() {
    python_reads_what_we_wrote(Server::MariaDb).await;
}
