//! The operations, one file each, and the table that leads to them.

mod abandon;
mod assistance;
mod attach_detach;
mod attachments;
mod connections;
mod create_snapshot;
mod create_volume;
mod delete_snapshot;
mod delete_volume;
mod extend_volume;
mod revert_to_snapshot;
mod rows;
mod service;

use std::sync::Arc;

use scoria_model::Fault;
use scoria_rpc::Request;
use serde_json::Value;

use crate::args::Args;
use crate::failure::Failure;
use crate::held::Job;
use crate::manager::VolumeManager;

pub(crate) use abandon::abandon;
pub(crate) use create_snapshot::resume as resume_create_snapshot;
pub(crate) use create_volume::resume as resume_create_volume;
pub(crate) use delete_snapshot::resume as resume_delete_snapshot;
pub(crate) use delete_volume::resume as resume_delete_volume;
pub(crate) use revert_to_snapshot::resume as resume_revert;

/// Which slots an operation takes: heavy ones copy data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Quick,
    Heavy,
}

/// One RPC method that is served.
#[derive(Debug)]
pub struct Method {
    /// Name on the wire.
    pub name: &'static str,
    pub(crate) lane: Lane,
}

const fn quick(name: &'static str) -> Method {
    Method { name, lane: Lane::Quick }
}

const fn heavy(name: &'static str) -> Method {
    Method { name, lane: Lane::Heavy }
}

/// Every method that is served (volume RPC 3.20).
pub const METHODS: &[Method] = &[
    heavy("create_volume"),
    quick("delete_volume"),
    quick("create_snapshot"),
    heavy("delete_snapshot"),
    quick("extend_volume"),
    quick("revert_to_snapshot"),
    quick("initialize_connection"),
    quick("terminate_connection"),
    quick("attachment_update"),
    quick("attachment_delete"),
    quick("attach_volume"),
    quick("detach_volume"),
    quick("remove_export"),
    quick("get_capabilities"),
    quick("secure_file_operations_enabled"),
    quick("publish_service_capabilities"),
    quick("set_log_levels"),
    quick("get_log_levels"),
];

/// Methods of the contract that are not there yet: callers get `NoSuchMethod`. `docs/rpc-methods.md` lists them.
pub const NOT_YET: &[&str] = &[
    "accept_transfer",
    "copy_volume_to_image",
    "create_group",
    "create_group_from_src",
    "create_group_snapshot",
    "delete_group",
    "delete_group_snapshot",
    "disable_replication",
    "do_cleanup",
    "enable_replication",
    "extend_volume_completion",
    "failover",
    "failover_completed",
    "failover_host",
    "failover_replication",
    "freeze_host",
    "get_backup_device",
    "get_manageable_snapshots",
    "get_manageable_volumes",
    "initialize_connection_snapshot",
    "list_replication_targets",
    "manage_existing",
    "manage_existing_snapshot",
    "migrate_volume",
    "migrate_volume_completion",
    "reimage",
    "remove_export_snapshot",
    "retype",
    "terminate_connection_snapshot",
    "thaw_host",
    "update_group",
    "update_migrated_volume",
];

/// Runs one request to its outcome.
pub(crate) async fn run(manager: &Arc<VolumeManager>, job: &Job, request: &Request) -> Result<Value, Failure> {
    let mut args = Args::new(&request.method, &request.args);
    match request.method.as_str() {
        "create_volume" => create_volume::run(manager, job, args).await,
        "delete_volume" => delete_volume::run(manager, job, args).await,
        "create_snapshot" => create_snapshot::run(manager, job, args).await,
        "delete_snapshot" => delete_snapshot::run(manager, job, args).await,
        "revert_to_snapshot" => revert_to_snapshot::run(manager, job, args).await,
        "extend_volume" => extend_volume::run(manager, job, args).await,
        "initialize_connection" => connections::initialize(manager, job, args).await,
        "terminate_connection" => connections::terminate(manager, job, args).await,
        "remove_export" => connections::remove_export(manager, job, args).await,
        "attachment_update" => attachments::update(manager, job, args).await,
        "attachment_delete" => attachments::delete(manager, job, args).await,
        "attach_volume" => attach_detach::attach(manager, job, args).await,
        "detach_volume" => attach_detach::detach(manager, job, args).await,
        "get_capabilities" => service::get_capabilities(manager, args).await,
        "secure_file_operations_enabled" => {
            args.optional("volume");
            args.done()?;
            manager.require_driver()?;
            Ok(manager.driver.secure_file_operations().into())
        }
        "publish_service_capabilities" => {
            args.done()?;
            manager.publish_capabilities().await;
            Ok(Value::Null)
        }
        "set_log_levels" => service::set_log_levels(manager, args),
        "get_log_levels" => service::get_log_levels(manager, args),
        other => Err(Fault::no_such_method(other).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_contract_is_either_served_or_named_as_missing() {
        let served: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        assert!(NOT_YET.iter().all(|name| !served.contains(name)));
        // The volume RPC API 3.20 has this many names, aliases included.
        assert_eq!(served.len() + NOT_YET.len(), 50);
    }

    #[test]
    fn the_page_about_methods_names_each_of_them() {
        let page = include_str!("../../../../docs/rpc-methods.md");
        let (served, not_yet) = page.split_once("## Not yet").expect("two parts");
        let named = |part: &str, name: &str| part.contains(&format!("`{name}`"));
        for method in METHODS {
            assert!(named(served, method.name), "{} is served", method.name);
        }
        for name in NOT_YET {
            assert!(named(not_yet, name) && !named(served, name), "{name} is not served yet");
        }
    }
}
