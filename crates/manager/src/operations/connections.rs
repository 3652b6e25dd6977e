//! `initialize_connection`, `terminate_connection`, `remove_export`, and what the attachment operations share with them.
//!
//! They make, describe and end exports. A volume's exports are one operation's at a time, also across the cluster: taking
//! the last server's export away must not meet another server's being made.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_coordination::LockRequest;
use scoria_drivers::ConnectionInfo;
use scoria_model::{AttachStatus, Connector, Fault, Metadata, Volume, VolumeId};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::failure::Failure;
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;
use crate::steps::{self, Step};

/// QoS specs that may be given per GiB.
const PER_GB: [&str; 6] =
    ["read_iops_sec", "read_bytes_sec", "write_iops_sec", "write_bytes_sec", "total_iops_sec", "total_bytes_sec"];

/// The lock of an operation that makes or ends exports of a volume.
pub(super) fn exporter(job: &Job, id: &VolumeId) -> LockRequest {
    locks::request(job.operation, job.context.request_id.as_deref(), id.as_str()).exclusive(locks::exports(id))
}

/// The locks of an operation that tells a server which file is the volume's: nobody may put another on top meanwhile.
pub(super) fn connector(manager: &VolumeManager, job: &Job, id: &VolumeId) -> LockRequest {
    exporter(job, id).shared(locks::driver(manager.lock_prefix(), id))
}

/// A volume on its way to a server.
pub(super) struct Connect {
    manager: Arc<VolumeManager>,
    pub(super) volume: Volume,
    pub(super) connector: Connector,
    qos: Option<Metadata>,
    /// What the server is told, once the connection is made.
    pub(super) info: ConnectionInfo,
}

impl Connect {
    pub(super) fn new(manager: &Arc<VolumeManager>, volume: Volume, connector: Connector) -> Self {
        Self { manager: manager.clone(), volume, connector, qos: None, info: ConnectionInfo::new() }
    }

    /// Whether the same host lives on this connection already, or may do so: attachments of the old kind do not say.
    fn is_in_use(&self) -> bool {
        let host = self.connector.get("host");
        let here = |connector: &Option<Connector>| connector.as_ref().is_none_or(|other| other.get("host") == host);
        let mut attachments = self.volume.attachments.iter();
        attachments.any(|one| one.attach_status == AttachStatus::Attached && here(&one.connector))
    }

    /// Whether another host lives on the volume's export, or is about to.
    fn is_used_elsewhere(&self) -> bool {
        let mut connectors = self.volume.attachments.iter().filter_map(|attachment| attachment.connector.as_ref());
        connectors.any(|other| !other.is_empty() && *other != self.connector)
    }
}

impl AsMut<Connect> for Connect {
    fn as_mut(&mut self) -> &mut Connect {
        self
    }
}

pub(super) async fn initialize(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume("volume")?.id;
    let ask = args.connector("connector")?;
    args.done()?;
    manager.require_driver()?;
    let held = manager.hold(job, connector(manager, job, &id)).await?;
    let outcome = initialize_locked(manager, &id, ask, &held).await;
    held.release().await;
    outcome
}

async fn initialize_locked(
    manager: &Arc<VolumeManager>,
    id: &VolumeId,
    connector: Connector,
    held: &Held,
) -> Result<Value, Failure> {
    let mut connect = Connect::new(manager, volume(manager, id).await?, connector);
    steps::run(&mut connect, &[&ReadQos, &MakeConnection], held).await?;
    Ok(Value::Object(connect.info))
}

pub(super) async fn terminate(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    // A server that is gone can no longer say what its connector was.
    let connector = match args.optional("connector") {
        Some(Value::Object(connector)) => connector,
        _ => Connector::new(),
    };
    let force = args.flag("force", false)?;
    args.done()?;
    manager.require_driver()?;
    let held = manager.hold(job, exporter(job, &id)).await?;
    let outcome = async {
        let volume = volume(manager, &id).await?;
        let mut disconnect = Disconnect { manager: manager.clone(), volume, connector, force, shared: false };
        steps::run(&mut disconnect, &[&EndConnection], &held).await
    }
    .await;
    held.release().await;
    outcome.map(|()| Value::Null)
}

pub(super) async fn remove_export(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    args.done()?;
    manager.require_driver()?;
    let held = manager.hold(job, exporter(job, &id)).await?;
    let outcome = async {
        let mut removal = Removal { manager: manager.clone(), volume: volume(manager, &id).await? };
        steps::run(&mut removal, &[&RemoveExport], &held).await
    }
    .await;
    held.release().await;
    outcome.map(|()| Value::Null)
}

pub(super) async fn volume(manager: &VolumeManager, id: &VolumeId) -> Result<Volume, Failure> {
    Ok(manager.db.volume_get(id).await?.ok_or_else(|| Fault::volume_not_found(id))?)
}

/// What limits the server has to keep.
pub(super) struct ReadQos;

#[async_trait]
impl<O: AsMut<Connect> + Send> Step<O> for ReadQos {
    fn name(&self) -> &'static str {
        "read limits"
    }

    async fn run(&self, operation: &mut O, _held: &Held) -> Result<(), Failure> {
        let connect = operation.as_mut();
        connect.qos = qos_specs(&connect.manager, &connect.volume).await?;
        Ok(())
    }
}

/// Exports the volume and says how to reach it (`VolumeManager._connection_create`, `_parse_connection_options`).
pub(super) struct MakeConnection;

#[async_trait]
impl<O: AsMut<Connect> + Send> Step<O> for MakeConnection {
    fn name(&self) -> &'static str {
        "connect"
    }

    async fn run(&self, operation: &mut O, held: &Held) -> Result<(), Failure> {
        let Connect { manager, volume, connector, qos, info } = operation.as_mut();
        manager.driver.validate_connector(connector).map_err(Fault::invalid_input)?;
        let made = manager.driver.initialize_connection(&held.work, volume, connector).await;
        *info = made.map_err(|error| backend(error, "Driver initialize connection failed"))?;
        if let Some(Value::Object(data)) = info.get_mut("data") {
            decorate(manager, volume, connector, qos.clone(), data);
        }
        Ok(())
    }

    async fn undo(&self, operation: &mut O, _held: &Held) -> Result<(), Failure> {
        let connect = operation.as_mut();
        let driver = &connect.manager.driver;
        if connect.is_in_use() || driver.validate_connector(&connect.connector).is_err() {
            return Ok(());
        }
        let shared = driver.terminate_connection(&connect.volume, &connect.connector, false).await?;
        if !shared && !connect.is_used_elsewhere() {
            driver.remove_export(&connect.volume).await?;
        }
        Ok(())
    }
}

/// A volume on its way back from a server.
pub(super) struct Disconnect {
    pub(super) manager: Arc<VolumeManager>,
    pub(super) volume: Volume,
    pub(super) connector: Connector,
    pub(super) force: bool,
    /// Others use the export too, says the driver.
    pub(super) shared: bool,
}

/// Ends a server's use of the volume. It cannot be taken back: the server is told, and asks again.
pub(super) struct EndConnection;

#[async_trait]
impl Step<Disconnect> for EndConnection {
    fn name(&self) -> &'static str {
        "disconnect"
    }

    async fn run(&self, disconnect: &mut Disconnect, _held: &Held) -> Result<(), Failure> {
        let Disconnect { manager, volume, connector, force, shared } = disconnect;
        let ended = manager.driver.terminate_connection(volume, connector, *force).await;
        *shared = ended.map_err(|error| backend(error, "Terminate volume connection failed"))?;
        Ok(())
    }
}

struct Removal {
    manager: Arc<VolumeManager>,
    volume: Volume,
}

/// Nobody needs the volume any more.
struct RemoveExport;

#[async_trait]
impl Step<Removal> for RemoveExport {
    fn name(&self) -> &'static str {
        "remove export"
    }

    async fn run(&self, removal: &mut Removal, _held: &Held) -> Result<(), Failure> {
        let removed = removal.manager.driver.remove_export(&removal.volume).await;
        removed.map_err(|error| backend(error, "Remove volume export failed"))
    }
}

/// What a caller is told of a driver that failed; a driver that was stopped by us has not.
fn backend(error: scoria_drivers::Error, what: &str) -> Failure {
    match error.kind {
        scoria_drivers::ErrorKind::Cancelled => error.into(),
        _ => Fault::backend(format!("{what} (error: {error}).")).into(),
    }
}

async fn qos_specs(manager: &VolumeManager, volume: &Volume) -> Result<Option<Metadata>, Failure> {
    let Some(id) = volume.volume_type.as_ref().and_then(|volume_type| volume_type.qos_specs_id.as_deref()) else {
        return Ok(None);
    };
    let specs = manager.db.qos_specs_get(id).await?;
    Ok(specs.filter(|specs| specs.consumer != "back-end").map(|specs| per_gigabyte(specs.specs, volume.size)))
}

/// Turns figures per GiB into figures for this volume.
fn per_gigabyte(mut specs: Metadata, size: u64) -> Metadata {
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    for option in PER_GB {
        let Some(each) = number(specs.remove(&format!("{option}_per_gb"))) else { continue };
        let floor = number(specs.remove(&format!("{option}_per_gb_min"))).unwrap_or(0);
        let ceiling = number(specs.remove(&format!("{option}_max"))).unwrap_or(u64::MAX);
        specs.insert(option.to_owned(), each.saturating_mul(size).max(floor).min(ceiling).to_string());
    }
    specs
}

fn decorate(
    manager: &VolumeManager,
    volume: &Volume,
    connector: &Connector,
    qos: Option<Metadata>,
    data: &mut Map<String, Value>,
) {
    data.insert("qos_specs".to_owned(), json!(qos));
    let read_only = volume.admin_metadata.get("readonly").is_some_and(|value| value == "True");
    let attached_mode = volume.admin_metadata.get("attached_mode").map(String::as_str);
    data.insert("access_mode".to_owned(), json!(attached_mode.unwrap_or(if read_only { "ro" } else { "rw" })));
    let mut unless_set = |key: &str, value: Value| {
        if data.get(key).is_none_or(Value::is_null) {
            data.insert(key.to_owned(), value);
        }
    };
    unless_set("encrypted", json!(volume.encryption_key_id.is_some()));
    if manager.options.report_discard_supported {
        unless_set("discard", json!(true));
    }
    if let Some(volume_type) = &volume.volume_type {
        let wanted = volume_type.extra_specs.get("cacheable").is_some_and(|value| value == "<is> True");
        let allowed = data.get("cacheable").is_none_or(|value| value.as_bool() != Some(false));
        data.insert("cacheable".to_owned(), json!(wanted && allowed));
    }
    data.insert("enforce_multipath".to_owned(), connector.get("enforce_multipath").cloned().unwrap_or(json!(false)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_per_gigabyte_are_scaled_and_bounded() {
        let specs = |pairs: &[(&str, &str)]| -> Metadata {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let asked =
            specs(&[("read_iops_sec_per_gb", "10"), ("read_iops_sec_per_gb_min", "50"), ("read_iops_sec_max", "200")]);
        assert_eq!(per_gigabyte(asked.clone(), 1), specs(&[("read_iops_sec", "50")]));
        assert_eq!(per_gigabyte(asked.clone(), 10), specs(&[("read_iops_sec", "100")]));
        assert_eq!(per_gigabyte(asked, 100), specs(&[("read_iops_sec", "200")]));
        let plain = specs(&[("write_iops_sec", "7")]);
        assert_eq!(per_gigabyte(plain.clone(), 3), plain);
    }
}
