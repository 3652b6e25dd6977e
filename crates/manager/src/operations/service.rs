//! Methods about the service itself: capabilities and log levels.

use std::sync::Arc;

use scoria_model::{Fault, object};
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::Failure;
use crate::manager::VolumeManager;

/// What the driver can do (`VolumeManager.get_capabilities`). With `discover` the driver is asked anew; here it always is.
pub(super) async fn get_capabilities(manager: &Arc<VolumeManager>, mut args: Args) -> Result<Value, Failure> {
    args.flag("discover", false)?;
    args.done()?;
    manager.require_driver()?;
    let stats = manager.driver.stats().await?;
    let mut report = manager.capabilities(&stats);
    let thin = json!({
        "title": "Thin Provisioning",
        "description": "Sets thin provisioning.",
        "type": "boolean",
    });
    let properties = json!({"thin_provisioning": thin});
    report.insert("properties".to_owned(), properties);
    report.insert("vendor_prefix".to_owned(), json!(manager.driver.info().name));
    Ok(Value::Object(report))
}

/// `set_log_levels(log_request)`: levels below a prefix (`cinder/manager.py: Manager.set_log_levels`).
pub(super) fn set_log_levels(manager: &Arc<VolumeManager>, mut args: Args) -> Result<Value, Failure> {
    let request = args.optional("log_request").unwrap_or_default();
    args.done()?;
    let request = object::decode_log_level(&request)?;
    let level = request.level.unwrap_or_default();
    manager.log.set(&request.prefix.unwrap_or_default(), &level).map_err(Fault::invalid_input)?;
    Ok(Value::Null)
}

/// `get_log_levels(log_request)`: a `LogLevelList`.
pub(super) fn get_log_levels(manager: &Arc<VolumeManager>, mut args: Args) -> Result<Value, Failure> {
    let request = args.optional("log_request").unwrap_or_default();
    args.done()?;
    let request = object::decode_log_level(&request)?;
    let levels = manager.log.get(&request.prefix.unwrap_or_default());
    Ok(object::encode_log_levels(&levels))
}
