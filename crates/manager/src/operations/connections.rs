//! `initialize_connection`, `terminate_connection`, `remove_export`, and what the attachment operations share with them.

use std::sync::Arc;

use scoria_coordination::LockRequest;
use scoria_drivers::ConnectionInfo;
use scoria_model::{Connector, Fault, Metadata, Volume, VolumeId};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::failure::Failure;
use crate::held::{Held, Job};
use crate::locks;
use crate::manager::VolumeManager;

/// QoS specs that may be given per GiB.
const PER_GB: [&str; 6] =
    ["read_iops_sec", "read_bytes_sec", "write_iops_sec", "write_bytes_sec", "total_iops_sec", "total_bytes_sec"];

/// The lock of an operation that reads a volume's active file: nobody may put another on top meanwhile.
pub(super) fn reader(manager: &VolumeManager, job: &Job, id: &VolumeId) -> LockRequest {
    locks::request(job.operation, job.context.request_id.as_deref(), id.as_str())
        .shared(locks::driver(manager.lock_prefix(), id))
}

pub(super) async fn initialize(manager: &Arc<VolumeManager>, job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume("volume")?.id;
    let connector = args.connector("connector")?;
    args.done()?;
    manager.require_driver()?;
    let held = manager.hold(job, reader(manager, job, &id)).await?;
    let outcome = match manager.db.volume_get(&id).await {
        Ok(Some(volume)) => connect(manager, &volume, &connector, &held).await,
        Ok(None) => Err(Fault::volume_not_found(&id).into()),
        Err(error) => Err(error.into()),
    };
    held.release().await;
    Ok(Value::Object(outcome?))
}

pub(super) async fn terminate(manager: &Arc<VolumeManager>, _job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    // A server that is gone can no longer say what its connector was.
    let connector = match args.optional("connector") {
        Some(Value::Object(connector)) => connector,
        _ => Connector::new(),
    };
    let force = args.flag("force", false)?;
    args.done()?;
    manager.require_driver()?;
    let volume = manager.db.volume_get(&id).await?.ok_or_else(|| Fault::volume_not_found(&id))?;
    disconnect(manager, &volume, &connector, force).await?;
    Ok(Value::Null)
}

pub(super) async fn remove_export(manager: &Arc<VolumeManager>, _job: &Job, mut args: Args) -> Result<Value, Failure> {
    let id = args.volume_id("volume_id")?;
    args.done()?;
    manager.require_driver()?;
    let volume = manager.db.volume_get(&id).await?.ok_or_else(|| Fault::volume_not_found(&id))?;
    let removed = manager.driver.remove_export(&volume).await;
    removed.map_err(|error| Fault::backend(format!("Remove volume export failed: {error}")))?;
    Ok(Value::Null)
}

/// Exports the volume and says how to reach it (`VolumeManager._connection_create`, `_parse_connection_options`).
pub(super) async fn connect(
    manager: &VolumeManager,
    volume: &Volume,
    connector: &Connector,
    held: &Held,
) -> Result<ConnectionInfo, Failure> {
    manager.driver.validate_connector(connector).map_err(Fault::invalid_input)?;
    held.check("connect")?;
    let made = manager.driver.initialize_connection(&held.work, volume, connector).await;
    let mut info = match made {
        Ok(info) => info,
        Err(error) => {
            held.check("connect")?;
            if let Err(error) = manager.driver.remove_export(volume).await {
                tracing::warn!(volume = %volume.id, %error, "export could not be removed");
            }
            return Err(Fault::backend(format!("Driver initialize connection failed (error: {error}).")).into());
        }
    };
    let qos = qos_specs(manager, volume).await?;
    if let Some(Value::Object(data)) = info.get_mut("data") {
        decorate(manager, volume, connector, qos, data);
    }
    Ok(info)
}

/// Ends a server's use of the volume; the answer says whether others share the export.
pub(super) async fn disconnect(
    manager: &VolumeManager,
    volume: &Volume,
    connector: &Connector,
    force: bool,
) -> Result<bool, Failure> {
    let shared = manager.driver.terminate_connection(volume, connector, force).await;
    Ok(shared.map_err(|error| Fault::backend(format!("Terminate volume connection failed: {error}")))?)
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
